#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "simulated_kernel.h"
#include "simulated_objects.h"

static __thread struct interface *interfaces;
static __thread int indices;

static struct interface *find(const char *name) {
  struct interface *interface = interfaces;
  while (interface && strncmp(interface->name, name, IFNAMSIZ)) interface = interface->next;
  return interface;
}

static struct interface *make(const char *name, bool multi_queue, bool is_tun, int mtu) {
  struct interface *interface = calloc(1, sizeof *interface);
  if (!interface) return NULL;
  *interface = (struct interface){
      .next = interfaces, .index = 100 + indices++, .mtu = mtu, .header = 10, .room = 500, .is_multi_queue = multi_queue, .is_tun = is_tun};
  strncpy(interface->name, name, IFNAMSIZ - 1);
  interfaces = interface;
  return interface;
}

// The `number`-th attached queue of an interface, in the order in which they were opened; or how many there are.
static struct object *queue_of(const struct interface *interface, int number, int *attached, int *detached) {
  struct object *found = NULL;
  *attached = *detached = 0;
  // The newest comes first.
  for (struct object *object = NULL; (object = simulated_next(object));) {
    if (object->kind != TAP_QUEUE || object->interface != interface) continue;
    if (object->is_detached) ++*detached;
    else ++*attached;
  }
  int place = *attached;
  for (struct object *object = NULL; (object = simulated_next(object));) {
    if (object->kind != TAP_QUEUE || object->interface != interface || object->is_detached) continue;
    if (--place == number) found = object;
  }
  return found;
}

// --- Telling of links

static struct rtattr *append(struct nlmsghdr *message, unsigned short kind, const void *value, size_t length) {
  struct rtattr *attribute = (struct rtattr *)((char *)message + NLMSG_ALIGN(message->nlmsg_len));
  attribute->rta_type = kind;
  attribute->rta_len = (unsigned short)RTA_LENGTH(length);
  if (length) memcpy(RTA_DATA(attribute), value, length);
  message->nlmsg_len = NLMSG_ALIGN(message->nlmsg_len) + RTA_ALIGN(attribute->rta_len);
  return attribute;
}

static void describe(const struct interface *interface, struct object *socket, uint32_t sequence, uint32_t port) {
  union {
    struct nlmsghdr header;
    char bytes[512];
  } room;
  memset(&room, 0, sizeof room);
  struct ifinfomsg *info = NLMSG_DATA(&room.header);
  room.header = (struct nlmsghdr){
      .nlmsg_len = NLMSG_LENGTH(sizeof *info), .nlmsg_type = RTM_NEWLINK, .nlmsg_seq = sequence, .nlmsg_pid = port};
  *info = (struct ifinfomsg){.ifi_index = interface->index};
  int attached, detached;
  (void)queue_of(interface, 0, &attached, &detached);
  if (interface->is_up) info->ifi_flags |= IFF_UP;
  if (interface->is_up && attached) info->ifi_flags |= IFF_RUNNING;
  uint32_t mtu = (uint32_t)interface->mtu, queues = (uint32_t)attached, disabled = (uint32_t)detached;
  append(&room.header, IFLA_IFNAME, interface->name, strlen(interface->name) + 1);
  append(&room.header, IFLA_MTU, &mtu, sizeof mtu);
  struct rtattr *outer = append(&room.header, IFLA_LINKINFO, NULL, 0);
  struct rtattr *inner = append(&room.header, IFLA_INFO_DATA, NULL, 0);
  if (interface->is_multi_queue) {
    append(&room.header, IFLA_TUN_NUM_QUEUES, &queues, sizeof queues);
    append(&room.header, IFLA_TUN_NUM_DISABLED_QUEUES, &disabled, sizeof disabled);
  }
  char *end = (char *)&room.header + room.header.nlmsg_len;
  inner->rta_len = (unsigned short)(end - (char *)inner);
  outer->rta_len = (unsigned short)(end - (char *)outer);
  struct iovec piece = {.iov_base = &room, .iov_len = room.header.nlmsg_len};
  (void)simulated_put(&socket->arrived, &piece, 1, 0, (struct sockaddr_in){0});
}

static void tell(const struct interface *interface) {
  for (struct object *object = NULL; (object = simulated_next(object));)
    if (object->kind == LINK_SOCKET) describe(interface, object, 0, 0);
}

ssize_t simulated_link_ask(struct object *object, const void *request, size_t length) {
  const struct nlmsghdr *header = request;
  const struct ifinfomsg *info = NLMSG_DATA(header);
  if (length < NLMSG_LENGTH(sizeof *info) || header->nlmsg_type != RTM_GETLINK) return -EINVAL;
  struct interface *interface = interfaces;
  if (info->ifi_index) {
    while (interface && interface->index != info->ifi_index) interface = interface->next;
  } else {
    const struct rtattr *name = IFLA_RTA(info);
    interface = name->rta_type == IFLA_IFNAME ? find(RTA_DATA(name)) : NULL;
  }
  if (interface) {
    describe(interface, object, header->nlmsg_seq, (uint32_t)object->descriptor);
  } else {
    struct {
      struct nlmsghdr header;
      struct nlmsgerr error;
    } answer = {.header = {.nlmsg_len = sizeof answer,
                           .nlmsg_type = NLMSG_ERROR,
                           .nlmsg_seq = header->nlmsg_seq,
                           .nlmsg_pid = (uint32_t)object->descriptor},
                .error = {.error = -ENODEV, .msg = *header}};
    struct iovec piece = {.iov_base = &answer, .iov_len = sizeof answer};
    (void)simulated_put(&object->arrived, &piece, 1, 0, (struct sockaddr_in){0});
  }
  return (ssize_t)length;
}

// --- What the library asks for

int simulated_tap_open(void) {
  int descriptor;
  simulated_make(TAP_QUEUE, &descriptor);
  return descriptor;
}

static int become_queue(struct object *object, struct ifreq *request) {
  bool multi_queue = (request->ifr_flags & IFF_MULTI_QUEUE) != 0, is_tun = (request->ifr_flags & IFF_TUN) != 0;
  if (object->interface) return -EBUSY;
  if (!request->ifr_name[0]) snprintf(request->ifr_name, IFNAMSIZ, "tap%d", indices);
  struct interface *interface = find(request->ifr_name);
  if (interface && (interface->is_multi_queue != multi_queue || interface->is_tun != is_tun)) return -EINVAL;
  int attached, detached;
  if (interface) {
    (void)queue_of(interface, 0, &attached, &detached);
    if (!multi_queue && attached) return -EBUSY;
  } else {
    interface = make(request->ifr_name, multi_queue, is_tun, 1500);
    if (!interface) return -ENOMEM;
    interface->is_temporary = true;
  }
  object->interface = interface;
  tell(interface);
  return 0;
}

static int set_attached(struct object *object, short flags) {
  struct interface *interface = object->interface;
  bool detach = (flags & IFF_DETACH_QUEUE) != 0;
  if (!interface->is_multi_queue || object->is_detached == detach) return -EINVAL;
  object->is_detached = detach;
  if (detach) simulated_clear(&object->arrived);
  tell(interface);
  return 0;
}

int simulated_tap_ioctl(struct object *object, unsigned long number, void *argument) {
  struct ifreq *request = argument;
  if (number == TUNSETIFF) return object->is_gone ? -EBADFD : become_queue(object, request);
  struct interface *interface = object->interface;
  if (!interface) return -EBADFD;
  switch (number) {
    case TUNGETIFF:
      memset(request, 0, sizeof *request);
      memcpy(request->ifr_name, interface->name, IFNAMSIZ);
      request->ifr_flags = (short)((interface->is_tun ? IFF_TUN : IFF_TAP) | IFF_NO_PI | IFF_VNET_HDR |
                                   (interface->is_multi_queue ? IFF_MULTI_QUEUE : 0) |
                                   (object->is_detached ? IFF_DETACH_QUEUE : 0));
      return 0;
    case TUNGETVNETHDRSZ: *(int *)argument = interface->header; return 0;
    case TUNSETVNETHDRSZ: interface->header = *(int *)argument; return 0;
    case TUNSETOFFLOAD: return 0;
    case TUNSETQUEUE: return set_attached(object, request->ifr_flags);
    // Nobody goes to another namespace from a world.
    case TUNGETDEVNETNS: return -EPERM;
    default: return -EINVAL;
  }
}

int simulated_link_ioctl(unsigned long number, void *argument) {
  struct ifreq *request = argument;
  struct interface *interface = find(request->ifr_name);
  if (!interface) return -ENODEV;
  if (number == SIOCGIFFLAGS) {
    request->ifr_flags = interface->is_up ? IFF_UP : 0;
    return 0;
  }
  if (number != SIOCSIFFLAGS) return -EINVAL;
  interface->is_up = (request->ifr_flags & IFF_UP) != 0;
  tell(interface);
  return 0;
}

ssize_t simulated_tap_read(struct object *object, const struct iovec *pieces, int count) {
  if (!object->interface) return -EBADFD;
  struct message *message = simulated_pop(&object->arrived);
  if (!message) return -EAGAIN;
  ssize_t length = (ssize_t)simulated_scatter(message, 0, pieces, count);
  free(message);
  return length;
}

static bool is_of_internet(const struct iovec *pieces, int count, size_t skip) {
  for (int index = 0; index < count; skip -= pieces[index++].iov_len) {
    if (skip >= pieces[index].iov_len) continue;
    int version = ((const unsigned char *)pieces[index].iov_base)[skip] >> 4;
    return version == 4 || version == 6;
  }
  return false;
}

ssize_t simulated_tap_write(struct object *object, const struct iovec *pieces, int count) {
  struct interface *interface = object->interface;
  if (!interface) return -EBADFD;
  if (!interface->is_up) return -EIO;
  if (interface->sent.count >= interface->room) return -EAGAIN;
  size_t length = 0;
  for (int index = 0; index < count; index++) length += pieces[index].iov_len;
  // An Ethernet header, at least, behind the one in front; or a packet of IPv4 or IPv6.
  if (length < (size_t)interface->header + (interface->is_tun ? 1 : 14)) return -EINVAL;
  if (interface->is_tun && !is_of_internet(pieces, count, (size_t)interface->header)) return -EINVAL;
  if (!simulated_put(&interface->sent, pieces, count, (size_t)interface->header, (struct sockaddr_in){0})) return -ENOMEM;
  simulated_news();
  return (ssize_t)length;
}

bool simulated_tap_is_ready(const struct object *object, bool for_writing) {
  // An error, which is both.
  if (!object->interface) return true;
  if (!for_writing) return object->arrived.first != NULL;
  return object->interface->is_up && object->interface->sent.count < object->interface->room;
}

static void forget(struct interface *interface) {
  struct interface **place = &interfaces;
  while (*place && *place != interface) place = &(*place)->next;
  if (*place) *place = interface->next;
  for (struct object *object = NULL; (object = simulated_next(object));) {
    if (object->kind != TAP_QUEUE || object->interface != interface) continue;
    object->interface = NULL;
    object->is_gone = true;
    simulated_clear(&object->arrived);
  }
  tell(interface);
  simulated_clear(&interface->sent);
  free(interface);
}

// The object is in no list any more.
void simulated_tap_close(struct object *object) {
  struct interface *interface = object->interface;
  if (!interface) return;
  object->interface = NULL;
  int attached, detached;
  (void)queue_of(interface, 0, &attached, &detached);
  if (interface->is_temporary && attached + detached == 0) return forget(interface);
  tell(interface);
}

void simulated_taps_end(void) {
  while (interfaces) forget(interfaces);
  indices = 0;
}

// --- The other side

bool simulated_tap_make(const char *name, bool multi_queue, bool is_tun, int mtu) {
  if (!name[0] || strlen(name) >= IFNAMSIZ || find(name)) return false;
  struct interface *interface = make(name, multi_queue, is_tun, mtu);
  if (interface) interface->is_up = true;
  return interface != NULL;
}

int simulated_tap_queues(const char *name) {
  struct interface *interface = find(name);
  int attached = 0, detached = 0;
  if (interface) (void)queue_of(interface, 0, &attached, &detached);
  return attached;
}

bool simulated_tap_send(const char *name, int number, const void *frame, size_t length) {
  struct interface *interface = find(name);
  int attached, detached;
  struct object *queue = interface ? queue_of(interface, number, &attached, &detached) : NULL;
  if (!queue || !interface->is_up || queue->arrived.count >= 500) return false;
  unsigned char header[64] = {0};
  struct iovec pieces[2] = {{.iov_base = header, .iov_len = (size_t)interface->header},
                            {.iov_base = (void *)frame, .iov_len = length}};
  return simulated_put(&queue->arrived, pieces, 2, 0, (struct sockaddr_in){0});
}

ssize_t simulated_tap_take(const char *name, void *frame, size_t room) {
  struct interface *interface = find(name);
  struct message *message = interface ? simulated_pop(&interface->sent) : NULL;
  if (!message) return -1;
  struct iovec piece = {.iov_base = frame, .iov_len = room};
  ssize_t length = (ssize_t)simulated_scatter(message, 0, &piece, 1);
  free(message);
  return length;
}

void simulated_tap_set_room(const char *name, int frames) {
  struct interface *interface = find(name);
  if (interface) interface->room = frames;
}

void simulated_tap_set_up(const char *name, bool up) {
  struct interface *interface = find(name);
  if (!interface || interface->is_up == up) return;
  interface->is_up = up;
  tell(interface);
}

void simulated_tap_set_mtu(const char *name, int mtu) {
  struct interface *interface = find(name);
  if (!interface || interface->mtu == mtu) return;
  interface->mtu = mtu;
  tell(interface);
}

void simulated_tap_delete(const char *name) {
  struct interface *interface = find(name);
  if (interface) forget(interface);
}
