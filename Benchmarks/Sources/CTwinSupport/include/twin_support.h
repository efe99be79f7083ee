// What the twins in C need of the system to measure, and what is measured against them: the time, CPUs, a network.
#ifndef SWIFT_NETDEV_TWIN_SUPPORT_H
#define SWIFT_NETDEV_TWIN_SUPPORT_H

#include <sched.h>
#include <stdint.h>

// The monotonic clock, in nanoseconds.
uint64_t twin_now(void);

// Takes the calling thread, and those it makes from now on, to a network namespace of their own. Returns 0 or -errno.
int twin_new_network(void);

// The CPUs that this thread may run on, up to `capacity`. Returns how many there are, or -errno.
int twin_allowed_cpus(int *cpus, int capacity);

// Keeps the calling thread on one CPU, until twin_unpin with what it was allowed before.
cpu_set_t twin_pin(int cpu);
void twin_unpin(cpu_set_t before);

// Waits until there is something to read. Returns 0, also when a signal came first, -ETIMEDOUT, or -errno.
int twin_wait_readable(int descriptor, int milliseconds);

#endif
