#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "CSimulation.h"
#include "interposed.h"

#define SWIFT_CC __attribute__((swiftcall))

typedef SWIFT_CC void (*enqueue_original)(void *job);
typedef SWIFT_CC void (*enqueue_hook)(void *job, enqueue_original original);

static __thread const struct simulation_thread *thread_world;
// Where the next job goes that this thread hands to the pool.
static __thread void **captured;
// Set once, before the hook that reads it.
static simulation_stranger is_taken;

static void *look_up(void **known, void *from, const char *name) {
  void *function = __atomic_load_n(known, __ATOMIC_RELAXED);
  if (!function) {
    function = dlsym(from, name);
    __atomic_store_n(known, function, __ATOMIC_RELAXED);
  }
  return function;
}

void *interposed_look_up(void **known, const char *name) {
  void *function = __atomic_load_n(known, __ATOMIC_RELAXED);
  if (function) return function;
  // A sanitizer's own goes before the library's.
  char own[64];
  snprintf(own, sizeof own, "__interceptor_%s", name);
  function = look_up(known, RTLD_DEFAULT, own);
  return function ? function : look_up(known, RTLD_NEXT, name);
}

const struct simulation_thread *interposed_world(void) { return thread_world; }

void simulation_enter(const struct simulation_thread *world) {
  thread_world = world;
  if (!world) interposed_timers_end();
}

// --- The runtime

static SWIFT_CC void enqueue_global(void *job, enqueue_original original) {
  const struct simulation_thread *world = thread_world;
  if (captured && !*captured) {
    *captured = job;
    return;
  }
  if (world) return world->enqueue(world->context, job);
  if (is_taken(job)) return;
  original(job);
}

bool simulation_install(simulation_stranger stranger) {
  enqueue_hook *hook = dlsym(RTLD_DEFAULT, "swift_task_enqueueGlobal_hook");
  if (!hook) return false;
  interposed_find_runtime(hook);
  is_taken = stranger;
  *hook = enqueue_global;
  return true;
}

void simulation_capture(void **job) { captured = job; }

uint64_t simulation_task(void *job) {
  static void *known;
  SWIFT_CC uint64_t (*identity)(void *job) = look_up(&known, RTLD_DEFAULT, "swift_task_getJobTaskId");
  return identity ? identity(job) : 0;
}

void simulation_run(void *job) {
  // The pool's executor is the reference of two zero words.
  static void *known;
  SWIFT_CC void (*run)(void *job, uintptr_t identity, uintptr_t implementation) =
      look_up(&known, RTLD_DEFAULT, "swift_job_run");
  if (run) run(job, 0, 0);
}

// --- Outside

void simulation_thread_name(char *name) {
  if (pthread_getname_np(pthread_self(), name, 16) != 0) name[0] = 0;
}

void simulation_name_thread(const char *name) { pthread_setname_np(pthread_self(), name); }

int simulation_thread_number(void) { return (int)syscall(SYS_gettid); }

void simulation_pause(unsigned milliseconds) { usleep(milliseconds * 1000); }

bool simulation_is_ready(int descriptor, bool for_writing) {
  int simulated = simulated_is_ready(descriptor, for_writing);
  if (simulated >= 0) return simulated > 0;
  struct pollfd entry = {.fd = descriptor, .events = for_writing ? POLLOUT : POLLIN};
  return poll(&entry, 1, 0) > 0;
}
