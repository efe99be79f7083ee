// The TUN/TAP character device: its ioctls are macros that Swift cannot see.
#ifndef SWIFT_NETDEV_TAP_H
#define SWIFT_NETDEV_TAP_H

#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

// Opens /dev/net/tun and attaches one queue of TAP interface `name` (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, and
// IFF_MULTI_QUEUE when asked), non-blocking, close-on-exec. Returns the descriptor, or -errno; `*step` then names the
// call that failed: 0 open, 1 TUNSETIFF.
int netdev_tap_open(const char *name, bool multi_queue, int *step);
// The same of a TUN interface (IFF_TUN), whose packets have no Ethernet header.
int netdev_tun_open(const char *name, bool multi_queue, int *step);

// The interface's name as it is now, into `name` (at least 16 bytes). Returns 0 or -errno; -EBADFD when the interface is gone.
int netdev_tap_name(int descriptor, char *name);

// What a queue is, and was not asked to be.
#define NETDEV_TAP_OTHER_KIND 1      // not an interface of the kind that was asked for
#define NETDEV_TAP_PACKET_INFO 2     // packet information in front of frames
#define NETDEV_TAP_NO_HEADER 4       // no virtio-net header in front of frames
#define NETDEV_TAP_OTHER_QUEUES 8    // one queue instead of several, or several instead of one
#define NETDEV_TAP_OTHER_LENGTH 16   // a virtio-net header of another length
#define NETDEV_TAP_DETACHED 32       // the queue is detached, which may have been asked for

// Reads back what netdev_tap_open and netdev_tap_set_header_length asked for: the bits above, or -errno.
int netdev_tap_differences(int descriptor, bool multi_queue, int header_length);
// The same of a TUN interface.
int netdev_tun_differences(int descriptor, bool multi_queue, int header_length);

// Length of the virtio-net header in front of each frame. Returns 0 or -errno.
int netdev_tap_set_header_length(int descriptor, int length);

// Offloads accepted from the kernel (TUN_F_ bits). Returns 0 or -errno.
int netdev_tap_set_offload(int descriptor, unsigned int bits);

// Attaches or detaches a queue of a multi-queue interface. Returns 0 or -errno.
int netdev_tap_set_queue(int descriptor, bool attached);

// The most addresses of netdev_tap_set_filter.
#define NETDEV_TAP_FILTER_ADDRESSES 256

// Which frames the kernel hands to whoever reads a TAP interface, all of its queues: those to `count` addresses of six bytes each, one
// behind the other, and to all groups if asked. No address at all: everything. The kernel compares eight; of those behind them it lets
// pass what may be a group's, and a station's address behind them lets everything pass. Returns 0 or -errno.
int netdev_tap_set_filter(int descriptor, bool all_groups, const unsigned char *addresses, int count);

// Reads one frame behind its net header into `pieces`, without waiting. Returns its length or -errno.
ssize_t netdev_tap_read(int descriptor, const struct iovec *pieces, int count);

// Writes one frame behind its net header, without waiting. Returns 0 or -errno.
int netdev_tap_write(int descriptor, const struct iovec *pieces, int count);

#endif
