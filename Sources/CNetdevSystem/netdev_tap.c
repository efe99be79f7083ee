#include "netdev_tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "netdev_descriptor.h"
#include "netdev_fault.h"

static int set_name(struct ifreq *request, const char *name) {
  memset(request, 0, sizeof *request);
  if (strlen(name) >= IFNAMSIZ) return -ENAMETOOLONG;
  strcpy(request->ifr_name, name);
  return 0;
}

static int open_queue(const char *name, int kind, bool multi_queue, int *step) {
  struct ifreq request;
  *step = 1;
  int named = set_name(&request, name);
  if (named < 0) return named;
  *step = 0;
  int descriptor = NETDEV_CALL(open, "/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  descriptor = netdev_descriptor_above_stdio(descriptor);
  if (descriptor < 0) return descriptor;
  *step = 1;
  int flags = kind | IFF_NO_PI | IFF_VNET_HDR;
  if (multi_queue) flags |= IFF_MULTI_QUEUE;
  request.ifr_flags = (short)flags;
  if (NETDEV_CALL(ioctl, descriptor, TUNSETIFF, &request) < 0) {
    int error = errno;
    netdev_close(descriptor);
    return -error;
  }
  return descriptor;
}

int netdev_tap_open(const char *name, bool multi_queue, int *step) {
  return open_queue(name, IFF_TAP, multi_queue, step);
}

int netdev_tun_open(const char *name, bool multi_queue, int *step) {
  return open_queue(name, IFF_TUN, multi_queue, step);
}

int netdev_tap_name(int descriptor, char *name) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  if (NETDEV_CALL(ioctl, descriptor, TUNGETIFF, &request) < 0) return -errno;
  memcpy(name, request.ifr_name, IFNAMSIZ);
  name[IFNAMSIZ - 1] = 0;
  return 0;
}

static int find_differences(int descriptor, unsigned kind, bool multi_queue, int header_length) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  if (NETDEV_CALL(ioctl, descriptor, TUNGETIFF, &request) < 0) return -errno;
  unsigned flags = (unsigned short)request.ifr_flags;
  int differences = 0;
  if (!(flags & kind)) differences |= NETDEV_TAP_OTHER_KIND;
  if (!(flags & IFF_NO_PI)) differences |= NETDEV_TAP_PACKET_INFO;
  if (!(flags & IFF_VNET_HDR)) differences |= NETDEV_TAP_NO_HEADER;
  if (!(flags & IFF_MULTI_QUEUE) == multi_queue) differences |= NETDEV_TAP_OTHER_QUEUES;
  if (flags & IFF_DETACH_QUEUE) differences |= NETDEV_TAP_DETACHED;
  int length = 0;
  if (NETDEV_CALL(ioctl, descriptor, TUNGETVNETHDRSZ, &length) < 0) return -errno;
  if (length != header_length) differences |= NETDEV_TAP_OTHER_LENGTH;
  return differences;
}

int netdev_tap_differences(int descriptor, bool multi_queue, int header_length) {
  return find_differences(descriptor, IFF_TAP, multi_queue, header_length);
}

int netdev_tun_differences(int descriptor, bool multi_queue, int header_length) {
  return find_differences(descriptor, IFF_TUN, multi_queue, header_length);
}

int netdev_tap_set_header_length(int descriptor, int length) {
  return NETDEV_CALL(ioctl, descriptor, TUNSETVNETHDRSZ, &length) < 0 ? -errno : 0;
}

int netdev_tap_set_offload(int descriptor, unsigned int bits) {
  return NETDEV_CALL(ioctl, descriptor, TUNSETOFFLOAD, (unsigned long)bits) < 0 ? -errno : 0;
}

int netdev_tap_set_queue(int descriptor, bool attached) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  request.ifr_flags = attached ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
  return NETDEV_CALL(ioctl, descriptor, TUNSETQUEUE, &request) < 0 ? -errno : 0;
}

int netdev_tap_set_filter(int descriptor, bool all_groups, const unsigned char *addresses, int count) {
  if (count < 0 || count > NETDEV_TAP_FILTER_ADDRESSES) return -EINVAL;
  // Room for the addresses behind the filter, aligned as it is.
  uint16_t room[(sizeof(struct tun_filter) + 6 * NETDEV_TAP_FILTER_ADDRESSES) / 2];
  struct tun_filter filter = {.flags = all_groups ? TUN_FLT_ALLMULTI : 0, .count = (uint16_t)count};
  memcpy(room, &filter, sizeof filter);
  memcpy((unsigned char *)room + sizeof filter, addresses, 6 * (size_t)count);
  return NETDEV_CALL(ioctl, descriptor, TUNSETTXFILTER, room) < 0 ? -errno : 0;
}

ssize_t netdev_tap_read(int descriptor, const struct iovec *pieces, int count) {
  ssize_t length;
  do {
    length = NETDEV_CALL(readv, descriptor, pieces, count);
  } while (length < 0 && errno == EINTR);
  return length < 0 ? -errno : length;
}

int netdev_tap_write(int descriptor, const struct iovec *pieces, int count) {
  ssize_t length;
  do {
    length = NETDEV_CALL(writev, descriptor, pieces, count);
  } while (length < 0 && errno == EINTR);
  return length < 0 ? -errno : 0;
}
