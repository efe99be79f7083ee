#include "CTestSupport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <netdb.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
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

int test_send_frame(
    const char *interface, const uint8_t *bytes, size_t length, struct test_offload offload, int times) {
  int descriptor = test_packet_socket(interface);
  if (descriptor < 0) return descriptor;
  int one = 1;
  struct virtio_net_hdr header = {.flags = offload.start > 0 ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0,
                                  .gso_type = offload.piece > 0 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_NONE,
                                  .hdr_len = (uint16_t)(offload.start + (offload.piece > 0 ? 20 : 0)),
                                  .gso_size = offload.piece,
                                  .csum_start = offload.start,
                                  .csum_offset = offload.offset};
  struct iovec pieces[2] = {{&header, sizeof header}, {(void *)bytes, length}};
  int result = setsockopt(descriptor, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one) < 0 ? -errno : 0;
  for (int count = 0; result == 0 && count < times; count++)
    if (writev(descriptor, pieces, 2) < 0) result = -errno;
  close(descriptor);
  return result;
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

int test_udp_client_between(const char *own, const char *address, uint16_t port, int milliseconds) {
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICHOST};
  struct addrinfo *here = NULL, *there = NULL;
  char service[8];
  snprintf(service, sizeof service, "%u", port);
  if (getaddrinfo(own, "0", &hints, &here) != 0) return -EINVAL;
  if (getaddrinfo(address, service, &hints, &there) != 0) {
    freeaddrinfo(here);
    return -EINVAL;
  }
  struct timeval patience = {.tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000};
  int descriptor = socket(here->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  int result = descriptor < 0 || bind(descriptor, here->ai_addr, here->ai_addrlen) < 0 ||
                       connect(descriptor, there->ai_addr, there->ai_addrlen) < 0 ||
                       setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0
                   ? -errno
                   : descriptor;
  if (result < 0 && descriptor >= 0) close(descriptor);
  freeaddrinfo(here);
  freeaddrinfo(there);
  return result;
}

int test_open_tap_queue(const char *name, int is_tun, int with_headers) {
  int descriptor = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (descriptor < 0) return -errno;
  struct ifreq request;
  memset(&request, 0, sizeof request);
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = (short)((is_tun ? IFF_TUN : IFF_TAP) | IFF_NO_PI | IFF_MULTI_QUEUE | (with_headers ? IFF_VNET_HDR : 0));
  if (ioctl(descriptor, TUNSETIFF, &request) == 0) return descriptor;
  int error = errno;
  close(descriptor);
  return -error;
}

int test_set_header_length(int descriptor, int length) {
  return ioctl(descriptor, TUNSETVNETHDRSZ, &length) < 0 ? -errno : 0;
}

int test_shell_command(const char *command) {
  int status = system(command);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
