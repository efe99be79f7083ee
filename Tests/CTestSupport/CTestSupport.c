#include "CTestSupport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int interface_request(struct ifreq *request, const char *name, unsigned long operation) {
  int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -errno;
  strncpy(request->ifr_name, name, IFNAMSIZ - 1);
  int result = ioctl(descriptor, operation, request) < 0 ? -errno : 0;
  close(descriptor);
  return result;
}

int test_leave_network(int descriptor) {
  int result = setns(descriptor, CLONE_NEWNET) < 0 ? -errno : 0;
  close(descriptor);
  return result;
}

int test_enter_new_network(void) {
  int before = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (before < 0) return -errno;
  if (unshare(CLONE_NEWNET) < 0) {
    int error = errno;
    close(before);
    return -error;
  }
  struct ifreq request;
  memset(&request, 0, sizeof request);
  request.ifr_flags = IFF_UP;
  int result = interface_request(&request, "lo", SIOCSIFFLAGS);
  if (result == 0) return before;
  test_leave_network(before);
  return result;
}

int test_packet_socket(const char *interface) {
  int descriptor = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL));
  if (descriptor < 0) return -errno;
  struct ifreq request;
  memset(&request, 0, sizeof request);
  int result = interface_request(&request, interface, SIOCGIFINDEX);
  if (result == 0) {
    struct sockaddr_ll name = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = request.ifr_ifindex};
    if (bind(descriptor, (struct sockaddr *)&name, sizeof name) < 0) result = -errno;
  }
  if (result < 0) {
    close(descriptor);
    return result;
  }
  return descriptor;
}

int test_make_persistent_tap(const char *name, int multi_queue) {
  int descriptor = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (descriptor < 0) return -errno;
  struct ifreq request;
  memset(&request, 0, sizeof request);
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (multi_queue ? IFF_MULTI_QUEUE : 0));
  int result = 0;
  if (ioctl(descriptor, TUNSETIFF, &request) < 0 || ioctl(descriptor, TUNSETPERSIST, 1UL) < 0) result = -errno;
  close(descriptor);
  return result;
}

int test_set_mtu(const char *interface, int mtu) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  request.ifr_mtu = mtu;
  return interface_request(&request, interface, SIOCSIFMTU);
}

int test_interface_exists(const char *interface) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  return interface_request(&request, interface, SIOCGIFINDEX) == 0;
}

long test_context_switches(void) {
  struct rusage usage;
  if (getrusage(RUSAGE_THREAD, &usage) < 0) return 0;
  return usage.ru_nvcsw + usage.ru_nivcsw;
}

int test_wait_readable(int descriptor, int milliseconds) {
  struct pollfd entry = {.fd = descriptor, .events = POLLIN};
  return poll(&entry, 1, milliseconds) == 1;
}

int test_udp_client(uint16_t port, int milliseconds) {
  int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -errno;
  struct sockaddr_in name = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
  struct timeval limit = {.tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000};
  if (connect(descriptor, (struct sockaddr *)&name, sizeof name) < 0 ||
      setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0) {
    int error = errno;
    close(descriptor);
    return -error;
  }
  return descriptor;
}

int test_thread_sanitizer(void) {
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
  return 1;
#endif
#endif
  return 0;
}
