// The kernel of a simulated world: TAP interfaces, UDP ports and processes that exist on the world's thread alone.
//
// What the library asks the kernel for on that thread is answered here: /dev/net/tun, the netlink socket that tells of links, UDP
// sockets, the process behind a socket. Their descriptors are real numbers that nothing else is behind. What passes is seen from
// the other side by the functions below; all of them are called on the world's thread.
#ifndef SIMULATED_KERNEL_H
#define SIMULATED_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// A kernel with nothing in it, as the calling thread's; `news` is called when something has passed to the other side, `lacks` when it
// is asked for what only the machine's has.
void simulated_kernel_begin(
    void (*news)(void *context), void (*lacks)(void *context, const char *what), void *context);

// Takes everything away. Descriptors that are still open stay so, and read as ends.
void simulated_kernel_end(void);

// --- TAP and TUN interfaces

// Makes an interface, up; false when the name is taken or none.
bool simulated_tap_make(const char *name, bool multi_queue, bool is_tun, int mtu);

// Queues of an interface that a program has open and attached.
int simulated_tap_queues(const char *name);

// Gives a queue a frame to receive: without the header in front of it. False when nobody has this queue, or it is full.
bool simulated_tap_send(const char *name, int queue, const void *frame, size_t length);

// The oldest frame that was transmitted, into `room` bytes; its length, or -1 when there is none.
ssize_t simulated_tap_take(const char *name, void *frame, size_t room);

// How many transmitted frames the interface takes before it has no room, until they are taken.
void simulated_tap_set_room(const char *name, int frames);

// Sets the interface up or down, and its MTU, and tells of it.
void simulated_tap_set_up(const char *name, bool up);
void simulated_tap_set_mtu(const char *name, int mtu);

// Deletes it under whoever has it open.
void simulated_tap_delete(const char *name);

// --- UDP ports, of IPv4

// A datagram for a socket that is bound to `port`; false when there is none, or it is full. Addresses are the host's numbers.
bool simulated_udp_send(uint16_t port, uint32_t from, uint16_t from_port, const void *bytes, size_t length);

// The oldest datagram that the socket bound to `port` has sent; its length, or -1 when there is none.
ssize_t simulated_udp_take(uint16_t port, uint32_t *to, uint16_t *to_port, void *bytes, size_t room);

// --- Processes

// Begins a process that exits with `simulated_process_exit`; its number, or -1 without descriptors.
int simulated_process_begin(void);
void simulated_process_exit(int process);

// The process that listens by this socket, which is bound, from here on.
void simulated_process_listens(int process, int listener);

// Connects to a path as this process; a descriptor, or -errno.
int simulated_process_connect(int process, const char *path);

// --- Descriptors

// Whether a descriptor is the kernel's own and ready: 1 or 0; -1 when it is none of its own.
int simulated_is_ready(int descriptor, bool for_writing);

#endif
