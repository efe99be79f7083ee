// Datagrams in bursts: recvmmsg and sendmmsg, whose structures are wider than what a gateway needs of them.
#ifndef SWIFT_NETDEV_UDP_H
#define SWIFT_NETDEV_UDP_H

#include <stdbool.h>
#include <stdint.h>

// The most messages one call moves.
#define NETDEV_UDP_BURST 64

// One IPv4 datagram. `address` and `port` are the other host's, in this machine's byte order.
struct netdev_udp_message {
  void *bytes;        // the payload, owned by the caller
  uint32_t length;    // in: room (receiving) or payload bytes (sending); out: bytes received
  uint32_t address;
  uint16_t port;
  bool truncated;     // out: the datagram was longer than the room
};

// A non-blocking, close-on-exec UDP socket bound to an IPv4 address and port (0: any free one), or -errno.
// `receive_bytes` is asked for as the socket's receive buffer; the kernel may give less.
int netdev_udp_open(uint32_t address, uint16_t port, int receive_bytes);

// The port a socket is bound to, or -errno.
int netdev_udp_port(int descriptor);

// Receives up to `count` datagrams (NETDEV_UDP_BURST at most) without waiting. Returns how many, or -errno.
int netdev_udp_receive(int descriptor, struct netdev_udp_message *messages, int count);

// Sends up to `count` datagrams (NETDEV_UDP_BURST at most) without waiting. Returns how many were sent, the first not
// among them having failed, or -errno when the first one failed.
int netdev_udp_send(int descriptor, const struct netdev_udp_message *messages, int count);

#endif
