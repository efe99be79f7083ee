#include <stddef.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "CSimulation.h"
#include "interposed.h"

// The C library's clocks: on a world's thread they show the world's time. Those of a process' or a thread's work go on as they are.

// The beginning of the year 2024, when all worlds begin.
#define WORLD_EPOCH 1704067200u

enum shown { MACHINE, SINCE_BEGINNING, DATE };

static enum shown shown_by(clockid_t clock) {
  switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
    case CLOCK_REALTIME_ALARM:
    case CLOCK_TAI:
      return DATE;
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_BOOTTIME:
    case CLOCK_BOOTTIME_ALARM:
      return SINCE_BEGINNING;
    default:
      return MACHINE;
  }
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  static void *known;
  const struct simulation_thread *world = interposed_world();
  enum shown shown = world ? shown_by(clock) : MACHINE;
  if (shown != MACHINE) {
    uint64_t now = world->now(world->context);
    time->tv_sec = (time_t)(now / 1000000000u) + (shown == DATE ? WORLD_EPOCH : 0);
    time->tv_nsec = (long)(now % 1000000000u);
    return 0;
  }
  int (*original)(clockid_t clock, struct timespec *time) = interposed_look_up(&known, "clock_gettime");
  return original ? original(clock, time) : (int)syscall(SYS_clock_gettime, clock, time);
}

time_t time(time_t *place) {
  struct timespec now;
  clock_gettime(interposed_world() ? CLOCK_REALTIME : CLOCK_REALTIME_COARSE, &now);
  if (place) *place = now.tv_sec;
  return now.tv_sec;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  if (!interposed_world()) return ORIGINAL(gettimeofday, time, zone);
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  *time = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
  if (zone) *(struct timezone *)zone = (struct timezone){0};
  return 0;
}

int timespec_get(struct timespec *time, int base) {
  if (interposed_world() && base == TIME_UTC) return clock_gettime(CLOCK_REALTIME, time) == 0 ? base : 0;
  return ORIGINAL(timespec_get, time, base);
}
