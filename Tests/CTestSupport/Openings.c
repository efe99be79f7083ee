#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <mqueue.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "CTestSupport.h"

static int one(struct test_opened *opened, int descriptor) {
  if (descriptor < 0) return -errno;
  opened->descriptors[opened->count++] = descriptor;
  return 0;
}

static int two(struct test_opened *opened, int result, const int ends[2]) {
  if (result < 0) return -errno;
  one(opened, ends[0]);
  return one(opened, ends[1]);
}

static int stream(struct test_opened *opened, FILE *file) {
  opened->file = file;
  return file ? 0 : -errno;
}

#define ONE(name, ...) \
  static int open_##name(struct test_opened *opened) { return one(opened, name(__VA_ARGS__)); }
#define STREAM(name, ...) \
  static int open_##name(struct test_opened *opened) { return stream(opened, name(__VA_ARGS__)); }
#define TWO(name, ...)                             \
  static int open_##name(struct test_opened *opened) {  \
    int ends[2];                                   \
    return two(opened, name(__VA_ARGS__), ends);   \
  }
// A file of a name that is made up, and forgotten at once.
#define MADE_UP(name, suffix, ...)                           \
  static int open_##name(struct test_opened *opened) {            \
    char path[] = "/tmp/netdev-opening-XXXXXX" suffix;       \
    int result = one(opened, name(path __VA_ARGS__));        \
    if (result == 0) unlink(path);                           \
    return result;                                           \
  }
#define MADE(name, ...)                                      \
  static int open_##name(struct test_opened *opened) {            \
    int result = one(opened, name(opening_path, __VA_ARGS__)); \
    unlink(opening_path);                                    \
    return result;                                           \
  }

static const char opening_path[] = "/tmp/netdev-opening";

ONE(open, "/dev/null", O_RDONLY)
ONE(open64, "/dev/null", O_RDONLY)
ONE(openat, AT_FDCWD, "/dev/null", O_RDONLY)
ONE(openat64, AT_FDCWD, "/dev/null", O_RDONLY)
ONE(fcntl64, 0, F_DUPFD_CLOEXEC, 3)
int __openat_2(int folder, const char *path, int flags);
int __openat64_2(int folder, const char *path, int flags);
ONE(__openat_2, AT_FDCWD, "/dev/null", O_RDONLY)
ONE(__openat64_2, AT_FDCWD, "/dev/null", O_RDONLY)
MADE(creat, 0600)
MADE(creat64, 0600)
MADE_UP(mkstemp, "")
MADE_UP(mkstemp64, "")
MADE_UP(mkostemp, "", , O_CLOEXEC)
MADE_UP(mkostemp64, "", , O_CLOEXEC)
MADE_UP(mkstemps, ".end", , 4)
MADE_UP(mkstemps64, ".end", , 4)
MADE_UP(mkostemps, ".end", , 4, O_CLOEXEC)
MADE_UP(mkostemps64, ".end", , 4, O_CLOEXEC)
ONE(dup, 0)
ONE(dup2, 0, 900)
ONE(dup3, 0, 901, O_CLOEXEC)
ONE(fcntl, 0, F_DUPFD_CLOEXEC, 3)
ONE(epoll_create, 1)
ONE(epoll_create1, EPOLL_CLOEXEC)
ONE(eventfd, 0, EFD_CLOEXEC)
ONE(timerfd_create, CLOCK_MONOTONIC, TFD_CLOEXEC)
ONE(inotify_init)
ONE(inotify_init1, IN_CLOEXEC)
ONE(fanotify_init, FAN_CLASS_NOTIF, O_RDONLY)
ONE(getpt)
ONE(posix_openpt, O_RDWR | O_NOCTTY)
ONE(socket, AF_UNIX, SOCK_STREAM, 0)
ONE(pidfd_open, getpid(), 0)
ONE(fsopen, "tmpfs", 0)
ONE(fspick, AT_FDCWD, "/", 0)
ONE(open_tree, AT_FDCWD, "/", 0)
TWO(pipe, ends)
TWO(pipe2, ends, O_CLOEXEC)
TWO(socketpair, AF_UNIX, SOCK_STREAM, 0, ends)
TWO(openpty, &ends[0], &ends[1], NULL, NULL, NULL)
STREAM(fopen, "/dev/null", "r")
STREAM(fopen64, "/dev/null", "r")
STREAM(setmntent, "/proc/self/mounts", "r")
STREAM(tmpfile)
STREAM(tmpfile64)

static int open_popen(struct test_opened *opened) {
  opened->is_process = true;
  return stream(opened, popen("true", "r"));
}

static int open_freopen(struct test_opened *opened) {
  FILE *file = fopen("/dev/null", "r");
  return stream(opened, file ? freopen("/dev/zero", "r", file) : NULL);
}

static int open_freopen64(struct test_opened *opened) {
  FILE *file = fopen("/dev/null", "r");
  return stream(opened, file ? freopen64("/dev/zero", "r", file) : NULL);
}

static int open_opendir(struct test_opened *opened) {
  opened->folder = opendir("/dev");
  return opened->folder ? 0 : -errno;
}

static int open_shm_open(struct test_opened *opened) {
  int result = one(opened, shm_open("/netdev-opening", O_CREAT | O_RDWR, 0600));
  shm_unlink("/netdev-opening");
  return result;
}

static int open_mq_open(struct test_opened *opened) {
  struct mq_attr attributes = {.mq_maxmsg = 1, .mq_msgsize = 8};
  int result = one(opened, mq_open("/netdev-opening", O_CREAT | O_RDWR, 0600, &attributes));
  mq_unlink("/netdev-opening");
  return result;
}

static int open_signalfd(struct test_opened *opened) {
  sigset_t none;
  sigemptyset(&none);
  int result = one(opened, signalfd(-1, &none, SFD_CLOEXEC));
  // That is the same one again.
  if (result == 0) signalfd(opened->descriptors[0], &none, SFD_CLOEXEC);
  return result;
}

static int open_pidfd_getfd(struct test_opened *opened) {
  int process = pidfd_open(getpid(), 0), result = process < 0 ? -errno : one(opened, pidfd_getfd(process, 0, 0));
  if (process >= 0) close(process);
  return result;
}

static int open_by_handle(struct test_opened *opened) {
  union {
    struct file_handle handle;
    char bytes[sizeof(struct file_handle) + MAX_HANDLE_SZ];
  } place = {.handle = {.handle_bytes = MAX_HANDLE_SZ}};
  int mount, folder = open("/tmp", O_RDONLY | O_DIRECTORY);
  int result = name_to_handle_at(AT_FDCWD, "/tmp", &place.handle, &mount, 0) < 0
                   ? -errno
                   : one(opened, open_by_handle_at(folder, &place.handle, O_RDONLY));
  close(folder);
  return result;
}

static int accepted(struct test_opened *opened, bool has_flags) {
  // A name in no folder, which the system makes up.
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  socklen_t length = sizeof name;
  int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(listener, (struct sockaddr *)&name, sizeof name.sun_family) < 0 || listen(listener, 1) < 0 ||
      getsockname(listener, (struct sockaddr *)&name, &length) < 0 ||
      connect(client, (struct sockaddr *)&name, length) < 0)
    return -errno;
  int result = one(opened, has_flags ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : accept(listener, NULL, NULL));
  close(listener);
  close(client);
  return result;
}

static int open_accept(struct test_opened *opened) { return accepted(opened, false); }
static int open_accept4(struct test_opened *opened) { return accepted(opened, true); }

// A descriptor that a message brings.
static int received(struct test_opened *opened, bool with_others) {
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
  } out = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}}, in = out;
  int ends[2], sent = 0;
  memcpy(CMSG_DATA(&out.header), &sent, sizeof sent);
  char byte = 0;
  struct iovec piece = {.iov_base = &byte, .iov_len = 1};
  struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &out, .msg_controllen = sizeof out};
  struct mmsghdr answer = {
      .msg_hdr = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &in, .msg_controllen = sizeof in}};
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0 || sendmsg(ends[0], &message, 0) < 0 ||
      (with_others ? recvmmsg(ends[1], &answer, 1, 0, NULL) < 0 : recvmsg(ends[1], &answer.msg_hdr, 0) < 0))
    return -errno;
  close(ends[0]);
  close(ends[1]);
  memcpy(&sent, CMSG_DATA(&in.header), sizeof sent);
  return one(opened, sent);
}

static int open_recvmsg(struct test_opened *opened) { return received(opened, false); }
static int open_recvmmsg(struct test_opened *opened) { return received(opened, true); }

#define ROW(name) {#name, open_##name}
static const struct {
  const char *name;
  int (*open)(struct test_opened *);
} openings[] = {
    ROW(open), ROW(open64), ROW(openat), ROW(openat64), ROW(__openat_2), ROW(__openat64_2), ROW(creat), ROW(creat64), ROW(mkstemp), ROW(mkstemp64), ROW(mkostemp),
    ROW(mkostemp64), ROW(mkstemps), ROW(mkstemps64), ROW(mkostemps), ROW(mkostemps64), ROW(dup), ROW(dup2), ROW(dup3),
    ROW(fcntl), ROW(fcntl64), ROW(epoll_create), ROW(epoll_create1), ROW(eventfd), ROW(timerfd_create), ROW(inotify_init),
    ROW(inotify_init1), ROW(fanotify_init), ROW(getpt), ROW(posix_openpt), ROW(socket), ROW(pidfd_open), ROW(pidfd_getfd),
    ROW(fsopen), ROW(fspick), ROW(open_tree), ROW(by_handle), ROW(pipe), ROW(pipe2), ROW(socketpair), ROW(openpty), ROW(fopen),
    ROW(fopen64), ROW(freopen), ROW(freopen64), ROW(setmntent), ROW(tmpfile), ROW(tmpfile64), ROW(popen), ROW(opendir),
    ROW(shm_open), ROW(mq_open), ROW(signalfd), ROW(accept), ROW(accept4), ROW(recvmsg), ROW(recvmmsg),
};

const char *test_opening_name(size_t index) {
  return index < sizeof openings / sizeof *openings ? openings[index].name : NULL;
}

int test_opening_open(size_t index, struct test_opened *opened) {
  *opened = (struct test_opened){.count = 0};
  return openings[index].open(opened);
}

void test_opening_close(struct test_opened *opened) {
  for (int index = 0; index < opened->count; index++) close(opened->descriptors[index]);
  if (opened->folder) closedir(opened->folder);
  if (!opened->file) return;
  if (opened->is_process)
    pclose(opened->file);
  else
    fclose(opened->file);
}

int test_take_number(void) { return (int)syscall(SYS_memfd_create, "taken", 0); }

int test_close_folder_of_nothing(void) {
  DIR *volatile nothing = NULL;
  errno = 0;
  return closedir(nothing) == 0 ? 0 : errno;
}

int test_close_stream_of_memory(void) {
  char byte = 0;
  FILE *file = fmemopen(&byte, 1, "r");
  errno = 0;
  return fclose(file) == 0 ? errno : -1;
}

int test_close_by_range(void) {
  int descriptor = open("/dev/null", O_RDONLY);
  return descriptor < 0 ? -errno : close_range((unsigned)descriptor, (unsigned)descriptor, 0);
}
