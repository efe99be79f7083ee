#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "simulated_kernel.h"
#include "simulated_objects.h"

// Datagrams that a socket holds in each direction.
#define ROOM 256

static struct object *bound(uint16_t port) {
  struct object *object = NULL;
  while ((object = simulated_next(object)))
    if (object->kind == INTERNET_SOCKET && object->name.sin_port == htons(port)) return object;
  return NULL;
}

int simulated_udp_bind(struct object *object, const struct sockaddr_in *name) {
  uint16_t port = ntohs(name->sin_port);
  if (port == 0)
    for (port = 40000; bound(port);) port++;
  if (bound(port)) return -EADDRINUSE;
  object->name = *name;
  object->name.sin_port = htons(port);
  return 0;
}

// Only who is bound to all addresses asks for the one that a datagram came to: there are two here.
static void write_own(struct msghdr *header) {
  if (!header->msg_control || header->msg_controllen < CMSG_SPACE(sizeof(struct in_pktinfo))) {
    header->msg_controllen = 0;
    return;
  }
  header->msg_controllen = CMSG_SPACE(sizeof(struct in_pktinfo));
  struct cmsghdr *part = CMSG_FIRSTHDR(header);
  *part = (struct cmsghdr){
      .cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO, .cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo))};
  struct in_pktinfo info = {.ipi_ifindex = 1, .ipi_spec_dst = {.s_addr = htonl(INADDR_LOOPBACK)}};
  memcpy(CMSG_DATA(part), &info, sizeof info);
}

int simulated_udp_receive(struct object *object, struct mmsghdr *headers, unsigned count) {
  unsigned done = 0;
  struct message *message;
  while (done < count && (message = simulated_pop(&object->arrived))) {
    struct msghdr *header = &headers[done].msg_hdr;
    headers[done].msg_len = (unsigned)simulated_scatter(message, 0, header->msg_iov, (int)header->msg_iovlen);
    header->msg_flags = headers[done].msg_len < message->length ? MSG_TRUNC : 0;
    if (header->msg_name) {
      memcpy(header->msg_name, &message->place, sizeof message->place);
      header->msg_namelen = sizeof message->place;
    }
    write_own(header);
    free(message);
    done++;
  }
  return done > 0 ? (int)done : -EAGAIN;
}

int simulated_udp_transmit(struct object *object, struct mmsghdr *headers, unsigned count) {
  unsigned done = 0;
  while (done < count && object->sent.count < ROOM) {
    const struct msghdr *header = &headers[done].msg_hdr;
    struct sockaddr_in place;
    memcpy(&place, header->msg_name, sizeof place);
    if (!simulated_put(&object->sent, header->msg_iov, (int)header->msg_iovlen, 0, place)) break;
    headers[done].msg_len = (unsigned)object->sent.last->length;
    done++;
  }
  if (done > 0) simulated_news();
  return done > 0 ? (int)done : -EAGAIN;
}

bool simulated_udp_send(uint16_t port, uint32_t from, uint16_t from_port, const void *bytes, size_t length) {
  struct object *object = bound(port);
  if (!object || object->arrived.count >= ROOM) return false;
  struct sockaddr_in place = {
      .sin_family = AF_INET, .sin_addr = {.s_addr = htonl(from)}, .sin_port = htons(from_port)};
  struct iovec piece = {.iov_base = (void *)bytes, .iov_len = length};
  return simulated_put(&object->arrived, &piece, 1, 0, place);
}

ssize_t simulated_udp_take(uint16_t port, uint32_t *to, uint16_t *to_port, void *bytes, size_t room) {
  struct object *object = bound(port);
  struct message *message = object ? simulated_pop(&object->sent) : NULL;
  if (!message) return -1;
  *to = ntohl(message->place.sin_addr.s_addr);
  *to_port = ntohs(message->place.sin_port);
  struct iovec piece = {.iov_base = bytes, .iov_len = room};
  ssize_t length = (ssize_t)simulated_scatter(message, 0, &piece, 1);
  free(message);
  return length;
}
