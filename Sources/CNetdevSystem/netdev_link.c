#include "netdev_link.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "netdev_descriptor.h"
#include "netdev_fault.h"
#include "netdev_loop.h"

// Runs one interface ioctl by name on a short-lived socket.
static int interface_ioctl(struct ifreq *request, unsigned long operation) {
  int descriptor = netdev_descriptor_above_stdio(NETDEV_CALL(socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (descriptor < 0) return descriptor;
  int result = NETDEV_CALL(ioctl, descriptor, operation, request) < 0 ? -errno : 0;
  netdev_close(descriptor);
  return result;
}

int netdev_interface_set_up(const char *name, bool up) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  if (strlen(name) >= IFNAMSIZ) return -ENAMETOOLONG;
  strcpy(request.ifr_name, name);
  int result = interface_ioctl(&request, SIOCGIFFLAGS);
  if (result < 0) return result;
  if (up)
    request.ifr_flags |= IFF_UP;
  else
    request.ifr_flags &= (short)~IFF_UP;
  return interface_ioctl(&request, SIOCSIFFLAGS);
}

// MARK: - Links, by netlink

int netdev_link_watch(void) {
  int descriptor = NETDEV_CALL(socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
  descriptor = netdev_descriptor_above_stdio(descriptor);
  if (descriptor < 0) return descriptor;
  struct sockaddr_nl name = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
  if (NETDEV_CALL(bind, descriptor, (struct sockaddr *)&name, sizeof name) < 0) {
    int error = errno;
    netdev_close(descriptor);
    return -error;
  }
  return descriptor;
}

struct elsewhere {
  int namespace;
  int result;
};

static void *watch_elsewhere(void *argument) {
  struct elsewhere *elsewhere = argument;
  elsewhere->result =
      NETDEV_CALL(setns, elsewhere->namespace, CLONE_NEWNET) < 0 ? -errno : netdev_link_watch();
  return NULL;
}

int netdev_link_watch_beside(int tap) {
  int namespace = NETDEV_CALL(ioctl, tap, TUNGETDEVNETNS, 0);
  namespace = netdev_descriptor_above_stdio(namespace);
  if (namespace < 0) return namespace;
  // A thread that ends there: the caller's own namespace need not be found again.
  struct elsewhere elsewhere = {.namespace = namespace};
  sigset_t before = netdev_block_signals();
  pthread_t thread;
  int error = NETDEV_CALL_NUMBER(pthread_create, &thread, NULL, watch_elsewhere, &elsewhere);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (error == 0)
    pthread_join(thread, NULL);
  else
    elsewhere.result = -error;
  netdev_close(namespace);
  return elsewhere.result;
}

int netdev_link_is_beside(int watch, int tap) {
  int theirs = netdev_descriptor_above_stdio(NETDEV_CALL(ioctl, tap, TUNGETDEVNETNS, 0));
  if (theirs < 0) return theirs;
  int own = netdev_descriptor_above_stdio(NETDEV_CALL(ioctl, watch, SIOCGSKNS, 0));
  int result = own < 0 ? own : 0;
  struct stat there, here;
  if (result == 0 && (NETDEV_CALL(fstat, theirs, &there) < 0 || NETDEV_CALL(fstat, own, &here) < 0)) result = -errno;
  if (result == 0) result = there.st_dev == here.st_dev && there.st_ino == here.st_ino;
  if (own >= 0) netdev_close(own);
  netdev_close(theirs);
  return result;
}

// The value of an attribute among `length` bytes of them, or NULL.
static const struct rtattr *find(const struct rtattr *attribute, int length, unsigned short kind) {
  for (; RTA_OK(attribute, length); attribute = RTA_NEXT(attribute, length))
    if ((attribute->rta_type & NLA_TYPE_MASK) == kind) return attribute;
  return NULL;
}

static bool read_number(const struct rtattr *attribute, uint32_t *number) {
  if (!attribute || RTA_PAYLOAD(attribute) < sizeof *number) return false;
  memcpy(number, RTA_DATA(attribute), sizeof *number);
  return true;
}

static int parse_link(const struct nlmsghdr *message, struct netdev_link *link) {
  if (message->nlmsg_len < NLMSG_LENGTH(sizeof(struct ifinfomsg))) return -EPROTO;
  const struct ifinfomsg *info = NLMSG_DATA(message);
  const struct rtattr *attributes = IFLA_RTA(info);
  int length = (int)(message->nlmsg_len - NLMSG_LENGTH(sizeof *info));
  uint32_t number = 0, disabled = 0;
  link->index = info->ifi_index;
  link->is_up = (info->ifi_flags & IFF_UP) != 0;
  link->is_running = (info->ifi_flags & IFF_RUNNING) != 0;
  const struct rtattr *name = find(attributes, length, IFLA_IFNAME);
  size_t room_for_name = sizeof link->name - 1, name_length = name ? RTA_PAYLOAD(name) : 0;
  memset(link->name, 0, sizeof link->name);
  if (name) memcpy(link->name, RTA_DATA(name), name_length < room_for_name ? name_length : room_for_name);
  link->mtu = read_number(find(attributes, length, IFLA_MTU), &number) ? (int)number : -1;
  link->queues = -1;
  const struct rtattr *kind = find(attributes, length, IFLA_LINKINFO);
  const struct rtattr *data = kind ? find(RTA_DATA(kind), (int)RTA_PAYLOAD(kind), IFLA_INFO_DATA) : NULL;
  if (!data) return 0;
  const struct rtattr *tun = RTA_DATA(data);
  int room = (int)RTA_PAYLOAD(data);
  // An interface with one queue has a number only while that is open.
  if (read_number(find(tun, room, IFLA_TUN_NUM_QUEUES), &number)) {
    (void)read_number(find(tun, room, IFLA_TUN_NUM_DISABLED_QUEUES), &disabled);
    link->queues = (int)(number + disabled);
  }
  return 0;
}

struct link_request {
  struct nlmsghdr header;
  struct ifinfomsg info;
  struct rtattr attribute;
  char name[RTA_ALIGN(IFNAMSIZ)];
};

// Sends a request of `length` bytes, completed here, and waits for the answer: in `send`, for as long as others change links.
static int ask(int watch, struct link_request *request, size_t length, struct netdev_link *link) {
  union {
    struct nlmsghdr header;
    char bytes[16384];
  } room;
  // What was told before is in the answer; a bound, as others may change links without an end.
  for (int index = 0; index < 1024; index++) {
    if (NETDEV_CALL(recv, watch, room.bytes, sizeof room.bytes, MSG_DONTWAIT) >= 0) continue;
    // ENOBUFS: more was told than there was room for.
    if (errno != EINTR && errno != ENOBUFS) break;
  }
  struct sockaddr_nl own;
  socklen_t own_length = sizeof own;
  if (NETDEV_CALL(getsockname, watch, (struct sockaddr *)&own, &own_length) < 0) return -errno;
  request->header.nlmsg_len = (uint32_t)length;
  request->header.nlmsg_type = RTM_GETLINK;
  request->header.nlmsg_flags = NLM_F_REQUEST;
  request->header.nlmsg_seq = 1;
  request->info.ifi_family = AF_UNSPEC;
  if (NETDEV_CALL(send, watch, request, length, MSG_DONTWAIT) < 0) return -errno;
  // The kernel has answered before `send` returns; its answer lies behind what it told meanwhile.
  for (int index = 0; index < 1024; index++) {
    ssize_t received = NETDEV_CALL(recv, watch, room.bytes, sizeof room.bytes, MSG_DONTWAIT);
    if (received < 0) {
      if (errno == EINTR || errno == ENOBUFS) continue;
      return -errno;
    }
    int rest = (int)received;
    for (struct nlmsghdr *message = &room.header; NLMSG_OK(message, rest); message = NLMSG_NEXT(message, rest)) {
      // What others asked for is told with their numbers.
      if (message->nlmsg_seq != 1 || message->nlmsg_pid != own.nl_pid) continue;
      if (message->nlmsg_type == RTM_NEWLINK) return parse_link(message, link);
      if (message->nlmsg_type != NLMSG_ERROR) continue;
      const struct nlmsgerr *error = NLMSG_DATA(message);
      return message->nlmsg_len < NLMSG_LENGTH(sizeof *error) || error->error >= 0 ? -EPROTO : error->error;
    }
  }
  return -EAGAIN;
}

int netdev_link_look(int watch, const char *name, struct netdev_link *link) {
  struct link_request request;
  size_t length = strlen(name) + 1;
  if (length > IFNAMSIZ) return -ENAMETOOLONG;
  memset(&request, 0, sizeof request);
  request.attribute.rta_type = IFLA_IFNAME;
  request.attribute.rta_len = (unsigned short)RTA_LENGTH(length);
  memcpy(request.name, name, length);
  return ask(watch, &request, NLMSG_LENGTH(sizeof request.info) + RTA_LENGTH(length), link);
}

int netdev_link_look_again(int watch, int index, struct netdev_link *link) {
  struct link_request request;
  memset(&request, 0, sizeof request);
  request.info.ifi_index = index;
  return ask(watch, &request, NLMSG_LENGTH(sizeof request.info), link);
}
