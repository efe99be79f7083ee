#include "netdev_descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "netdev_fault.h"

int netdev_descriptor_above_stdio(int descriptor) {
  if (descriptor < 0) return -errno;
  if (descriptor > STDERR_FILENO) return descriptor;
  int moved = NETDEV_CALL(fcntl, descriptor, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  netdev_close(descriptor);
  return moved < 0 ? -errno : moved;
}

static pthread_mutex_t reserving = PTHREAD_MUTEX_INITIALIZER;

int netdev_reserve_take(struct netdev_reserve *reserve, int wanted) {
  int held[16];
  int count = 0;
  int result = 0;
  if (wanted > (int)(sizeof held / sizeof *held)) return -EINVAL;
  reserve->count = 0;
  while (count < wanted && result == 0) {
    int descriptor = NETDEV_CALL(eventfd, 0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (descriptor < 0) {
      result = -errno;
    } else if (descriptor <= STDERR_FILENO) {
      reserve->parked[reserve->count++] = descriptor;
    } else {
      held[count++] = descriptor;
    }
  }
  while (count > 0) netdev_close(held[--count]);
  if (result < 0) netdev_reserve_give_back(reserve);
  return result;
}

void netdev_reserve_give_back(struct netdev_reserve *reserve) {
  while (reserve->count > 0) netdev_close(reserve->parked[--reserve->count]);
}

int netdev_reserve_begin(struct netdev_reserve *reserve, int wanted) {
  pthread_mutex_lock(&reserving);
  int result = netdev_reserve_take(reserve, wanted);
  if (result < 0) pthread_mutex_unlock(&reserving);
  return result;
}

void netdev_reserve_end(struct netdev_reserve *reserve) {
  netdev_reserve_give_back(reserve);
  pthread_mutex_unlock(&reserving);
}

int netdev_descriptors_free(int wanted) {
  struct rlimit limit;
  if (NETDEV_CALL(getrlimit, RLIMIT_NOFILE, &limit) < 0) return -errno;
  // From the top: the kernel gives out the lowest number, so that who has plenty is told at the first look.
  int top = limit.rlim_cur < INT_MAX ? (int)limit.rlim_cur : INT_MAX;
  int free = 0;
  while (free < wanted && top > STDERR_FILENO + 1) {
    struct pollfd entries[64];
    nfds_t count = 0;
    while (count < sizeof entries / sizeof *entries && top > STDERR_FILENO + 1) {
      entries[count++] = (struct pollfd){.fd = --top};
    }
    if (NETDEV_CALL(poll, entries, count, 0) < 0) return -errno;
    for (nfds_t index = 0; index < count; index++) free += (entries[index].revents & POLLNVAL) != 0;
  }
  return free < wanted ? free : wanted;
}

void netdev_close(int descriptor) {
  int error = errno;
  (void)NETDEV_CALL_DONE(close, descriptor);
  errno = error;
}

int netdev_unlink(const char *path) { return NETDEV_CALL(unlink, path) < 0 ? -errno : 0; }

bool netdev_error_is_refusal(int number) {
  switch (number) {
    case ENOSYS:
    case EPERM:
    case EACCES:
    case EOPNOTSUPP:
    case ENOPROTOOPT:
    case EAFNOSUPPORT:
      return true;
    default:
      return false;
  }
}

int32_t netdev_process_identifier(void) { return (int32_t)getpid(); }

const char *netdev_error_name(int number) { return strerrorname_np(number); }

const char *netdev_error_meaning(int number) { return strerrordesc_np(number); }
