#include "netdev_unix.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "netdev_descriptor.h"
#include "netdev_fault.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

static int fill(struct sockaddr_un *address, const char *path) {
  size_t length = strlen(path);
  if (length == 0) return -EINVAL;
  if (length > NETDEV_UNIX_PATH) return -ENAMETOOLONG;
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  memcpy(address->sun_path, path, length);
  return 0;
}

static int open_stream(void) {
  return netdev_descriptor_above_stdio(NETDEV_CALL(socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

int netdev_unix_connect(const char *path) {
  struct sockaddr_un address;
  int result = fill(&address, path);
  if (result < 0) return result;
  int descriptor = open_stream();
  if (descriptor < 0) return descriptor;
  if (NETDEV_CALL(connect, descriptor, (const struct sockaddr *)&address, sizeof address) < 0) {
    result = -errno;
    netdev_close(descriptor);
    return result;
  }
  return descriptor;
}

// The file that has this name now, and its kind. Asked in two ways, of which a filter of system calls may refuse one. Returns 0
// or -errno.
static int identify(const char *path, struct netdev_file *file, mode_t *mode) {
  struct stat status;
  struct statx other;
  if (NETDEV_CALL(lstat, path, &status) == 0) {
    *file = (struct netdev_file){.device = (uint64_t)status.st_dev, .inode = (uint64_t)status.st_ino};
    *mode = status.st_mode;
    return 0;
  }
  if (NETDEV_CALL(statx, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_TYPE, &other) < 0) return -errno;
  file->device = (uint64_t)makedev(other.stx_dev_major, other.stx_dev_minor);
  file->inode = other.stx_ino;
  *mode = other.stx_mode;
  return 0;
}

static bool is_same(struct netdev_file one, struct netdev_file other) {
  return one.device == other.device && one.inode == other.inode;
}

// Removes a name of ours, unless it is somebody else's by now.
static void remove_own(const char *path, struct netdev_file own) {
  struct netdev_file found;
  mode_t mode;
  if (identify(path, &found, &mode) < 0) return;
  if (is_same(found, own)) (void)netdev_unlink(path);
}

// As rename, but -EEXIST when there is such a name.
static int rename_to_free(const char *from, const char *to) {
  return NETDEV_CALL(renameat2, AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) < 0 ? -errno : 0;
}

// A socket file outlives its process: it is in use only if somebody answers there. Returns 0 when nobody does, -ENOENT when there
// is none, or -EADDRINUSE.
static int find_stale(const char *path) {
  struct netdev_file file;
  mode_t mode;
  int result = identify(path, &file, &mode);
  if (result < 0) return result == -ENOENT ? result : -EADDRINUSE;
  if (!S_ISSOCK(mode)) return -EADDRINUSE;
  int probe = netdev_unix_connect(path);
  if (probe >= 0) netdev_close(probe);
  return probe == -ECONNREFUSED ? 0 : probe == -ENOENT ? -ENOENT : -EADDRINUSE;
}

// Locks the directory of `path` against others who remove stale sockets there. Returns a descriptor that holds the lock until it
// is closed; negative where it cannot be had, or somebody holds it for another reason: he is not waited for. Those who want it for
// this one hold it for some calls. The caller may be a loop, whose jobs may hold it for 100 ms: this takes a fifth of that at most,
// and only where there is a stale socket.
static int lock_directory(const char *path) {
  char name[NETDEV_UNIX_PATH + 1] = ".";
  const char *end = strrchr(path, '/');
  if (end) {
    size_t length = end == path ? 1 : (size_t)(end - path);
    memcpy(name, path, length);
    name[length] = 0;
  }
  int directory = netdev_descriptor_above_stdio(NETDEV_CALL(open, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (int attempt = 0; directory >= 0 && attempt < 20; attempt++) {
    if (NETDEV_CALL(flock, directory, LOCK_EX | LOCK_NB) == 0) return directory;
    if (errno != EWOULDBLOCK && errno != EINTR) break;
    usleep(1000);
  }
  if (directory >= 0) netdev_close(directory);
  return -1;
}

// Gives the socket `aside`, which listens, its name, in place of a stale one. Nobody removes a name but under the lock, when
// nobody answers there, and then it is the first who takes it. Returns 0 or -errno: -EADDRINUSE when another one has it.
static int take_name(const char *aside, const char *path) {
  int result = rename_to_free(aside, path);
  if (result != -EEXIST) return result;
  result = find_stale(path);
  if (result == -EADDRINUSE) return result;
  int lock = lock_directory(path);
  // It may be another's by now, or gone.
  result = find_stale(path);
  if (result == 0) result = netdev_unlink(path);
  if (result == 0 || result == -ENOENT) result = rename_to_free(aside, path);
  if (lock >= 0) netdev_close(lock);
  return result == -EEXIST ? -EADDRINUSE : result;
}

// Binds and listens. Returns the descriptor or -errno.
static int listen_as(const char *path, struct netdev_file *file) {
  struct sockaddr_un address;
  mode_t mode;
  int result = fill(&address, path);
  if (result < 0) return result;
  int descriptor = open_stream();
  if (descriptor < 0) return descriptor;
  result = NETDEV_CALL(bind, descriptor, (const struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
  if (result == 0) {
    result = NETDEV_CALL(listen, descriptor, 4) < 0 ? -errno : identify(path, file, &mode);
    // Bound a moment ago, it is our file; nobody shall knock there.
    if (result < 0) (void)netdev_unlink(path);
  }
  if (result == 0) return descriptor;
  netdev_close(descriptor);
  return result;
}

// Listens under another name of the same directory, and then takes the one that is wanted: whoever finds a socket that does not
// listen may take it for a stale one. Returns the descriptor, -EADDRINUSE when another one has the name, or -EOPNOTSUPP when it
// cannot be done this way.
//
// A process that is killed between the two leaves a name that nobody has. Later ones do not look for such: that would be reading
// a directory of any size on a loop, and a number whose process seems to be gone may be of another namespace of processes.
static int listen_aside(const char *path, struct netdev_file *file) {
  static unsigned number;
  char aside[NETDEV_UNIX_PATH + 1];
  int length = snprintf(aside, sizeof aside, "%s.%x-%x", path, (unsigned)getpid(),
                        __atomic_add_fetch(&number, 1, __ATOMIC_RELAXED));
  if (length < 0 || length >= (int)sizeof aside) return -EOPNOTSUPP;
  int descriptor = listen_as(aside, file);
  if (descriptor < 0) return -EOPNOTSUPP;
  int result = take_name(aside, path);
  if (result == 0) return descriptor;
  remove_own(aside, *file);
  netdev_close(descriptor);
  return result == -EADDRINUSE ? result : -EOPNOTSUPP;
}

int netdev_unix_listen(const char *path, struct netdev_file *file) {
  if (strlen(path) > NETDEV_UNIX_PATH) return -ENAMETOOLONG;
  int descriptor = listen_aside(path, file);
  if (descriptor != -EOPNOTSUPP) return descriptor;
  // A name for a moment is not to be had: there is no room for it, the file system knows no such renaming, or a profile permits
  // this name alone. There is a moment, then, when the socket does not listen yet. What is refused for another reason is refused
  // here too.
  descriptor = listen_as(path, file);
  if (descriptor != -EADDRINUSE || find_stale(path) < 0 || netdev_unlink(path) < 0) return descriptor;
  return listen_as(path, file);
}

int netdev_unix_accept(int listener) {
  return netdev_descriptor_above_stdio(NETDEV_CALL(accept4, listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

int netdev_unix_pair(int *ends) {
  if (NETDEV_CALL(socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0) return -errno;
  ends[0] = netdev_descriptor_above_stdio(ends[0]);
  ends[1] = netdev_descriptor_above_stdio(ends[1]);
  if (ends[0] >= 0 && ends[1] >= 0) return 0;
  int result = ends[0] < 0 ? ends[0] : ends[1];
  for (int end = 0; end < 2; end++) {
    if (ends[end] >= 0) netdev_close(ends[end]);
  }
  return result;
}

union control {
  struct cmsghdr header;
  char bytes[CMSG_SPACE(NETDEV_UNIX_DESCRIPTORS * sizeof(int))];
};

ssize_t netdev_unix_receive(int descriptor, void *bytes, size_t length, int *descriptors, int *count, bool *truncated) {
  union control control;
  struct iovec piece = {.iov_base = bytes, .iov_len = NETDEV_CUT(recvmsg, length)};
  struct msghdr message = {
      .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
  *count = 0;
  *truncated = false;
  ssize_t received;
  do {
    received = NETDEV_CALL(recvmsg, descriptor, &message, MSG_CMSG_CLOEXEC);
  } while (received < 0 && errno == EINTR);
  if (received < 0) return -errno;
  *truncated = (message.msg_flags & MSG_CTRUNC) != 0;
  for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    int there = (int)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    for (int index = 0; index < there; index++) {
      int received_descriptor;
      memcpy(&received_descriptor, CMSG_DATA(part) + (size_t)index * sizeof(int), sizeof(int));
      // The control buffer has room for no more than this.
      if (*count == NETDEV_UNIX_DESCRIPTORS) {
        netdev_close(received_descriptor);
        continue;
      }
      received_descriptor = netdev_descriptor_above_stdio(received_descriptor);
      if (received_descriptor < 0) {
        *truncated = true;
      } else {
        descriptors[(*count)++] = received_descriptor;
      }
    }
  }
  return received;
}

ssize_t netdev_unix_send(int descriptor, const void *bytes, size_t length, const int *descriptors, int count) {
  if (count < 0 || count > NETDEV_UNIX_DESCRIPTORS) return -EINVAL;
  union control control;
  struct iovec piece = {.iov_base = (void *)bytes, .iov_len = NETDEV_CUT(sendmsg, length)};
  struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
  if (count > 0) {
    memset(&control, 0, sizeof control);
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    memcpy(CMSG_DATA(part), descriptors, (size_t)count * sizeof(int));
  }
  ssize_t sent;
  do {
    sent = NETDEV_CALL(sendmsg, descriptor, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : sent;
}

static bool has_exited(int process_descriptor) {
  struct pollfd entry = {.fd = process_descriptor, .events = POLLIN};
  return NETDEV_CALL(poll, &entry, 1, 0) > 0;
}

int netdev_unix_peer_process(int descriptor, int32_t *process) {
  struct ucred credentials;
  socklen_t length = sizeof credentials;
  if (NETDEV_CALL(getsockopt, descriptor, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0) return -errno;
  *process = (int32_t)credentials.pid;
  int peer = -1;
  length = sizeof peer;
  // Linux 6.5 names the process itself, also one whose namespace of numbers is another: it is 0 here then. Before, its number
  // may have passed to another one meanwhile.
  if (NETDEV_CALL(getsockopt, descriptor, SOL_SOCKET, SO_PEERPIDFD, &peer, &length) < 0) {
    if (!netdev_error_is_refusal(errno)) return -errno;
    if (credentials.pid <= 0) return -ESRCH;
    peer = (int)NETDEV_CALL(syscall, SYS_pidfd_open, credentials.pid, 0);
    if (peer < 0) return -errno;
  }
  peer = netdev_descriptor_above_stdio(peer);
  if (peer < 0) return peer;
  if (has_exited(peer)) {
    netdev_close(peer);
    return -ESRCH;
  }
  return peer;
}

static uint64_t inode(int descriptor) {
  struct stat status;
  return NETDEV_CALL(fstat, descriptor, &status) < 0 ? 0 : (uint64_t)status.st_ino;
}

uint64_t netdev_process_identity(int process_descriptor) {
  // Since Linux 6.9 each process has an inode of its own; before, all of these descriptors shared one.
  int own = (int)NETDEV_CALL(syscall, SYS_pidfd_open, getpid(), 0);
  if (own < 0) return 0;
  uint64_t ours = inode(own);
  netdev_close(own);
  uint64_t identity = inode(process_descriptor);
  return identity == ours ? 0 : identity;
}

bool netdev_unix_has_path(const char *path, struct netdev_file file) {
  struct netdev_file found;
  mode_t mode;
  int result = identify(path, &found, &mode);
  // Where it cannot be asked, nothing is known against it.
  return result == 0 ? is_same(found, file) : result != -ENOENT;
}

void netdev_unix_close_listener(int listener, const char *path, struct netdev_file file) {
  // The open socket holds its file, so that no successor's file has the same number.
  remove_own(path, file);
  netdev_close(listener);
}
