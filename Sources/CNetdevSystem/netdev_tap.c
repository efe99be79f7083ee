#include "netdev_tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
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

int netdev_tap_open(const char *name, bool multi_queue, int *step) {
  struct ifreq request;
  *step = 1;
  int named = set_name(&request, name);
  if (named < 0) return named;
  *step = 0;
  int descriptor = NETDEV_CALL(open, "/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return -errno;
  *step = 1;
  int flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (multi_queue) flags |= IFF_MULTI_QUEUE;
  request.ifr_flags = (short)flags;
  if (NETDEV_CALL(ioctl, descriptor, TUNSETIFF, &request) < 0) {
    int error = errno;
    netdev_close(descriptor);
    return -error;
  }
  return descriptor;
}

int netdev_tap_name(int descriptor, char *name) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  if (NETDEV_CALL(ioctl, descriptor, TUNGETIFF, &request) < 0) return -errno;
  memcpy(name, request.ifr_name, IFNAMSIZ);
  name[IFNAMSIZ - 1] = 0;
  return 0;
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

// Runs one interface ioctl by name on a short-lived socket.
static int interface_ioctl(struct ifreq *request, unsigned long operation) {
  int descriptor = NETDEV_CALL(socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -errno;
  int result = NETDEV_CALL(ioctl, descriptor, operation, request) < 0 ? -errno : 0;
  netdev_close(descriptor);
  return result;
}

int netdev_interface_set_up(const char *name, bool up) {
  struct ifreq request;
  int result = set_name(&request, name);
  if (result == 0) result = interface_ioctl(&request, SIOCGIFFLAGS);
  if (result < 0) return result;
  if (up)
    request.ifr_flags |= IFF_UP;
  else
    request.ifr_flags &= (short)~IFF_UP;
  return interface_ioctl(&request, SIOCSIFFLAGS);
}

int netdev_interface_mtu(const char *name) {
  struct ifreq request;
  int result = set_name(&request, name);
  if (result == 0) result = interface_ioctl(&request, SIOCGIFMTU);
  return result < 0 ? result : request.ifr_mtu;
}
