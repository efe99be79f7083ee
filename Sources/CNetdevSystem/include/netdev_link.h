// Interfaces of this host as the kernel sees them (links): set up, looked up, watched.
#ifndef SWIFT_NETDEV_LINK_H
#define SWIFT_NETDEV_LINK_H

#include <stdbool.h>

// Brings the interface up or down by name. Returns 0 or -errno.
int netdev_interface_set_up(const char *name, bool up);

// What an interface is at the moment.
struct netdev_link {
  int index;
  char name[16];  // IFNAMSIZ; always with its zero
  bool is_up;
  bool is_running;  // and there is somebody at the other end of its wire, as far as it knows
  int mtu;
  int queues;  // queues of a TUN/TAP interface that are open, attached or not, whoever has them; -1: the kernel does not say
};

// A non-blocking netlink socket that is readable when a link of a namespace has changed: the namespace of the calling thread,
// or, with a TAP queue's descriptor, the one that its interface is in now. Returns the descriptor, or -errno.
int netdev_link_watch(void);
int netdev_link_watch_beside(int tap);

// Whether a watch listens in the namespace that the interface of a TAP queue is in now: 1 or 0; -errno where the kernel does not
// tell this process.
int netdev_link_is_beside(int watch, int tap);

// Takes what has been told by a watch, and looks up the link of this name, or of this index, in its namespace. Returns 0; -ENODEV
// when there is none; or -errno. The kernel answers under the lock of all changes to links (rtnl): this waits for as long as
// anybody on the machine holds that.
int netdev_link_look(int watch, const char *name, struct netdev_link *link);
int netdev_link_look_again(int watch, int index, struct netdev_link *link);

#endif
