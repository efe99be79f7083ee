#include "netdev_udp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "netdev_descriptor.h"
#include "netdev_fault.h"

// MARK: - Addresses

static bool is_ipv4(struct netdev_udp_address address) { return address.high == 0 && address.low >> 32 == 0xffff; }

static bool is_zero(struct netdev_udp_address address) { return (address.high | address.low) == 0; }

static bool is_link_local(struct netdev_udp_address address) { return address.high >> 54 == 0x3fa; }

static bool is_equal(struct netdev_udp_address one, struct netdev_udp_address other) {
  return one.high == other.high && one.low == other.low;
}

static struct netdev_udp_address of_ipv4(struct in_addr address) {
  return (struct netdev_udp_address){.low = UINT64_C(0xffff00000000) | ntohl(address.s_addr)};
}

static struct in_addr to_ipv4(struct netdev_udp_address address) {
  return (struct in_addr){.s_addr = htonl((uint32_t)address.low)};
}

static struct netdev_udp_address of_ipv6(const struct in6_addr *address) {
  struct netdev_udp_address result = {0};
  for (int index = 0; index < 8; index++) {
    result.high = result.high << 8 | address->s6_addr[index];
    result.low = result.low << 8 | address->s6_addr[8 + index];
  }
  return result;
}

static struct in6_addr to_ipv6(struct netdev_udp_address address) {
  struct in6_addr result;
  for (int index = 0; index < 8; index++) {
    result.s6_addr[index] = (uint8_t)(address.high >> (56 - 8 * index));
    result.s6_addr[8 + index] = (uint8_t)(address.low >> (56 - 8 * index));
  }
  return result;
}

union name {
  struct sockaddr any;
  struct sockaddr_in ipv4;
  struct sockaddr_in6 ipv6;
};

// Writes a socket's name; its length.
static socklen_t fill_name(union name *name, bool ipv6, struct netdev_udp_address address, uint16_t port, uint32_t link) {
  if (!ipv6) {
    name->ipv4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = to_ipv4(address), .sin_port = htons(port)};
    return sizeof name->ipv4;
  }
  name->ipv6 = (struct sockaddr_in6){.sin6_family = AF_INET6,
                                     .sin6_addr = to_ipv6(address),
                                     .sin6_port = htons(port),
                                     .sin6_scope_id = is_link_local(address) ? link : 0};
  return sizeof name->ipv6;
}

// MARK: - Opening

static int set_option(int descriptor, int level, int option, int value) {
  return NETDEV_CALL(setsockopt, descriptor, level, option, &value, sizeof value) < 0 ? -errno : 0;
}

// Binds, and reads back to what: the port, or -errno.
static int bind_name(const struct netdev_udp_socket *made, struct netdev_udp_address address, uint16_t port) {
  union name name;
  socklen_t length = fill_name(&name, made->is_ipv6, address, port, 0);
  if (NETDEV_CALL(bind, made->descriptor, &name.any, length) < 0) return NETDEV_PLANTED("ignored") ? port : -errno;
  memset(&name, 0, sizeof name);
  length = sizeof name;
  if (NETDEV_CALL(getsockname, made->descriptor, &name.any, &length) < 0) return -errno;
  struct netdev_udp_address own = made->is_ipv6 ? of_ipv6(&name.ipv6.sin6_addr) : of_ipv4(name.ipv4.sin_addr);
  int number = ntohs(made->is_ipv6 ? name.ipv6.sin6_port : name.ipv4.sin_port);
  if (!is_equal(own, address)) return -EADDRNOTAVAIL;
  return number == 0 || (port != 0 && number != port) ? -EADDRINUSE : number;
}

int netdev_udp_open(struct netdev_udp_address address, uint16_t port, int receive_bytes, struct netdev_udp_socket *made) {
  bool ipv6 = !is_ipv4(address);
  int descriptor = NETDEV_CALL(socket, ipv6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  descriptor = netdev_descriptor_above_stdio(descriptor);
  if (descriptor < 0) return descriptor;
  *made = (struct netdev_udp_socket){
      .descriptor = descriptor, .is_ipv6 = ipv6, .is_wildcard = is_zero(address) || (!ipv6 && (uint32_t)address.low == 0)};
  // Best effort: a smaller buffer drops earlier and nothing else.
  (void)set_option(descriptor, SOL_SOCKET, SO_RCVBUF, receive_bytes);
  int result = 0;
  if (ipv6) result = set_option(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, !made->is_wildcard);
  if (result == 0 && made->is_wildcard)
    result = ipv6 ? set_option(descriptor, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1) : set_option(descriptor, IPPROTO_IP, IP_PKTINFO, 1);
  if (result == 0) result = bind_name(made, address, port);
  if (result < 0) netdev_close(descriptor);
  return result;
}

// MARK: - Bursts

union control {
  struct cmsghdr header;
  char ipv4[CMSG_SPACE(sizeof(struct in_pktinfo))];
  char ipv6[CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

// The kernel's view of a burst, on the stack of one call.
struct burst {
  struct mmsghdr headers[NETDEV_UDP_BURST];
  struct iovec bytes[NETDEV_UDP_BURST];
  union name names[NETDEV_UDP_BURST];
  union control controls[NETDEV_UDP_BURST];
};

static void fill(struct burst *burst, const struct netdev_udp_message *message, int index) {
  burst->bytes[index] = (struct iovec){.iov_base = message->bytes, .iov_len = message->length};
  burst->headers[index] = (struct mmsghdr){
      .msg_hdr = {.msg_name = &burst->names[index], .msg_iov = &burst->bytes[index], .msg_iovlen = 1}};
}

static int bounded(int count) { return count > NETDEV_UDP_BURST ? NETDEV_UDP_BURST : count; }

// The address that a datagram was sent to, as far as one may answer from it.
static void read_own(struct msghdr *header, struct netdev_udp_message *message) {
  message->own = (struct netdev_udp_address){0};
  for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part; part = CMSG_NXTHDR(header, part)) {
    if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) {
      struct in_pktinfo info;
      memcpy(&info, CMSG_DATA(part), sizeof info);
      message->own = of_ipv4(info.ipi_spec_dst);
    } else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO) {
      struct in6_pktinfo info;
      memcpy(&info, CMSG_DATA(part), sizeof info);
      struct netdev_udp_address own = of_ipv6(&info.ipi6_addr);
      // Nobody answers from a group.
      bool is_group = is_ipv4(own) ? (uint32_t)own.low >= 0xe0000000 : own.high >> 56 == 0xff;
      if (!is_group) message->own = own;
      if (is_link_local(own) || is_link_local(message->other)) message->interface = info.ipi6_ifindex;
    }
  }
}

int netdev_udp_receive(struct netdev_udp_socket socket, struct netdev_udp_message *messages, int count) {
  struct burst burst;
  count = bounded(count);
  for (int index = 0; index < count; index++) {
    fill(&burst, &messages[index], index);
    struct msghdr *header = &burst.headers[index].msg_hdr;
    header->msg_namelen = sizeof burst.names[index];
    if (!socket.is_wildcard) continue;
    header->msg_control = &burst.controls[index];
    header->msg_controllen = sizeof burst.controls[index];
  }
  int received;
  do {
    received = NETDEV_CALL(recvmmsg, socket.descriptor, burst.headers, (unsigned int)count, MSG_DONTWAIT, NULL);
  } while (received < 0 && errno == EINTR);
  if (received < 0) return -errno;
  for (int index = 0; index < received; index++) {
    struct netdev_udp_message *message = &messages[index];
    struct msghdr *header = &burst.headers[index].msg_hdr;
    const union name *name = &burst.names[index];
    message->length = burst.headers[index].msg_len;
    message->truncated = (header->msg_flags & MSG_TRUNC) != 0;
    message->other = socket.is_ipv6 ? of_ipv6(&name->ipv6.sin6_addr) : of_ipv4(name->ipv4.sin_addr);
    message->port = ntohs(socket.is_ipv6 ? name->ipv6.sin6_port : name->ipv4.sin_port);
    message->interface = socket.is_ipv6 ? name->ipv6.sin6_scope_id : 0;
    message->own = (struct netdev_udp_address){0};
    if (socket.is_wildcard) read_own(header, message);
  }
  return received;
}

// Asks for an answer from the message's own address.
static void write_own(struct netdev_udp_socket socket, struct msghdr *header, union control *control,
                      const struct netdev_udp_message *message) {
  memset(control, 0, sizeof *control);
  header->msg_control = control;
  struct cmsghdr *part = &control->header;
  if (socket.is_ipv6) {
    header->msg_controllen = sizeof control->ipv6;
    struct in6_pktinfo info = {.ipi6_addr = to_ipv6(message->own),
                               .ipi6_ifindex = is_link_local(message->own) ? message->interface : 0};
    part->cmsg_level = IPPROTO_IPV6;
    part->cmsg_type = IPV6_PKTINFO;
    part->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(part), &info, sizeof info);
  } else {
    header->msg_controllen = sizeof control->ipv4;
    struct in_pktinfo info = {.ipi_spec_dst = to_ipv4(message->own)};
    part->cmsg_level = IPPROTO_IP;
    part->cmsg_type = IP_PKTINFO;
    part->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(part), &info, sizeof info);
  }
}

int netdev_udp_send(struct netdev_udp_socket socket, const struct netdev_udp_message *messages, int count) {
  struct burst burst;
  count = bounded(count);
  for (int index = 0; index < count; index++) {
    const struct netdev_udp_message *message = &messages[index];
    fill(&burst, message, index);
    struct msghdr *header = &burst.headers[index].msg_hdr;
    header->msg_namelen =
        fill_name(&burst.names[index], socket.is_ipv6, message->other, message->port, message->interface);
    if (!is_zero(message->own)) write_own(socket, header, &burst.controls[index], message);
  }
  unsigned int length = (unsigned int)NETDEV_CUT(sendmmsg, (size_t)count);
  int sent;
  do {
    sent = NETDEV_CALL(sendmmsg, socket.descriptor, burst.headers, length, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : sent;
}
