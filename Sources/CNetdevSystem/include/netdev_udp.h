// Datagrams in bursts: recvmmsg and sendmmsg, whose structures are wider than what a gateway needs of them.
#ifndef SWIFT_NETDEV_UDP_H
#define SWIFT_NETDEV_UDP_H

#include <stdbool.h>
#include <stdint.h>

// The most messages one call moves.
#define NETDEV_UDP_BURST 64

// An IPv6 address as two numbers of this machine, the first byte on the wire being the most significant of `high`. An IPv4
// address is ::ffff:a.b.c.d.
struct netdev_udp_address {
  uint64_t high;
  uint64_t low;
};

// One datagram.
struct netdev_udp_message {
  void *bytes;                      // the payload, owned by the caller
  uint32_t length;                  // in: room (receiving) or payload bytes (sending); out: bytes received
  uint32_t interface;               // the link that link-local addresses are of, else 0
  struct netdev_udp_address other;  // the other host
  struct netdev_udp_address own;    // the address that was asked, and that shall answer; zero leaves it to the system
  uint16_t port;                    // the other host's, in this machine's byte order
  bool truncated;                   // out: the datagram was longer than the room
};

// A socket and what its calls need to know about it.
struct netdev_udp_socket {
  int descriptor;
  bool is_ipv6;
  bool is_wildcard;  // bound to no address: each datagram says which one was asked
};

// Makes a non-blocking, close-on-exec UDP socket bound to an address and a port (0: any free one), and reads back what it is
// bound to. `::` takes datagrams of both families. `receive_bytes` is asked for as the socket's receive buffer; the kernel may
// give less. Returns the port, or -errno.
int netdev_udp_open(struct netdev_udp_address address, uint16_t port, int receive_bytes, struct netdev_udp_socket *made);

// Receives up to `count` datagrams (NETDEV_UDP_BURST at most) without waiting. Returns how many, or -errno.
int netdev_udp_receive(struct netdev_udp_socket socket, struct netdev_udp_message *messages, int count);

// Sends up to `count` datagrams (NETDEV_UDP_BURST at most) without waiting. Returns how many were sent, the first not
// among them having failed, or -errno when the first one failed.
int netdev_udp_send(struct netdev_udp_socket socket, const struct netdev_udp_message *messages, int count);

#endif
