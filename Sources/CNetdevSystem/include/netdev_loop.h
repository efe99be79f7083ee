// Threads, eventfds and the loop a thread belongs to.
#ifndef SWIFT_NETDEV_LOOP_H
#define SWIFT_NETDEV_LOOP_H

#include <stdbool.h>
#include <stdint.h>

// The loop whose thread is running, or NULL: an opaque identity, compared and never followed by C.
extern __thread void *netdev_thread_loop __attribute__((tls_model("initial-exec")));

static inline void *netdev_current_loop(void) { return netdev_thread_loop; }

static inline void netdev_set_current_loop(void *loop) { netdev_thread_loop = loop; }

// A new non-blocking close-on-exec eventfd at zero, or -errno.
int netdev_eventfd_create(void);

// Adds one; a full counter counts as signalled. Returns 0 or -errno.
int netdev_eventfd_signal(int descriptor);

// Reads the counter to zero and returns it; zero when there was nothing.
uint64_t netdev_eventfd_drain(int descriptor);

// Pins the calling thread to one CPU. Returns 0 or -errno.
int netdev_pin_current_thread(int cpu);

// Names the calling thread (15 bytes are kept).
void netdev_name_current_thread(const char *name);

// Starts a joinable thread with all signals blocked. Returns 0 or -errno.
int netdev_thread_start(uint64_t *thread, void (*body)(void *), void *argument);

// Waits for a thread to end. Returns 0 or -errno.
int netdev_thread_join(uint64_t thread);

// CLOCK_MONOTONIC in nanoseconds.
uint64_t netdev_monotonic_nanoseconds(void);

#endif
