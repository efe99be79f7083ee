#include "CFuzzSupport.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

ssize_t fuzz_send(int socket, const void *bytes, size_t length, int descriptor, int count) {
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(FUZZ_DESCRIPTORS * sizeof(int))];
  } control;
  struct iovec piece = {.iov_base = (void *)bytes, .iov_len = length};
  struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
  if (count > FUZZ_DESCRIPTORS) count = FUZZ_DESCRIPTORS;
  if (count > 0) {
    memset(&control, 0, sizeof control);
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    for (int index = 0; index < count; index++)
      memcpy(CMSG_DATA(part) + (size_t)index * sizeof(int), &descriptor, sizeof(int));
  }
  ssize_t sent = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  return sent < 0 ? -errno : sent;
}
