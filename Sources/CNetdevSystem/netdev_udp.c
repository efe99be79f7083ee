#include "netdev_udp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "netdev_descriptor.h"
#include "netdev_fault.h"

int netdev_udp_open(uint32_t address, uint16_t port, int receive_bytes) {
  int descriptor = NETDEV_CALL(socket, AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -errno;
  // Best effort: a smaller buffer drops earlier and nothing else.
  (void)NETDEV_CALL(setsockopt, descriptor, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
  struct sockaddr_in name;
  memset(&name, 0, sizeof name);
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(address);
  name.sin_port = htons(port);
  int bound = NETDEV_CALL(bind, descriptor, (struct sockaddr *)&name, sizeof name);
  if (bound < 0 && !NETDEV_PLANTED("ignored")) {
    int error = errno;
    netdev_close(descriptor);
    return -error;
  }
  return descriptor;
}

int netdev_udp_port(int descriptor) {
  struct sockaddr_in name;
  socklen_t length = sizeof name;
  if (NETDEV_CALL(getsockname, descriptor, (struct sockaddr *)&name, &length) < 0) return -errno;
  return ntohs(name.sin_port);
}

// The kernel's view of a burst, on the stack of one call.
struct burst {
  struct mmsghdr headers[NETDEV_UDP_BURST];
  struct iovec bytes[NETDEV_UDP_BURST];
  struct sockaddr_in names[NETDEV_UDP_BURST];
};

static int fill(struct burst *burst, const struct netdev_udp_message *messages, int count) {
  if (count > NETDEV_UDP_BURST) count = NETDEV_UDP_BURST;
  for (int index = 0; index < count; index++) {
    burst->bytes[index] = (struct iovec){.iov_base = messages[index].bytes, .iov_len = messages[index].length};
    burst->names[index] = (struct sockaddr_in){.sin_family = AF_INET,
                                               .sin_addr.s_addr = htonl(messages[index].address),
                                               .sin_port = htons(messages[index].port)};
    burst->headers[index] = (struct mmsghdr){.msg_hdr = {.msg_name = &burst->names[index],
                                                         .msg_namelen = sizeof burst->names[index],
                                                         .msg_iov = &burst->bytes[index],
                                                         .msg_iovlen = 1}};
  }
  return count;
}

int netdev_udp_receive(int descriptor, struct netdev_udp_message *messages, int count) {
  struct burst burst;
  count = fill(&burst, messages, count);
  int received;
  do {
    received = NETDEV_CALL(recvmmsg, descriptor, burst.headers, (unsigned int)count, MSG_DONTWAIT, NULL);
  } while (received < 0 && errno == EINTR);
  if (received < 0) return -errno;
  for (int index = 0; index < received; index++) {
    messages[index].length = burst.headers[index].msg_len;
    messages[index].address = ntohl(burst.names[index].sin_addr.s_addr);
    messages[index].port = ntohs(burst.names[index].sin_port);
    messages[index].truncated = (burst.headers[index].msg_hdr.msg_flags & MSG_TRUNC) != 0;
  }
  return received;
}

int netdev_udp_send(int descriptor, const struct netdev_udp_message *messages, int count) {
  struct burst burst;
  count = fill(&burst, messages, count);
  int sent;
  do {
    sent = NETDEV_CALL(sendmmsg, descriptor, burst.headers, (unsigned int)NETDEV_CUT(sendmmsg, (size_t)count), MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : sent;
}
