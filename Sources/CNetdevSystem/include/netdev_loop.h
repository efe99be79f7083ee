// Threads, eventfds and the loop a thread belongs to.
#ifndef SWIFT_NETDEV_LOOP_H
#define SWIFT_NETDEV_LOOP_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

// The loop whose thread is running, or NULL: an opaque identity, compared and never followed by C.
extern __thread void *netdev_thread_loop __attribute__((tls_model("initial-exec")));

static inline void *netdev_current_loop(void) { return netdev_thread_loop; }

// The same as a number, 0 for none: to be compared without asking first whether there is one.
static inline uintptr_t netdev_current_loop_identity(void) { return (uintptr_t)netdev_thread_loop; }

static inline void netdev_set_current_loop(void *loop) { netdev_thread_loop = loop; }

// Of Swift's runtime: exported, and what `Task.isCancelled` calls, which counts references besides.
void *swift_task_getCurrent(void) __attribute__((swiftcall));
bool swift_task_isCancelled(void *task) __attribute__((swiftcall));

// True when the task that is running has been cancelled; false outside of tasks.
static inline bool netdev_current_task_is_cancelled(void) {
  void *task = swift_task_getCurrent();
  return task != 0 && swift_task_isCancelled(task);
}

// Nothing, but Swift's optimizer cannot know that.
static inline void netdev_opaque(void) {}

// What makes the loops of this thread, or NULL where each has a thread of its own: an opaque pointer, never followed by C.
void *netdev_current_world(void);
void netdev_set_current_world(void *world);

// A new non-blocking close-on-exec eventfd at zero, or -errno.
int netdev_eventfd_create(void);

// Adds one; a full counter counts as signalled. Returns 0 or -errno. It waits when somebody else who holds the eventfd has
// cleared O_NONBLOCK and filled the counter.
int netdev_eventfd_signal(int descriptor);

// Reads the counter to zero and returns it; zero when there was nothing. It never waits, whatever O_NONBLOCK says.
uint64_t netdev_eventfd_drain(int descriptor);

// Lets out a thread that waits in netdev_eventfd_signal: sets O_NONBLOCK and reads the counter to zero.
void netdev_eventfd_release(int descriptor);

// Blocks on this thread what one that it starts shall not take: all signals but those of a thread's own mistakes. Returns what was
// blocked before.
sigset_t netdev_block_signals(void);

// Starts a joinable thread with these signals blocked, named (15 bytes are kept) and, when `cpu` is not negative, pinned
// to one CPU from its first instruction. Returns 0 or -errno.
int netdev_thread_start(uint64_t *thread, const char *name, int cpu, void (*body)(void *), void *argument);

// Waits for a thread to end. Returns 0 or -errno.
int netdev_thread_join(uint64_t thread);

// Lets a thread end without anybody waiting. Returns 0 or -errno.
int netdev_thread_detach(uint64_t thread);

// A new non-blocking close-on-exec timerfd of CLOCK_MONOTONIC, not set, or -errno.
int netdev_timerfd_create(void);

// Makes it readable from `deadline` on (nanoseconds of CLOCK_MONOTONIC; 0: never), and not before. Returns 0 or -errno.
int netdev_timerfd_set(int descriptor, uint64_t deadline);

// Whether a descriptor can be read, or written, or has failed, now.
bool netdev_descriptor_is_ready(int descriptor, bool for_writing);

// CLOCK_MONOTONIC in nanoseconds.
uint64_t netdev_monotonic_nanoseconds(void);

// The same clock at the resolution of the kernel's tick (1 to 10 ms): a few nanoseconds to read, for noticing stalls.
uint64_t netdev_coarse_nanoseconds(void);

#endif
