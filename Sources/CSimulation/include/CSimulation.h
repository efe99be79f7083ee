// What the Swift runtime and the C library do for one thread, taken over by a simulated world.
//
// A program's own `dispatch_async_f`, `dispatch_after_f` and `clock_gettime` are the ones that its shared libraries call, too:
// on a world's thread they hand work to the world and read its clock; on every other thread they are what they always were.
#ifndef CSIMULATION_H
#define CSIMULATION_H

#include <stdbool.h>
#include <stdint.h>

#include "simulated_kernel.h"

// A world, as its thread knows it. Called on that thread only.
struct simulation_thread {
  void *context;
  // A job for the runtime's pool of threads.
  void (*enqueue)(void *context, void *job);
  // Work that was handed to Dispatch, after so many nanoseconds.
  void (*after)(void *context, uint64_t delay, void (*body)(void *), void *argument);
  // Work for the main thread, which is outside of every world.
  void (*main)(void *context);
  // Nanoseconds of the world's clock.
  uint64_t (*now)(void *context);
};

// Asks about each job that another thread hands to the pool; true takes it from there.
typedef bool (*simulation_stranger)(void *job);

// Takes over the runtime's hook, once a process. False when this runtime has none.
bool simulation_install(simulation_stranger stranger);

// From here on the calling thread belongs to the world; NULL: to nobody. What is pointed to outlives that.
void simulation_enter(const struct simulation_thread *world);

// A number that no other task of this process has, for the task that the job belongs to; 0 for a job without a task.
uint64_t simulation_task(void *job);

// Runs a job of the pool on this thread.
void simulation_run(void *job);

// The calling thread's name, into 16 bytes.
void simulation_thread_name(char *name);

// Lets real time pass.
void simulation_pause(unsigned milliseconds);

// Whether a descriptor can be read, or written, now.
bool simulation_is_ready(int descriptor, bool for_writing);

#endif
