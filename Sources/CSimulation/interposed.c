#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "CSimulation.h"
#include "interposed.h"

#define SWIFT_CC __attribute__((swiftcall))

typedef SWIFT_CC void (*enqueue_original)(void *job);
typedef SWIFT_CC void (*enqueue_hook)(void *job, enqueue_original original);
typedef void (*dispatch_function)(void *argument);

static __thread const struct simulation_thread *thread_world;
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

void simulation_enter(const struct simulation_thread *world) { thread_world = world; }

// --- The runtime

static SWIFT_CC void enqueue_global(void *job, enqueue_original original) {
  const struct simulation_thread *world = thread_world;
  if (world) return world->enqueue(world->context, job);
  if (is_taken(job)) return;
  original(job);
}

bool simulation_install(simulation_stranger stranger) {
  enqueue_hook *hook = dlsym(RTLD_DEFAULT, "swift_task_enqueueGlobal_hook");
  if (!hook) return false;
  is_taken = stranger;
  *hook = enqueue_global;
  return true;
}

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

// --- Dispatch

extern char _dispatch_main_q[] __attribute__((weak));

void dispatch_async_f(void *queue, void *argument, dispatch_function body) {
  static void *known;
  const struct simulation_thread *world = thread_world;
  if (world && queue != (void *)_dispatch_main_q) return world->after(world->context, 0, body, argument);
  if (world) world->main(world->context);
  void (*original)(void *queue, void *argument, dispatch_function body) =
      look_up(&known, RTLD_NEXT, "dispatch_async_f");
  original(queue, argument, body);
}

// A date of Dispatch: the monotonic clock's nanoseconds; with the highest bit the clock's that also runs while the machine is
// suspended; negative, with the two highest bits, the wall clock's.
static uint64_t date_of(uint64_t when, clockid_t *clock) {
  *clock = CLOCK_MONOTONIC;
  if (!(when >> 63)) return when;
  if (when >> 62 == 3) {
    *clock = CLOCK_REALTIME;
    return -when;
  }
  *clock = CLOCK_BOOTTIME;
  return when & ~(UINT64_C(1) << 63);
}

void dispatch_after_f(uint64_t when, void *queue, void *argument, dispatch_function body) {
  static void *known;
  const struct simulation_thread *world = thread_world;
  if (world) {
    clockid_t clock;
    uint64_t date = date_of(when, &clock);
    struct timespec time;
    clock_gettime(clock, &time);
    uint64_t now = (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
    return world->after(world->context, date > now ? date - now : 0, body, argument);
  }
  void (*original)(uint64_t when, void *queue, void *argument, dispatch_function body) =
      look_up(&known, RTLD_NEXT, "dispatch_after_f");
  original(when, queue, argument, body);
}

// --- The clock

// The beginning of the year 2024, when all worlds begin.
#define WORLD_EPOCH 1704067200u

int clock_gettime(clockid_t clock, struct timespec *time) {
  static void *known;
  const struct simulation_thread *world = thread_world;
  if (world && clock != CLOCK_PROCESS_CPUTIME_ID && clock != CLOCK_THREAD_CPUTIME_ID) {
    uint64_t now = world->now(world->context);
    time->tv_sec = (time_t)(now / 1000000000u) + (clock == CLOCK_REALTIME ? WORLD_EPOCH : 0);
    time->tv_nsec = (long)(now % 1000000000u);
    return 0;
  }
  int (*original)(clockid_t clock, struct timespec *time) = look_up(&known, RTLD_NEXT, "clock_gettime");
  return original ? original(clock, time) : (int)syscall(SYS_clock_gettime, clock, time);
}

// --- Outside

void simulation_thread_name(char *name) {
  if (pthread_getname_np(pthread_self(), name, 16) != 0) name[0] = 0;
}

void simulation_pause(unsigned milliseconds) { usleep(milliseconds * 1000); }

bool simulation_is_ready(int descriptor, bool for_writing) {
  int simulated = simulated_is_ready(descriptor, for_writing);
  if (simulated >= 0) return simulated > 0;
  struct pollfd entry = {.fd = descriptor, .events = for_writing ? POLLOUT : POLLIN};
  return poll(&entry, 1, 0) > 0;
}
