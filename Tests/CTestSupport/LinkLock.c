#include "CTestSupport.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

// The tunnel driver copies the size of a send buffer from the caller's memory under the lock: a page that a handler of this
// process is slow to fill keeps it.
struct link_lock {
  int faults, tunnel, milliseconds;
  void *page;
};

// Positive until it is known whether the lock is held, then 0 or -errno; and whether it is held now.
static int outcome, is_held;

static void *set_send_buffer(void *argument) {
  struct link_lock *lock = argument;
  // A signal would end the wait for the page, and with it the call that has the lock.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, NULL);
  (void)ioctl(lock->tunnel, TUNSETSNDBUF, lock->page);
  return NULL;
}

static int give_up_lock(struct link_lock *lock, int result) {
  if (lock->tunnel >= 0) close(lock->tunnel);
  if (lock->faults >= 0) close(lock->faults);
  if (lock->page != MAP_FAILED) munmap(lock->page, 4096);
  free(lock);
  return result;
}

static void *hold_and_release(void *argument) {
  struct link_lock *lock = argument;
  pthread_t caller;
  int error = pthread_create(&caller, NULL, set_send_buffer, lock);
  // It is in the call when the page is asked for.
  struct pollfd entry = {.fd = lock->faults, .events = POLLIN};
  while (error == 0 && poll(&entry, 1, -1) < 0) {
  }
  __atomic_store_n(&is_held, error == 0, __ATOMIC_RELEASE);
  __atomic_store_n(&outcome, -error, __ATOMIC_RELEASE);
  if (error == 0) usleep((useconds_t)lock->milliseconds * 1000);
  static const struct {
    int size;
    char rest[4096 - sizeof(int)];
  } filling __attribute__((aligned(4096))) = {.size = 1 << 20};
  struct uffdio_copy copy = {.dst = (uintptr_t)lock->page, .src = (uintptr_t)&filling, .len = 4096};
  __atomic_store_n(&is_held, 0, __ATOMIC_RELEASE);
  // Without its handler the page is an ordinary one.
  if (ioctl(lock->faults, UFFDIO_COPY, &copy) < 0) {
    close(lock->faults);
    lock->faults = -1;
  }
  if (error == 0) pthread_join(caller, NULL);
  give_up_lock(lock, 0);
  return NULL;
}

int test_hold_link_lock(int milliseconds) {
  struct link_lock *lock = malloc(sizeof *lock);
  if (!lock) return -ENOMEM;
  *lock = (struct link_lock){.tunnel = -1, .milliseconds = milliseconds};
  lock->page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  lock->faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
  if (lock->faults < 0 || lock->page == MAP_FAILED) return give_up_lock(lock, -errno);
  struct uffdio_api version = {.api = UFFD_API};
  struct uffdio_register range = {
      .range = {.start = (uintptr_t)lock->page, .len = 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  if (ioctl(lock->faults, UFFDIO_API, &version) < 0 || ioctl(lock->faults, UFFDIO_REGISTER, &range) < 0)
    return give_up_lock(lock, -errno);
  struct ifreq request;
  memset(&request, 0, sizeof request);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  lock->tunnel = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (lock->tunnel < 0 || ioctl(lock->tunnel, TUNSETIFF, &request) < 0) return give_up_lock(lock, -errno);
  __atomic_store_n(&outcome, 1, __ATOMIC_RELEASE);
  pthread_t holder;
  int error = pthread_create(&holder, NULL, hold_and_release, lock);
  if (error != 0) return give_up_lock(lock, -error);
  pthread_detach(holder);
  int result;
  while ((result = __atomic_load_n(&outcome, __ATOMIC_ACQUIRE)) > 0) usleep(100);
  return result;
}

bool test_can_hold_link_lock(void) {
  const char *ci = getenv("CI");
  return (ci && strcmp(ci, "true") == 0) || test_hold_link_lock(1) == 0;
}

int test_link_lock_is_held(void) { return __atomic_load_n(&is_held, __ATOMIC_ACQUIRE); }

int test_tell_netlink(int descriptor) {
  struct sockaddr_nl address;
  socklen_t length = sizeof address;
  if (getsockname(descriptor, (struct sockaddr *)&address, &length) < 0) return -errno;
  int sender = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (sender < 0) return -errno;
  struct nlmsghdr message = {.nlmsg_len = sizeof message, .nlmsg_type = NLMSG_NOOP};
  address.nl_groups = 0;
  int result =
      sendto(sender, &message, sizeof message, 0, (struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
  close(sender);
  return result;
}
