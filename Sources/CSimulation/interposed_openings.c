#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <mntent.h>
#include <mqueue.h>
#include <pty.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#if __GLIBC_PREREQ(2, 36)
#include <sys/mount.h>
#include <sys/pidfd.h>
#endif

#include "interposed.h"

// What opens a descriptor, and what closes one, beside the calls that a world's kernel answers: each notes the descriptor. Not
// memfd_create, whose files are memory only: a mark that an earlier file of its number has left goes.

// A call that returns the descriptor.
#define OPENS(name, parameters, ...) \
  int name parameters { return interposed_opened(ORIGINAL(name, __VA_ARGS__)); }

OPENS(accept, (int listener, struct sockaddr *restrict name, socklen_t *restrict length), listener, name, length)
OPENS(
    accept4, (int listener, struct sockaddr *restrict name, socklen_t *restrict length, int flags), listener, name, length,
    flags)
OPENS(creat, (const char *path, mode_t mode), path, mode)
OPENS(creat64, (const char *path, mode_t mode), path, mode)
OPENS(dup, (int descriptor), descriptor)
OPENS(epoll_create, (int size), size)
OPENS(epoll_create1, (int flags), flags)
OPENS(eventfd, (unsigned count, int flags), count, flags)
OPENS(fanotify_init, (unsigned flags, unsigned event), flags, event)
OPENS(getpt, (void))
OPENS(inotify_init, (void))
OPENS(inotify_init1, (int flags), flags)
OPENS(mkostemp, (char *template, int flags), template, flags)
OPENS(mkostemp64, (char *template, int flags), template, flags)
OPENS(mkostemps, (char *template, int length, int flags), template, length, flags)
OPENS(mkostemps64, (char *template, int length, int flags), template, length, flags)
OPENS(mkstemp, (char *template), template)
OPENS(mkstemp64, (char *template), template)
OPENS(mkstemps, (char *template, int length), template, length)
OPENS(mkstemps64, (char *template, int length), template, length)
OPENS(open_by_handle_at, (int mount, struct file_handle *handle, int flags), mount, handle, flags)
OPENS(posix_openpt, (int flags), flags)
OPENS(shm_open, (const char *name, int flags, mode_t mode), name, flags, mode)
OPENS(timerfd_create, (clockid_t clock, int flags), clock, flags)

#if __GLIBC_PREREQ(2, 36)
OPENS(fsmount, (int context, unsigned flags, unsigned attributes), context, flags, attributes)
OPENS(fsopen, (const char *name, unsigned flags), name, flags)
OPENS(fspick, (int folder, const char *path, unsigned flags), folder, path, flags)
OPENS(open_tree, (int folder, const char *path, unsigned flags), folder, path, flags)
OPENS(pidfd_getfd, (int process, int descriptor, unsigned flags), process, descriptor, flags)
OPENS(pidfd_open, (pid_t process, unsigned flags), process, flags)
#endif

int memfd_create(const char *name, unsigned flags) {
  int result = ORIGINAL(memfd_create, name, flags);
  interposed_closed(result);
  return result;
}

// The mode behind the flags, where there is one.
#define OPENS_WITH_MODE(name, parameters, ...)                                        \
  int name parameters {                                                               \
    va_list rest;                                                                     \
    va_start(rest, flags);                                                            \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;           \
    va_end(rest);                                                                     \
    return interposed_opened(ORIGINAL(name, __VA_ARGS__, flags, mode));               \
  }

OPENS_WITH_MODE(openat, (int folder, const char *path, int flags, ...), folder, path)
OPENS_WITH_MODE(openat64, (int folder, const char *path, int flags, ...), folder, path)

// What code calls that was compiled with checks of its arguments.
int __openat_2(int folder, const char *path, int flags);
int __openat64_2(int folder, const char *path, int flags);
mqd_t __mq_open_2(const char *name, int flags);
int __openat_2(int folder, const char *path, int flags) { return openat(folder, path, flags); }
int __openat64_2(int folder, const char *path, int flags) { return openat64(folder, path, flags); }
mqd_t __mq_open_2(const char *name, int flags) { return mq_open(name, flags); }

mqd_t mq_open(const char *name, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
  struct mq_attr *attributes = flags & O_CREAT ? va_arg(rest, struct mq_attr *) : NULL;
  va_end(rest);
  return interposed_opened(ORIGINAL(mq_open, name, flags, mode, attributes));
}

int mq_close(mqd_t queue) {
  interposed_closed(queue);
  return ORIGINAL(mq_close, queue);
}

int signalfd(int descriptor, const sigset_t *mask, int flags) {
  int result = ORIGINAL(signalfd, descriptor, mask, flags);
  return descriptor < 0 ? interposed_opened(result) : result;
}

// Under both of its names.
#define COMMAND(name)                                                                              \
  int name(int descriptor, int command, ...) {                                                     \
    va_list rest;                                                                                  \
    va_start(rest, command);                                                                       \
    void *argument = va_arg(rest, void *);                                                         \
    va_end(rest);                                                                                  \
    int result = ORIGINAL(name, descriptor, command, argument);                                    \
    return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? interposed_opened(result) : result;  \
  }

COMMAND(fcntl)
COMMAND(fcntl64)

// --- Many at a time are closed

static void closed_between(unsigned first, unsigned last) {
  for (unsigned descriptor = first; descriptor <= last && descriptor < INTERPOSED_MOST; descriptor++)
    interposed_closed((int)descriptor);
}

#if __GLIBC_PREREQ(2, 34)
int close_range(unsigned first, unsigned last, int flags) {
  int result = ORIGINAL(close_range, first, last, flags);
  if (result == 0 && !(flags & CLOSE_RANGE_CLOEXEC)) closed_between(first, last);
  return result;
}

void closefrom(int first) {
  ORIGINAL(closefrom, first);
  closed_between(first < 0 ? 0 : (unsigned)first, INTERPOSED_MOST);
}
#endif

// --- One that was open before is no further one

static bool is_open(int descriptor) { return ORIGINAL(fcntl, descriptor, F_GETFD) >= 0; }

int dup2(int descriptor, int wanted) {
  bool was_open = is_open(wanted);
  int result = ORIGINAL(dup2, descriptor, wanted);
  return was_open ? result : interposed_opened(result);
}

int dup3(int descriptor, int wanted, int flags) {
  bool was_open = is_open(wanted);
  int result = ORIGINAL(dup3, descriptor, wanted, flags);
  return was_open ? result : interposed_opened(result);
}

// --- Two at a time

static int both(int result, const int *first, const int *second) {
  if (result < 0) return result;
  interposed_opened(*first);
  interposed_opened(*second);
  return result;
}

int openpty(int *own, int *other, char *name, const struct termios *settings, const struct winsize *size) {
  return both(ORIGINAL(openpty, own, other, name, settings, size), own, other);
}

int pipe(int ends[2]) { return both(ORIGINAL(pipe, ends), &ends[0], &ends[1]); }
int pipe2(int ends[2], int flags) { return both(ORIGINAL(pipe2, ends, flags), &ends[0], &ends[1]); }
int socketpair(int domain, int type, int protocol, int ends[2]) {
  return both(ORIGINAL(socketpair, domain, type, protocol, ends), &ends[0], &ends[1]);
}

// --- With a stream or a folder around it

static FILE *with_stream(FILE *file) {
  if (file) interposed_opened(fileno(file));
  return file;
}

FILE *fopen(const char *restrict path, const char *restrict mode) { return with_stream(ORIGINAL(fopen, path, mode)); }
FILE *fopen64(const char *restrict path, const char *restrict mode) { return with_stream(ORIGINAL(fopen64, path, mode)); }
FILE *popen(const char *command, const char *mode) { return with_stream(ORIGINAL(popen, command, mode)); }
FILE *setmntent(const char *path, const char *mode) { return with_stream(ORIGINAL(setmntent, path, mode)); }
FILE *tmpfile(void) { return with_stream(ORIGINAL(tmpfile)); }
FILE *tmpfile64(void) { return with_stream(ORIGINAL(tmpfile64)); }

// Whoever opens a stream anew has closed what it had.
static FILE *anew(FILE *file, int before) {
  if (file && fileno(file) == before) return file;
  interposed_closed(before);
  return with_stream(file);
}

FILE *freopen(const char *restrict path, const char *restrict mode, FILE *restrict file) {
  int before = fileno(file);
  return anew(ORIGINAL(freopen, path, mode, file), before);
}

FILE *freopen64(const char *restrict path, const char *restrict mode, FILE *restrict file) {
  int before = fileno(file);
  return anew(ORIGINAL(freopen64, path, mode, file), before);
}

// A stream of memory has no descriptor, which is no error of who closes it.
static void closing(FILE *file) {
  int before = errno;
  interposed_closed(fileno(file));
  errno = before;
}

int fclose(FILE *file) {
  closing(file);
  return ORIGINAL(fclose, file);
}

int pclose(FILE *file) {
  closing(file);
  return ORIGINAL(pclose, file);
}

int endmntent(FILE *file) {
  if (file) closing(file);
  return ORIGINAL(endmntent, file);
}

DIR *opendir(const char *path) {
  DIR *folder = ORIGINAL(opendir, path);
  if (folder) interposed_opened(dirfd(folder));
  return folder;
}

int closedir(DIR *folder) {
  // Without a folder that is an error of the library's own.
  DIR *volatile given = folder;
  if (given) interposed_closed(dirfd(folder));
  return ORIGINAL(closedir, folder);
}
