#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "CFaultSupport.h"

static bool interface_ioctl(struct ifreq *request, const char *interface, unsigned long operation) {
  int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return false;
  snprintf(request->ifr_name, sizeof request->ifr_name, "%s", interface);
  bool done = ioctl(descriptor, operation, request) == 0;
  close(descriptor);
  return done;
}

bool fault_set_up(const char *interface, bool up) {
  struct ifreq request = {.ifr_flags = 0};
  if (!interface_ioctl(&request, interface, SIOCGIFFLAGS)) return false;
  request.ifr_flags = (short)(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
  return interface_ioctl(&request, interface, SIOCSIFFLAGS);
}

bool fault_set_address(const char *interface, const char *address) {
  struct ifreq request = {.ifr_flags = 0};
  struct sockaddr_in *name = (struct sockaddr_in *)&request.ifr_addr;
  name->sin_family = AF_INET;
  if (inet_pton(AF_INET, address, &name->sin_addr) != 1) return false;
  if (!interface_ioctl(&request, interface, SIOCSIFADDR)) return false;
  name->sin_addr.s_addr = htonl(0xffffff00);
  return interface_ioctl(&request, interface, SIOCSIFNETMASK);
}

bool fault_delete_link(const char *interface) {
  struct {
    struct nlmsghdr header;
    struct ifinfomsg link;
    char attributes[64];
  } message = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
                          .nlmsg_type = RTM_DELLINK,
                          .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK}};
  struct rtattr *name = (struct rtattr *)message.attributes;
  name->rta_type = IFLA_IFNAME;
  name->rta_len = (unsigned short)RTA_LENGTH(strlen(interface) + 1);
  strcpy(RTA_DATA(name), interface);
  message.header.nlmsg_len += RTA_ALIGN(name->rta_len);
  int descriptor = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (descriptor < 0) return false;
  char answer[512];
  bool done = send(descriptor, &message, message.header.nlmsg_len, 0) > 0 && recv(descriptor, answer, sizeof answer, 0) > 0 &&
              ((struct nlmsgerr *)NLMSG_DATA((struct nlmsghdr *)answer))->error == 0;
  close(descriptor);
  return done;
}

struct link_request {
  struct nlmsghdr header;
  struct ifinfomsg link;
  char attributes[256];
};

static struct rtattr *add(struct link_request *request, unsigned short kind, const void *value, size_t length) {
  struct rtattr *attribute = (struct rtattr *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));
  attribute->rta_type = kind;
  attribute->rta_len = (unsigned short)RTA_LENGTH(length);
  if (length > 0) memcpy(RTA_DATA(attribute), value, length);
  request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + RTA_ALIGN(attribute->rta_len);
  return attribute;
}

static void close_nest(const struct link_request *request, struct rtattr *nest) {
  nest->rta_len = (unsigned short)((const char *)request + request->header.nlmsg_len - (char *)nest);
}

bool fault_make_wire(const char *interface, const char *other) {
  struct link_request request = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
                                            .nlmsg_type = RTM_NEWLINK,
                                            .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL}};
  struct ifinfomsg peer = {.ifi_family = AF_UNSPEC};
  add(&request, IFLA_IFNAME, interface, strlen(interface) + 1);
  struct rtattr *information = add(&request, IFLA_LINKINFO, NULL, 0);
  add(&request, IFLA_INFO_KIND, "veth", sizeof "veth");
  struct rtattr *data = add(&request, IFLA_INFO_DATA, NULL, 0);
  struct rtattr *end = add(&request, VETH_INFO_PEER, &peer, sizeof peer);
  add(&request, IFLA_IFNAME, other, strlen(other) + 1);
  close_nest(&request, end);
  close_nest(&request, data);
  close_nest(&request, information);
  int descriptor = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (descriptor < 0) return false;
  char answer[512];
  bool done = send(descriptor, &request, request.header.nlmsg_len, 0) > 0 && recv(descriptor, answer, sizeof answer, 0) > 0 &&
              ((struct nlmsgerr *)NLMSG_DATA((struct nlmsghdr *)answer))->error == 0;
  close(descriptor);
  return done;
}

bool fault_enter_network(void) {
  if (unshare(CLONE_NEWNET) < 0) return false;
  // The kernel shall say nothing of its own accord.
  int quiet = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC);
  if (quiet >= 0) {
    if (write(quiet, "1", 1) != 1) fprintf(stderr, "IPv6 stays on\n");
    close(quiet);
  }
  return fault_set_up("lo", true);
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

int fault_echo(const char *address, uint16_t port, int wanted, int milliseconds) {
  struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(port)};
  if (inet_pton(AF_INET, address, &peer.sin_addr) != 1) return 0;
  int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor < 0) return 0;
  int answered = 0;
  uint32_t number = 0;
  for (int64_t end = now() + milliseconds; answered < wanted && now() < end;) {
    uint32_t sent[8] = {++number}, got[8];
    // Fails while the interface is down.
    (void)sendto(descriptor, sent, sizeof sent, 0, (struct sockaddr *)&peer, sizeof peer);
    struct pollfd entry = {.fd = descriptor, .events = POLLIN};
    bool is_answered = false;
    for (int64_t patience = now() + 50; !is_answered && now() < patience;) {
      if (poll(&entry, 1, 50) <= 0) continue;
      ssize_t length = recv(descriptor, got, sizeof got, 0);
      is_answered = length == sizeof got && got[0] == number;
      if (length < 0 && errno != EAGAIN) usleep(5000);
    }
    answered += is_answered;
  }
  close(descriptor);
  return answered;
}
