#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "CSimulation.h"
#include "interposed.h"
#include "simulated_objects.h"

// Descriptors that a world's thread has opened, and nobody has closed: those of other threads are none of its. What is memory only
// is left out, which the library keeps as long as a device may still write to it.

enum { MOST = 1 << 16 };
static atomic_bool opened[MOST];
// None from here on has been opened; known to worlds' threads, of which there is one at a time.
static int beyond;

int interposed_opened(int descriptor) {
  if (descriptor < 0 || descriptor >= MOST) return descriptor;
  if (!interposed_world()) {
    // What had this number before is closed, wherever.
    interposed_closed(descriptor);
    return descriptor;
  }
  atomic_store(&opened[descriptor], true);
  if (descriptor >= beyond) beyond = descriptor + 1;
  return descriptor;
}

void interposed_closed(int descriptor) {
  if (descriptor >= 0 && descriptor < MOST && atomic_load(&opened[descriptor])) atomic_store(&opened[descriptor], false);
}

// What an open descriptor is, as the kernel says; false when it is not open.
static bool read_kind(int descriptor, char *kind, size_t room) {
  char link[32];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, kind, room - 1);
  if (length < 0) return false;
  kind[length] = 0;
  return true;
}

int simulation_descriptor_left(int from, char *kind, size_t room) {
  for (int descriptor = from; descriptor < beyond; descriptor++) {
    if (!atomic_load(&opened[descriptor])) continue;
    // Closed inside of the C library.
    if (!read_kind(descriptor, kind, room)) continue;
    // The number of a socket or a pipe is another one each time.
    if (strncmp(kind, "anon_inode:", 11) != 0) kind[strcspn(kind, "[")] = 0;
    const struct object *object = simulated_object(descriptor);
    static const char *const words[] = {[TAP_QUEUE] = "/dev/net/tun", [LINK_SOCKET] = "a link socket", [INTERNET_SOCKET] = "a UDP socket"};
    if (object) snprintf(kind, room, "%s", words[object->kind]);
    return descriptor;
  }
  return -1;
}

void simulation_descriptors_forget(void) {
  for (int descriptor = 0; descriptor < beyond; descriptor++) interposed_closed(descriptor);
  beyond = 0;
}

// --- What opens one

int eventfd(unsigned count, int flags) { return interposed_opened(ORIGINAL(eventfd, count, flags)); }
int timerfd_create(clockid_t clock, int flags) { return interposed_opened(ORIGINAL(timerfd_create, clock, flags)); }
int epoll_create1(int flags) { return interposed_opened(ORIGINAL(epoll_create1, flags)); }
int dup(int descriptor) { return interposed_opened(ORIGINAL(dup, descriptor)); }

int dup2(int descriptor, int wanted) {
  // One that was open before is no further one.
  bool was_open = ORIGINAL(fcntl, wanted, F_GETFD) >= 0;
  int result = ORIGINAL(dup2, descriptor, wanted);
  return was_open ? result : interposed_opened(result);
}

int creat(const char *path, mode_t mode) { return interposed_opened(ORIGINAL(creat, path, mode)); }
int mkstemp(char *template) { return interposed_opened(ORIGINAL(mkstemp, template)); }

FILE *fopen(const char *restrict path, const char *restrict mode) {
  FILE *file = ORIGINAL(fopen, path, mode);
  if (file) interposed_opened(fileno(file));
  return file;
}

int fclose(FILE *file) {
  interposed_closed(fileno(file));
  return ORIGINAL(fclose, file);
}

DIR *opendir(const char *path) {
  DIR *folder = ORIGINAL(opendir, path);
  if (folder) interposed_opened(dirfd(folder));
  return folder;
}

int closedir(DIR *folder) {
  interposed_closed(dirfd(folder));
  return ORIGINAL(closedir, folder);
}

int accept(int listener, struct sockaddr *restrict name, socklen_t *restrict length) {
  return interposed_opened(ORIGINAL(accept, listener, name, length));
}

int accept4(int listener, struct sockaddr *restrict name, socklen_t *restrict length, int flags) {
  return interposed_opened(ORIGINAL(accept4, listener, name, length, flags));
}

int openat(int folder, const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return interposed_opened(ORIGINAL(openat, folder, path, flags, mode));
}

int fcntl(int descriptor, int command, ...) {
  va_list rest;
  va_start(rest, command);
  void *argument = va_arg(rest, void *);
  va_end(rest);
  int result = ORIGINAL(fcntl, descriptor, command, argument);
  return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? interposed_opened(result) : result;
}

static int both(int result, const int ends[2]) {
  if (result < 0) return result;
  interposed_opened(ends[0]);
  interposed_opened(ends[1]);
  return result;
}

int pipe(int ends[2]) { return both(ORIGINAL(pipe, ends), ends); }
int pipe2(int ends[2], int flags) { return both(ORIGINAL(pipe2, ends, flags), ends); }
int socketpair(int domain, int type, int protocol, int ends[2]) {
  return both(ORIGINAL(socketpair, domain, type, protocol, ends), ends);
}

void interposed_received(struct msghdr *message) {
  for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t index = 0; index < count; index++) {
      int descriptor;
      memcpy(&descriptor, CMSG_DATA(part) + index * sizeof descriptor, sizeof descriptor);
      char kind[64];
      if (!read_kind(descriptor, kind, sizeof kind) || strncmp(kind, "/memfd:", 7) != 0) interposed_opened(descriptor);
    }
  }
}
