// The world around a device in a scenario: the seam of CNetdevSystem, a switch, the host's network, and /proc.
#ifndef FAULT_SUPPORT_H
#define FAULT_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The seam, as netdev_fault.h documents it. Its module is no product of the package.
bool netdev_fault_is_built(void);
void netdev_fault_phase(const char *phase);
bool netdev_fault_plan(const char *plan);
uint64_t netdev_fault_fired(void);
void netdev_fault_write_record(void);
bool netdev_fault_refuses(const char *function, const char *call, const void *caller);

// MARK: Switches (backend.c)

// Forks the process that starts switches. Called first, while there is one thread and no descriptor to inherit. What is printed
// goes out by the line from here on.
void fault_start_nursery(void);

// Starts a vhost-user back-end that sends every frame back: a process of its own, listening on `path`, or connecting to it
// again and again when `is_client`. It is there when this returns: its process, or 0.
int32_t fault_start_switch(const char *path, bool is_client);

// Kills the switch and waits for its end.
void fault_kill_switch(int32_t process);

// MARK: The host's network (host.c)

// Gives the process a network of its own; false when it may not. Called while there is one thread.
bool fault_enter_network(void);

// Gives an interface an address (a dotted quad, /24) and sets it up or down. False when it cannot.
bool fault_set_address(const char *interface, const char *address);
bool fault_set_up(const char *interface, bool up);

// Makes two interfaces with a wire between them. False when it cannot, or when there are any of these names.
bool fault_make_wire(const char *interface, const char *other);

// Deletes a link. False when there is none.
bool fault_delete_link(const char *interface);

// Sends datagrams of 32 bytes to a port, one after the other, each when the one before has come back or after 50 ms, until
// `wanted` have come back or the time is over. Returns how many have. Blocks.
int fault_echo(const char *address, uint16_t port, int wanted, int milliseconds);

// MARK: What /proc says (census.c)

struct fault_census {
  int descriptors;  // open, sockets to the nursery and the like included
  int mappings;     // of memfds named netdev…, and of sockets
  int threads;      // with a name that is not the program's
  long resident;    // KiB
};
struct fault_census fault_take_census(void);

// Writes names of what is open, mapped and running into `text`, for a person.
void fault_describe_census(char *text, size_t room);

// Microseconds of CPU that this process has used.
int64_t fault_used_cpu(void);

#endif
