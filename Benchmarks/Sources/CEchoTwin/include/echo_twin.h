// UDP echo over a TAP interface in plain C, and the client that asks: what the framework's echo is timed against.
//
// Two servers. The *loop* serves the TAP descriptor as one would by hand: read, swap in place, write, poll when there is
// nothing. The *sockets* server is `recvfrom` and `sendto` in the kernel's stack, behind the same interface. And one client,
// which is a UDP socket when the server sits at the TAP descriptor, and writes and reads frames at the TAP descriptor when
// the server is the kernel's: one wire, the ends exchanged. It does the same calls either way.
#ifndef SWIFT_NETDEV_ECHO_TWIN_H
#define SWIFT_NETDEV_ECHO_TWIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Both ends of the wire: the interface's address, that of whoever sits at its descriptor, and the echo port.
#define ECHO_INTERFACE_ADDRESS 0x0a090001u // 10.9.0.1
#define ECHO_DESCRIPTOR_ADDRESS 0x0a090002u // 10.9.0.2
#define ECHO_PORT 7

// A TAP interface with a virtio-net header of 12 bytes in front of each frame and no offloads, as the framework opens it.
// Returns the non-blocking descriptor, or -errno. The interface goes when it is closed.
int echo_open_tap(const char *interface);

// Gives the interface its address, sets it up without IPv6, and names the neighbour at its descriptor, so that nothing but
// the client's datagrams is on the wire. Returns 0 or -errno.
int echo_configure(const char *interface);

enum echo_kind { ECHO_LOOP, ECHO_SOCKETS };

struct echo_server;

// Starts a server on a thread of its own on one CPU. The loop serves `tap` and polls it for `spin_nanoseconds` before it
// sleeps; the sockets server ignores both. Returns NULL with errno set when it cannot.
struct echo_server *echo_start(enum echo_kind kind, int tap, int cpu, uint64_t spin_nanoseconds);

// Ends the server and frees it. Returns how many datagrams it has answered.
uint64_t echo_stop(struct echo_server *server);

struct echo_client;

// A client on `cpu`: a UDP socket of the interface's address if `tap` is negative, else frames at that descriptor.
// Returns NULL with errno set when it cannot.
struct echo_client *echo_client_open(const char *interface, int tap, size_t payload);

void echo_client_close(struct echo_client *client);

// One datagram at a time, `count` times, by the calling thread on `cpu`; what each round trip took, in nanoseconds.
// Returns 0, or -errno: -ETIMEDOUT when an answer did not come within a second.
int echo_client_ping(struct echo_client *client, int cpu, uint32_t *nanoseconds, size_t count);

// Up to `window` datagrams under way, `*count` in all or as many as a second allows: `*count` says how many it were and
// `*nanoseconds` how long they took. Returns 0 or -errno.
int echo_client_stream(struct echo_client *client, int cpu, size_t window, size_t *count, uint64_t *nanoseconds);

#endif
