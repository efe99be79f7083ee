#include "netdev_loop.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "netdev_descriptor.h"
#include "netdev_fault.h"

__thread void *netdev_thread_loop __attribute__((tls_model("initial-exec")));

static __thread void *thread_world;

void *netdev_current_world(void) { return thread_world; }

void netdev_set_current_world(void *world) { thread_world = world; }

int netdev_eventfd_create(void) {
  return netdev_descriptor_above_stdio(NETDEV_CALL(eventfd, 0, EFD_CLOEXEC | EFD_NONBLOCK));
}

int netdev_eventfd_signal(int descriptor) {
  const uint64_t one = 1;
  ssize_t length;
  NETDEV_PLACE();
  do {
    length = NETDEV_CALL(write, descriptor, &one, sizeof one);
  } while (length < 0 && errno == EINTR);
  return length < 0 && errno != EAGAIN ? -errno : 0;
}

uint64_t netdev_eventfd_drain(int descriptor) {
  uint64_t count = 0;
  const struct iovec piece = {.iov_base = &count, .iov_len = sizeof count};
  ssize_t length;
  do {
    length = NETDEV_CALL(preadv2, descriptor, &piece, 1, -1, RWF_NOWAIT);
    // Kernels before 5.8 know no such read of an eventfd, and a filter of system calls may know no such call, whatever it answers:
    // there the flag is trusted, once there is something to read. A counter that stays would keep the loop awake.
    if (length < 0 && errno != EAGAIN && errno != EINTR) {
      length = netdev_descriptor_is_ready(descriptor, false) ? NETDEV_CALL(read, descriptor, &count, sizeof count) : 0;
    }
  } while (length < 0 && errno == EINTR);
  return length == (ssize_t)sizeof count ? count : 0;
}

void netdev_eventfd_release(int descriptor) {
  int flags = NETDEV_CALL(fcntl, descriptor, F_GETFL);
  if (flags >= 0) (void)NETDEV_CALL(fcntl, descriptor, F_SETFL, flags | O_NONBLOCK);
  (void)netdev_eventfd_drain(descriptor);
}

int netdev_timerfd_create(void) {
  return netdev_descriptor_above_stdio(NETDEV_CALL(timerfd_create, CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
}

int netdev_timerfd_set(int descriptor, uint64_t deadline) {
  // A date beyond what the kernel's clock can show is never.
  if (deadline > INT64_MAX) deadline = INT64_MAX;
  const struct itimerspec setting = {
      .it_value = {.tv_sec = (time_t)(deadline / 1000000000u), .tv_nsec = (long)(deadline % 1000000000u)}};
  return NETDEV_CALL(timerfd_settime, descriptor, TFD_TIMER_ABSTIME, &setting, NULL) < 0 ? -errno : 0;
}

bool netdev_descriptor_is_ready(int descriptor, bool for_writing) {
  struct pollfd entry = {.fd = descriptor, .events = for_writing ? POLLOUT : POLLIN};
  return NETDEV_CALL(poll, &entry, 1, 0) > 0;
}

struct start {
  void (*body)(void *);
  void *argument;
  bool is_pinned;
};

// Whether the calling thread was started on one CPU.
static _Thread_local bool is_pinned;

static void *trampoline(void *argument) {
  struct start start = *(struct start *)argument;
  free(argument);
  is_pinned = start.is_pinned;
  start.body(start.argument);
  return NULL;
}

sigset_t netdev_block_signals(void) {
  // Signals belong to the program's own threads: a loop never becomes the one that handles SIGINT.
  sigset_t others, before;
  sigfillset(&others);
  // Those of a thread's own mistakes are its own: blocked, they would end the process before anybody could say where it was.
  static const int faults[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&others, faults[i]);
  pthread_sigmask(SIG_SETMASK, &others, &before);
  return before;
}

int netdev_thread_start(uint64_t *thread, const char *name, int cpu, void (*body)(void *), void *argument) {
  if (cpu >= CPU_SETSIZE) return -EINVAL;
  struct start *start = malloc(sizeof *start);
  if (!start) return -ENOMEM;
  start->body = body;
  start->argument = argument;
  start->is_pinned = cpu >= 0;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  int result = 0;
  if (cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    result = NETDEV_CALL_NUMBER(pthread_attr_setaffinity_np, &attributes, sizeof set, &set);
  }
  // A thread that a pinned one starts would share its CPU: it has those of the main thread. Nothing else is set where nobody asked
  // for it: the system may refuse that, and whoever changes the CPUs of the process later would not reach the thread.
  cpu_set_t wide;
  bool widens = cpu < 0 && is_pinned && NETDEV_CALL(sched_getaffinity, getpid(), sizeof wide, &wide) == 0;
  if (widens) widens = NETDEV_CALL_NUMBER(pthread_attr_setaffinity_np, &attributes, sizeof wide, &wide) == 0;
  sigset_t before = netdev_block_signals();
  pthread_t created;
  if (result == 0) result = NETDEV_CALL_NUMBER(pthread_create, &created, &attributes, trampoline, start);
  // Refused for its CPUs, perhaps: then it shares the pinned one's.
  if (result != 0 && widens) result = NETDEV_CALL_NUMBER(pthread_create, &created, NULL, trampoline, start);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  if (result != 0) {
    free(start);
    if (NETDEV_PLANTED("double-free")) free(start);
    return -result;
  }
  char kept[16];
  strncpy(kept, name, sizeof kept - 1);
  kept[sizeof kept - 1] = 0;
  pthread_setname_np(created, kept);
  *thread = (uint64_t)created;
  return 0;
}

int netdev_thread_join(uint64_t thread) { return -pthread_join((pthread_t)thread, NULL); }

int netdev_thread_detach(uint64_t thread) { return -pthread_detach((pthread_t)thread); }

static uint64_t read_clock(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t netdev_monotonic_nanoseconds(void) { return read_clock(CLOCK_MONOTONIC); }

uint64_t netdev_coarse_nanoseconds(void) { return read_clock(CLOCK_MONOTONIC_COARSE); }
