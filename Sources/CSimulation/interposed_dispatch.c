#include <dlfcn.h>
#include <link.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include "CSimulation.h"
#include "interposed.h"

// Dispatch, on a world's thread: what the Swift runtime asks of it is the world's to do; what a program asks of it is done as
// everywhere, on other threads, and the world is told.

typedef void (*dispatch_function)(void *argument);

extern char _dispatch_main_q[] __attribute__((weak));
extern char _dispatch_source_type_timer[] __attribute__((weak));

// Where the library of the runtime's tasks lies.
static uintptr_t runtime_begin, runtime_end;

static int find_runtime(struct dl_phdr_info *info, size_t size, void *inside) {
  (void)size;
  uintptr_t begin = UINTPTR_MAX, end = 0;
  bool is_it = false;
  for (int index = 0; index < info->dlpi_phnum; index++) {
    if (info->dlpi_phdr[index].p_type != PT_LOAD) continue;
    uintptr_t from = info->dlpi_addr + info->dlpi_phdr[index].p_vaddr, to = from + info->dlpi_phdr[index].p_memsz;
    if (from < begin) begin = from;
    if (to > end) end = to;
    if ((uintptr_t)inside >= from && (uintptr_t)inside < to) is_it = true;
  }
  if (!is_it) return 0;
  runtime_begin = begin;
  runtime_end = end;
  return 1;
}

void interposed_find_runtime(void *inside) { dl_iterate_phdr(find_runtime, inside); }

static bool is_runtime(const void *address) {
  return (uintptr_t)address >= runtime_begin && (uintptr_t)address < runtime_end;
}

// --- Sleeps, and jobs for a queue

// Dispatch calls functions of its own where a program has called one.
static __thread bool is_told;

static void tell(const struct simulation_thread *world, const char *function) {
  if (!is_told) world->dispatch(world->context, function);
}

void dispatch_async_f(void *queue, void *argument, dispatch_function body) {
  const struct simulation_thread *world = interposed_world();
  if (world && is_runtime((const void *)body)) {
    if (queue != (void *)_dispatch_main_q) return world->after(world->context, 0, body, argument);
    world->main(world->context);
  } else if (world) {
    tell(world, "dispatch_async_f");
  }
  ORIGINAL(dispatch_async_f, queue, argument, body);
}

// How long it is until a date of Dispatch's: the monotonic clock's nanoseconds; with the highest bit the clock's that also runs while
// the machine is suspended; negative, with the two highest bits, the wall clock's; all bits: never.
static uint64_t time_until(uint64_t when) {
  if (when == UINT64_MAX) return UINT64_MAX;
  clockid_t clock = CLOCK_MONOTONIC;
  if (when >> 62 == 3) {
    clock = CLOCK_REALTIME;
    when = -when;
  } else if (when >> 63) {
    clock = CLOCK_BOOTTIME;
    when &= ~(UINT64_C(1) << 63);
  }
  struct timespec time;
  clock_gettime(clock, &time);
  uint64_t now = (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
  return when > now ? when - now : 0;
}

void dispatch_after_f(uint64_t when, void *queue, void *argument, dispatch_function body) {
  const struct simulation_thread *world = interposed_world();
  if (world && is_runtime((const void *)body)) return world->after(world->context, time_until(when), body, argument);
  if (world) tell(world, "dispatch_after_f");
  ORIGINAL(dispatch_after_f, when, queue, argument, body);
}

// --- A sleep with a tolerance is a timer of Dispatch's: the runtime makes it, sets it, and releases it when it has fired.

struct timer {
  struct timer *next;
  uint64_t when;
  void *context;
  dispatch_function handler;
};

static __thread struct timer *timers;

static struct timer *timer_of(void *object) {
  struct timer *timer = timers;
  while (timer && timer != object) timer = timer->next;
  return timer;
}

static void drop(struct timer *timer) {
  struct timer **place = &timers;
  while (*place != timer) place = &(*place)->next;
  *place = timer->next;
  free(timer);
}

void interposed_timers_end(void) {
  while (timers) drop(timers);
}

void *dispatch_source_create(const void *type, uintptr_t handle, uintptr_t mask, void *queue) {
  const struct simulation_thread *world = interposed_world();
  if (world && type == _dispatch_source_type_timer && is_runtime(__builtin_return_address(0))) {
    struct timer *timer = calloc(1, sizeof *timer);
    if (timer) {
      timer->next = timers;
      timers = timer;
      return timer;
    }
  }
  if (world) tell(world, "dispatch_source_create");
  return ORIGINAL(dispatch_source_create, type, handle, mask, queue);
}

void dispatch_source_set_timer(void *source, uint64_t when, uint64_t interval, uint64_t leeway) {
  struct timer *timer = timer_of(source);
  if (!timer) return ORIGINAL(dispatch_source_set_timer, source, when, interval, leeway);
  timer->when = when;
}

void dispatch_set_context(void *object, void *context) {
  struct timer *timer = timer_of(object);
  if (!timer) return ORIGINAL(dispatch_set_context, object, context);
  timer->context = context;
}

void dispatch_source_set_event_handler_f(void *source, dispatch_function handler) {
  struct timer *timer = timer_of(source);
  if (!timer) return ORIGINAL(dispatch_source_set_event_handler_f, source, handler);
  timer->handler = handler;
}

void dispatch_activate(void *object) {
  const struct simulation_thread *world = interposed_world();
  struct timer *timer = timer_of(object);
  if (!timer || !world) return ORIGINAL(dispatch_activate, object);
  world->after(world->context, time_until(timer->when), timer->handler, timer->context);
}

void dispatch_release(void *object) {
  struct timer *timer = timer_of(object);
  if (!timer) return ORIGINAL(dispatch_release, object);
  drop(timer);
}

// --- What only a program asks for

#define TOLD(name, parameters, ...)                                            \
  void name parameters {                                                       \
    const struct simulation_thread *world = interposed_world();                \
    bool was_told = is_told;                                                   \
    if (world) tell(world, #name);                                             \
    if (world) is_told = true;                                                 \
    ORIGINAL(name, __VA_ARGS__);                                               \
    is_told = was_told;                                                        \
  }

TOLD(dispatch_async, (void *queue, void *block), queue, block)
TOLD(dispatch_barrier_async, (void *queue, void *block), queue, block)
TOLD(dispatch_barrier_async_f, (void *queue, void *argument, dispatch_function body), queue, argument, body)
TOLD(dispatch_after, (uint64_t when, void *queue, void *block), when, queue, block)
TOLD(dispatch_group_async, (void *group, void *queue, void *block), group, queue, block)
TOLD(dispatch_group_async_f, (void *group, void *queue, void *argument, dispatch_function body), group, queue, argument, body)
TOLD(dispatch_group_notify, (void *group, void *queue, void *block), group, queue, block)
TOLD(dispatch_group_notify_f, (void *group, void *queue, void *argument, dispatch_function body), group, queue, argument, body)
TOLD(dispatch_block_notify, (void *block, void *queue, void *notification), block, queue, notification)
TOLD(dispatch_apply, (size_t count, void *queue, void *block), count, queue, block)
TOLD(dispatch_apply_f, (size_t count, void *queue, void *argument, void (*body)(void *, size_t)), count, queue, argument, body)
TOLD(dispatch_read, (int descriptor, size_t length, void *queue, void *handler), descriptor, length, queue, handler)
TOLD(dispatch_write, (int descriptor, void *data, void *queue, void *handler), descriptor, data, queue, handler)
TOLD(dispatch_io_read, (void *io, int64_t offset, size_t length, void *queue, void *handler), io, offset, length, queue, handler)
TOLD(dispatch_io_write, (void *io, int64_t offset, void *data, void *queue, void *handler), io, offset, data, queue, handler)
