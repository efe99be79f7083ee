// The TUN/TAP character device: its ioctls are macros that Swift cannot see.
#ifndef SWIFT_NETDEV_TAP_H
#define SWIFT_NETDEV_TAP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

// Opens /dev/net/tun and attaches one queue of TAP interface `name` (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, and
// IFF_MULTI_QUEUE when asked), non-blocking, close-on-exec. Returns the descriptor, or -errno; `*step` then names the
// call that failed: 0 open, 1 TUNSETIFF.
int netdev_tap_open(const char *name, bool multi_queue, int *step);

// The name that the kernel gave, into `name` (at least 16 bytes). Returns 0 or -errno.
int netdev_tap_name(int descriptor, char *name);

// Length of the virtio-net header in front of each frame. Returns 0 or -errno.
int netdev_tap_set_header_length(int descriptor, int length);

// Offloads accepted from the kernel (TUN_F_ bits). Returns 0 or -errno.
int netdev_tap_set_offload(int descriptor, unsigned int bits);

// Attaches or detaches a queue of a multi-queue interface. Returns 0 or -errno.
int netdev_tap_set_queue(int descriptor, bool attached);

// Reads one frame behind its net header into `pieces`, without waiting. Returns its length or -errno.
ssize_t netdev_tap_read(int descriptor, const struct iovec *pieces, int count);

// Writes one frame behind its net header, without waiting. Returns 0 or -errno.
int netdev_tap_write(int descriptor, const struct iovec *pieces, int count);

// Brings the interface up or down by name. Returns 0 or -errno.
int netdev_interface_set_up(const char *name, bool up);

// MTU of an interface by name, or -errno.
int netdev_interface_mtu(const char *name);

#endif
