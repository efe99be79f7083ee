// Counts the allocations of a whole process, by standing in front of the C library's own functions.
#ifndef SWIFT_NETDEV_ALLOCATION_COUNTER_H
#define SWIFT_NETDEV_ALLOCATION_COUNTER_H

#include <stdint.h>

// Blocks handed out since the process began: malloc, calloc, realloc, posix_memalign and aligned_alloc, each once.
uint64_t netdev_allocation_count(void);

// Blocks given back: every free of a block that is not null.
uint64_t netdev_free_count(void);

#endif
