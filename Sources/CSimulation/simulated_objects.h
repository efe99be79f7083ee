// What a simulated kernel holds; shared by its files.
#ifndef SIMULATED_OBJECTS_H
#define SIMULATED_OBJECTS_H

#include <linux/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

struct message {
  struct message *next;
  struct sockaddr_in place;
  size_t length;
  unsigned char bytes[];
};

struct messages {
  struct message *first;
  struct message *last;
  int count;
};

enum kind { TAP_QUEUE = 1, LINK_SOCKET, INTERNET_SOCKET };

struct interface {
  struct interface *next;
  char name[IFNAMSIZ];
  int index;
  int mtu;
  int header;
  int room;
  bool is_up;
  bool is_multi_queue;
  // Packets without an Ethernet header.
  bool is_tun;
  // Made by the program that opened it: it goes with the last queue.
  bool is_temporary;
  struct messages sent;
};

// One open descriptor.
struct object {
  struct object *next;
  int descriptor;
  enum kind kind;
  struct messages arrived;
  // A TAP queue: NULL before it is one, and after the interface is gone.
  struct interface *interface;
  bool is_gone;
  bool is_detached;
  // A socket.
  struct sockaddr_in name;
  struct messages sent;
};

// The calling thread's objects; NULL outside of worlds.
struct object *simulated_object(int descriptor);
struct object *simulated_make(enum kind kind, int *descriptor);
void simulated_drop(struct object *object);
void simulated_news(void);

bool simulated_put(struct messages *messages, const struct iovec *pieces, int count, size_t skip, struct sockaddr_in place);
struct message *simulated_pop(struct messages *messages);
void simulated_clear(struct messages *messages);
size_t simulated_scatter(const struct message *message, size_t from, const struct iovec *pieces, int count);

// Answers of the kinds: a result, or -errno.
struct object *simulated_next(struct object *object);
int simulated_tap_open(void);
int simulated_tap_ioctl(struct object *object, unsigned long request, void *argument);
int simulated_link_ioctl(unsigned long request, void *argument);
ssize_t simulated_tap_read(struct object *object, const struct iovec *pieces, int count);
ssize_t simulated_tap_write(struct object *object, const struct iovec *pieces, int count);
void simulated_tap_close(struct object *object);
bool simulated_tap_is_ready(const struct object *object, bool for_writing);
ssize_t simulated_link_ask(struct object *object, const void *request, size_t length);
int simulated_udp_bind(struct object *object, const struct sockaddr_in *name);
int simulated_udp_receive(struct object *object, struct mmsghdr *headers, unsigned count);
int simulated_udp_transmit(struct object *object, struct mmsghdr *headers, unsigned count);
int simulated_process_behind(int descriptor, int option, void *value, socklen_t *length);
void simulated_taps_end(void);
void simulated_processes_end(void);

#endif
