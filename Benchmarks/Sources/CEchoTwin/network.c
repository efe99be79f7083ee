#include "echo_twin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "echo_wire.h"

int echo_open_tap(const char *interface) {
  int descriptor = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return -errno;
  struct ifreq request;
  memset(&request, 0, sizeof request);
  strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  int header = ECHO_HEADER;
  if (ioctl(descriptor, TUNSETIFF, &request) < 0 || ioctl(descriptor, TUNSETVNETHDRSZ, &header) < 0 ||
      ioctl(descriptor, TUNSETOFFLOAD, 0UL) < 0) {
    int error = errno;
    close(descriptor);
    return -error;
  }
  return descriptor;
}

static struct ifreq request_for(const char *interface) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
  return request;
}

static void set_address(struct sockaddr *address, uint32_t value) {
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(value)};
  memcpy(address, &name, sizeof name);
}

// Without IPv6 the kernel sends nothing of its own accord. A kernel without it is as good.
static void disable_ipv6(const char *interface) {
  char path[128];
  snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", interface);
  int descriptor = open(path, O_WRONLY | O_CLOEXEC);
  if (descriptor < 0) return;
  if (write(descriptor, "1", 1) < 0) perror(path);
  close(descriptor);
}

int echo_configure(const char *interface) {
  int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -errno;
  disable_ipv6(interface);
  struct ifreq address = request_for(interface), mask = request_for(interface), flags = request_for(interface);
  set_address(&address.ifr_addr, ECHO_INTERFACE_ADDRESS);
  set_address(&mask.ifr_netmask, 0xffffff00u);
  struct arpreq neighbour;
  memset(&neighbour, 0, sizeof neighbour);
  set_address(&neighbour.arp_pa, ECHO_DESCRIPTOR_ADDRESS);
  neighbour.arp_ha.sa_family = ARPHRD_ETHER;
  memcpy(neighbour.arp_ha.sa_data, echo_descriptor_mac, 6);
  neighbour.arp_flags = ATF_PERM | ATF_COM;
  strncpy(neighbour.arp_dev, interface, sizeof neighbour.arp_dev - 1);
  int result = 0;
  if (ioctl(descriptor, SIOCSIFADDR, &address) < 0 || ioctl(descriptor, SIOCSIFNETMASK, &mask) < 0 ||
      ioctl(descriptor, SIOCGIFFLAGS, &flags) < 0)
    result = -errno;
  flags.ifr_flags |= IFF_UP;
  if (result == 0 &&
      (ioctl(descriptor, SIOCSIFFLAGS, &flags) < 0 || ioctl(descriptor, SIOCSARP, &neighbour) < 0))
    result = -errno;
  close(descriptor);
  return result;
}
