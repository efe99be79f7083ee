// What the Swift runtime and the C library do for one thread, taken over by a simulated world.
//
// A program's own functions of Dispatch, its clocks and its system calls are the ones that its shared libraries call, too: on a
// world's thread they hand work to the world, read its clock and ask its kernel; on every other thread they are what they always were.
#ifndef CSIMULATION_H
#define CSIMULATION_H

#include <stdbool.h>
#include <stddef.h>
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
  // A function of Dispatch's that the program has called itself.
  void (*dispatch)(void *context, const char *function);
  // Nanoseconds of the world's clock.
  uint64_t (*now)(void *context);
};

// Asks about each job that another thread hands to the pool; true takes it from there.
typedef bool (*simulation_stranger)(void *job);

// Takes over the runtime's hook, once a process. False when this runtime has none.
bool simulation_install(simulation_stranger stranger);

// From here on the calling thread belongs to the world; NULL: to nobody. What is pointed to outlives that.
void simulation_enter(const struct simulation_thread *world);

// From here on the next job that the calling thread hands to the pool is put here instead; NULL: as everywhere.
void simulation_capture(void **job);

// A number that no other task of this process has, for the task that the job belongs to; 0 for a job without a task.
uint64_t simulation_task(void *job);

// Runs a job of the pool on this thread.
void simulation_run(void *job);

// The calling thread's name, into 16 bytes.
void simulation_thread_name(char *name);

// Gives the calling thread a name of 15 bytes at most.
void simulation_name_thread(const char *name);

// The calling thread's number in the system.
int simulation_thread_number(void);

// Lets real time pass.
void simulation_pause(unsigned milliseconds);

// Whether a descriptor can be read, or written, now.
bool simulation_is_ready(int descriptor, bool for_writing);

// The first descriptor from `from` on that the world's thread has opened and nobody has closed, and what it is; -1 when there is none.
int simulation_descriptor_left(int from, char *kind, size_t room);

// None is the world's any more.
void simulation_descriptors_forget(void);

// --- Who looks at a world from outside

// From here to the end, on the world's thread: where it traps, and when a step has lasted so many milliseconds of real time, a line
// on the standard error says so.
void simulation_watch_begin(uint64_t seed, unsigned milliseconds);

// A line on the standard error, of the world of this seed; from any thread.
void simulation_tell(uint64_t seed, const char *text);

// The step that is being made.
void simulation_watch_step(uint64_t step);

// The world itself waits, or goes on.
void simulation_watch_rest(bool rests);

void simulation_watch_end(void);

#endif
