// Functions of the C library that this module takes the place of.
#ifndef INTERPOSED_H
#define INTERPOSED_H

#include "CSimulation.h"

// The calling thread's world; NULL outside of worlds.
const struct simulation_thread *interposed_world(void);

// Remembers the library that this address lies in: the one of the runtime's tasks.
void interposed_find_runtime(void *inside);

// Lets go of the timers of sleeps that nobody sleeps any more.
void interposed_timers_end(void);

// Descriptors below this number are remembered.
enum { INTERPOSED_MOST = 1 << 16 };

// A descriptor that the calling thread has opened, as it is returned: one of the world's, if that is its thread. And one that is
// closed, by any thread, or that nobody has to close.
int interposed_opened(int descriptor);
void interposed_closed(int descriptor);

struct msghdr;
// The descriptors that a message has brought.
void interposed_received(struct msghdr *message);

// The library's own function of this name, looked up once; several threads may do so at the same time, and find the same.
void *interposed_look_up(void **known, const char *name);

// Calls it.
#define ORIGINAL(name, ...)                                                    \
  ({                                                                           \
    static void *known_;                                                       \
    ((__typeof__(&name))interposed_look_up(&known_, #name))(__VA_ARGS__);      \
  })

#endif
