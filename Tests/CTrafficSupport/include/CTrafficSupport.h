// Kernel sockets as the peer of a device under test: a UDP sender with a window, in the calling thread's network namespace.
#ifndef SWIFT_NETDEV_TRAFFIC_SUPPORT_H
#define SWIFT_NETDEV_TRAFFIC_SUPPORT_H

#include <stdint.h>

struct test_window {
  // Where to send: an IPv4 or IPv6 address in numbers.
  const char *address;
  uint16_t port;
  // Sockets, each with a port of its own, and datagrams of each that may be unanswered at a time.
  int flows;
  int window;
  // Datagrams in all, of `smallest` to `largest` bytes.
  long total;
  int smallest;
  int largest;
  // How long to wait for an answer before giving up.
  int patience_milliseconds;
};

struct test_window_result {
  long sent;
  // Answers that were an unanswered datagram of their flow, unchanged; those of them that came before an older one's.
  long right;
  long early;
  // Answers that were no unanswered datagram of their flow: changed, doubled or another's.
  long wrong;
  // errno of the call that failed, or 0.
  int error;
  // Port of the first flow; the others follow where `ports` says.
  uint16_t ports[256];
};

// Sends and checks; returns 0 when every datagram came back, right and in the order of its flow.
int test_udp_window(const struct test_window *wanted, struct test_window_result *result);

// Runs a shell command in the calling thread's namespace; its exit status.
int test_shell(const char *command);

// A network namespace of the calling thread's own, loopback up. Returns 0 or -errno.
int test_new_network(void);

#endif
