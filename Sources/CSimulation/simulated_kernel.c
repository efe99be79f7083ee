#include "simulated_kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "interposed.h"
#include "simulated_objects.h"

// The world's thread has one kernel while the world lasts.
struct kernel {
  struct object *objects;
  void (*news)(void *context);
  void (*lacks)(void *context, const char *what);
  void *context;
};

static __thread struct kernel *kernel;

void simulated_kernel_begin(
    void (*news)(void *context), void (*lacks)(void *context, const char *what), void *context) {
  kernel = calloc(1, sizeof *kernel);
  if (kernel) *kernel = (struct kernel){.news = news, .lacks = lacks, .context = context};
}

// What a socket of the world's cannot do: an error, and a word of it.
static long lacks(const char *what, int error) {
  if (kernel) kernel->lacks(kernel->context, what);
  return -error;
}

void simulated_kernel_end(void) {
  if (!kernel) return;
  while (kernel->objects) simulated_drop(kernel->objects);
  simulated_taps_end();
  simulated_processes_end();
  free(kernel);
  kernel = NULL;
}

void simulated_news(void) {
  if (kernel && kernel->news) kernel->news(kernel->context);
}

// --- Objects and what lies in them

struct object *simulated_object(int descriptor) {
  struct object *object = kernel ? kernel->objects : NULL;
  while (object && object->descriptor != descriptor) object = object->next;
  return object;
}

struct object *simulated_next(struct object *object) {
  return object ? object->next : kernel ? kernel->objects : NULL;
}

struct object *simulated_make(enum kind kind, int *descriptor) {
  struct object *object = calloc(1, sizeof *object);
  // A number of its own, behind which nothing ever happens.
  *descriptor = object ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
  if (*descriptor < 0) {
    *descriptor = object ? -errno : -ENOMEM;
    free(object);
    return NULL;
  }
  *object = (struct object){.next = kernel->objects, .descriptor = *descriptor, .kind = kind};
  kernel->objects = object;
  return object;
}

void simulated_drop(struct object *object) {
  struct object **place = &kernel->objects;
  while (*place && *place != object) place = &(*place)->next;
  if (*place) *place = object->next;
  if (object->kind == TAP_QUEUE) simulated_tap_close(object);
  simulated_clear(&object->arrived);
  simulated_clear(&object->sent);
  free(object);
}

bool simulated_put(struct messages *messages, const struct iovec *pieces, int count, size_t skip, struct sockaddr_in place) {
  size_t length = 0;
  for (int index = 0; index < count; index++) length += pieces[index].iov_len;
  struct message *message = malloc(sizeof *message + length);
  if (!message) return false;
  *message = (struct message){.place = place, .length = length - skip};
  size_t at = 0;
  for (int index = 0; index < count; index++) {
    const unsigned char *from = pieces[index].iov_base;
    for (size_t byte = 0; byte < pieces[index].iov_len; byte++, at++)
      if (at >= skip) message->bytes[at - skip] = from[byte];
  }
  if (messages->last)
    messages->last->next = message;
  else
    messages->first = message;
  messages->last = message;
  messages->count++;
  return true;
}

struct message *simulated_pop(struct messages *messages) {
  struct message *message = messages->first;
  if (!message) return NULL;
  messages->first = message->next;
  if (!messages->first) messages->last = NULL;
  messages->count--;
  return message;
}

void simulated_clear(struct messages *messages) {
  struct message *message;
  while ((message = simulated_pop(messages))) free(message);
}

size_t simulated_scatter(const struct message *message, size_t from, const struct iovec *pieces, int count) {
  size_t at = from;
  for (int index = 0; index < count && at < message->length; index++) {
    size_t length = message->length - at;
    if (length > pieces[index].iov_len) length = pieces[index].iov_len;
    memcpy(pieces[index].iov_base, message->bytes + at, length);
    at += length;
  }
  return at - from;
}

int simulated_is_ready(int descriptor, bool for_writing) {
  const struct object *object = simulated_object(descriptor);
  if (!object) return -1;
  if (object->kind == TAP_QUEUE) return simulated_tap_is_ready(object, for_writing);
  return for_writing ? 1 : object->arrived.first != NULL;
}

// --- The calls, on a world's thread those of the world

static long told(long result) {
  if (result >= 0) return result;
  errno = (int)-result;
  return -1;
}

int open(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  if (kernel && strcmp(path, "/dev/net/tun") == 0) return (int)told(simulated_tap_open());
  return interposed_opened(ORIGINAL(open, path, flags, mode));
}

int open64(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return open(path, flags | O_LARGEFILE, mode);
}

// What code calls that was compiled with checks of its arguments.
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __open_2(const char *path, int flags) { return open(path, flags); }
int __open64_2(const char *path, int flags) { return open(path, flags | O_LARGEFILE); }

int close(int descriptor) {
  struct object *object = simulated_object(descriptor);
  if (object) simulated_drop(object);
  interposed_closed(descriptor);
  return ORIGINAL(close, descriptor);
}

int ioctl(int descriptor, unsigned long request, ...) {
  va_list rest;
  va_start(rest, request);
  void *argument = va_arg(rest, void *);
  va_end(rest);
  struct object *object = simulated_object(descriptor);
  if (!object) return ORIGINAL(ioctl, descriptor, request, argument);
  if (object->kind == TAP_QUEUE) return (int)told(simulated_tap_ioctl(object, request, argument));
  return (int)told(simulated_link_ioctl(request, argument));
}

ssize_t readv(int descriptor, const struct iovec *pieces, int count) {
  struct object *object = simulated_object(descriptor);
  if (!object) return ORIGINAL(readv, descriptor, pieces, count);
  return told(object->kind == TAP_QUEUE ? simulated_tap_read(object, pieces, count) : lacks("readv of a socket", EOPNOTSUPP));
}

ssize_t writev(int descriptor, const struct iovec *pieces, int count) {
  struct object *object = simulated_object(descriptor);
  if (!object) return ORIGINAL(writev, descriptor, pieces, count);
  return told(object->kind == TAP_QUEUE ? simulated_tap_write(object, pieces, count) : lacks("writev of a socket", EOPNOTSUPP));
}

ssize_t read(int descriptor, void *bytes, size_t room) {
  if (!simulated_object(descriptor)) return ORIGINAL(read, descriptor, bytes, room);
  struct iovec piece = {.iov_base = bytes, .iov_len = room};
  return readv(descriptor, &piece, 1);
}

ssize_t write(int descriptor, const void *bytes, size_t length) {
  if (!simulated_object(descriptor)) return ORIGINAL(write, descriptor, bytes, length);
  struct iovec piece = {.iov_base = (void *)bytes, .iov_len = length};
  return writev(descriptor, &piece, 1);
}

int socket(int domain, int type, int protocol) {
  bool is_link = domain == AF_NETLINK;
  // An interface of the host is none of the world's.
  if (kernel && domain == AF_PACKET) return (int)told(lacks("packet sockets: there is no device packet: in it", EAFNOSUPPORT));
  if (kernel && domain == AF_INET6) return (int)told(lacks("sockets of IPv6", EAFNOSUPPORT));
  if (!kernel || !(is_link || domain == AF_INET)) return interposed_opened(ORIGINAL(socket, domain, type, protocol));
  if (!is_link && (type & 0xf) != SOCK_DGRAM) return (int)told(lacks("sockets of IPv4 but those of UDP", EPROTONOSUPPORT));
  int descriptor = -ENOMEM;
  simulated_make(is_link ? LINK_SOCKET : INTERNET_SOCKET, &descriptor);
  return (int)told(descriptor);
}

// What the library does not ask of a socket of the world's.
#define LACKED(result, name, parameters, ...)                                  \
  result name parameters {                                                     \
    if (simulated_object(descriptor)) return (result)told(lacks(#name " of a socket", EOPNOTSUPP)); \
    return ORIGINAL(name, __VA_ARGS__);                                        \
  }

LACKED(int, connect, (int descriptor, const struct sockaddr *name, socklen_t length), descriptor, name, length)
LACKED(int, listen, (int descriptor, int backlog), descriptor, backlog)
LACKED(int, getpeername, (int descriptor, struct sockaddr *restrict name, socklen_t *restrict length), descriptor, name, length)
LACKED(ssize_t, sendto,
       (int descriptor, const void *bytes, size_t length, int flags, const struct sockaddr *name, socklen_t name_length), descriptor,
       bytes, length, flags, name, name_length)
LACKED(ssize_t, recvfrom,
       (int descriptor, void *restrict bytes, size_t room, int flags, struct sockaddr *restrict name, socklen_t *restrict length),
       descriptor, bytes, room, flags, name, length)
LACKED(ssize_t, sendmsg, (int descriptor, const struct msghdr *message, int flags), descriptor, message, flags)

ssize_t recvmsg(int descriptor, struct msghdr *message, int flags) {
  if (simulated_object(descriptor)) return (ssize_t)told(lacks("recvmsg of a socket", EOPNOTSUPP));
  ssize_t length = ORIGINAL(recvmsg, descriptor, message, flags);
  if (kernel && length >= 0 && message->msg_controllen > 0) interposed_received(message);
  return length;
}

int bind(int descriptor, const struct sockaddr *name, socklen_t length) {
  struct object *object = simulated_object(descriptor);
  if (!object) return ORIGINAL(bind, descriptor, name, length);
  if (object->kind == LINK_SOCKET) return 0;
  return (int)told(simulated_udp_bind(object, (const struct sockaddr_in *)name));
}

int getsockname(int descriptor, struct sockaddr *restrict name, socklen_t *restrict length) {
  struct object *object = simulated_object(descriptor);
  if (!object) return ORIGINAL(getsockname, descriptor, name, length);
  if (object->kind == LINK_SOCKET) {
    // Its own number, as the kernel gives one to whoever binds without.
    uint32_t own[3] = {AF_NETLINK, (uint32_t)descriptor, 0};
    memcpy(name, own, *length < sizeof own ? *length : sizeof own);
    *length = sizeof own;
  } else {
    memcpy(name, &object->name, *length < sizeof object->name ? *length : sizeof object->name);
    *length = sizeof object->name;
  }
  return 0;
}

int setsockopt(int descriptor, int level, int option, const void *value, socklen_t length) {
  if (simulated_object(descriptor)) return 0;
  return ORIGINAL(setsockopt, descriptor, level, option, value, length);
}

int getsockopt(int descriptor, int level, int option, void *restrict value, socklen_t *restrict length) {
  if (kernel && level == SOL_SOCKET) {
    int result = simulated_process_behind(descriptor, option, value, length);
    if (result != -ENOTCONN) return (int)told(result);
  }
  return ORIGINAL(getsockopt, descriptor, level, option, value, length);
}

ssize_t recv(int descriptor, void *bytes, size_t room, int flags) {
  struct object *object = simulated_object(descriptor);
  if (!object) return ORIGINAL(recv, descriptor, bytes, room, flags);
  struct message *message = simulated_pop(&object->arrived);
  if (!message) return told(-EAGAIN);
  struct iovec piece = {.iov_base = bytes, .iov_len = room};
  ssize_t length = (ssize_t)simulated_scatter(message, 0, &piece, 1);
  free(message);
  return length;
}

ssize_t send(int descriptor, const void *bytes, size_t length, int flags) {
  struct object *object = simulated_object(descriptor);
  if (!object) return ORIGINAL(send, descriptor, bytes, length, flags);
  return told(object->kind == LINK_SOCKET ? simulated_link_ask(object, bytes, length) : -EDESTADDRREQ);
}

int recvmmsg(int descriptor, struct mmsghdr *headers, unsigned count, int flags, struct timespec *limit) {
  struct object *object = simulated_object(descriptor);
  if (!object) {
    int received = ORIGINAL(recvmmsg, descriptor, headers, count, flags, limit);
    for (int index = 0; index < received; index++) interposed_received(&headers[index].msg_hdr);
    return received;
  }
  return (int)told(simulated_udp_receive(object, headers, count));
}

int sendmmsg(int descriptor, struct mmsghdr *headers, unsigned count, int flags) {
  struct object *object = simulated_object(descriptor);
  if (!object) return ORIGINAL(sendmmsg, descriptor, headers, count, flags);
  return (int)told(simulated_udp_transmit(object, headers, count));
}
