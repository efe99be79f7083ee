#include "twin_support.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

uint64_t twin_now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

int twin_new_network(void) { return unshare(CLONE_NEWNET) < 0 ? -errno : 0; }

int twin_allowed_cpus(int *cpus, int capacity) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) < 0) return -errno;
  int count = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
    if (CPU_ISSET(cpu, &set)) {
      if (count < capacity) cpus[count] = cpu;
      count++;
    }
  return count;
}

cpu_set_t twin_pin(int cpu) {
  cpu_set_t set, before;
  CPU_ZERO(&set);
  CPU_SET((size_t)cpu, &set);
  sched_getaffinity(0, sizeof before, &before);
  sched_setaffinity(0, sizeof set, &set);
  return before;
}

void twin_unpin(cpu_set_t before) { sched_setaffinity(0, sizeof before, &before); }

int twin_wait_readable(int descriptor, int milliseconds) {
  struct pollfd entry = {.fd = descriptor, .events = POLLIN};
  int ready = poll(&entry, 1, milliseconds);
  return ready > 0 || (ready < 0 && errno == EINTR) ? 0 : ready == 0 ? -ETIMEDOUT : -errno;
}
