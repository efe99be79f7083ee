// Accesses to shared memory, and what both formats have in common.
#ifndef SWIFT_NETDEV_TWIN_MEMORY_H
#define SWIFT_NETDEV_TWIN_MEMORY_H

#include "ring_twin.h"

#include <stdlib.h>
#include <string.h>

enum { NEXT = 1, WRITE = 2, INDIRECT = 4, AVAIL = 1 << 7, USED = 1 << 15, MARKS = AVAIL | USED };

static inline uint16_t load_acquire16(const void *p) { return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE); }
static inline uint16_t load16(const void *p) { return __atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED); }
static inline uint32_t load32(const void *p) { return __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED); }
static inline uint64_t load64(const void *p) { return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED); }
static inline void store_release16(void *p, uint16_t v) { __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE); }
static inline void store16(void *p, uint16_t v) { __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELAXED); }
static inline void store32(void *p, uint32_t v) { __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELAXED); }
static inline void store64(void *p, uint64_t v) { __atomic_store_n((uint64_t *)p, v, __ATOMIC_RELAXED); }

static inline uint32_t min32(uint32_t a, uint32_t b) { return a < b ? a : b; }

struct region {
  uint64_t address, length;
  uint8_t *host;
};

static inline void *translate(const struct region *region, uint64_t address, uint32_t length) {
  uint64_t offset = address - region->address;
  if (length > region->length || offset > region->length - length) return NULL;
  return region->host + offset;
}

struct shadow {
  uint64_t token;
  uint32_t writable;
  uint16_t next, count;
};

// What the driver gives and takes: buffers `stride` apart, a token each; used chains.
struct burst {
  uint64_t address, token;
  uint32_t stride, length;
  bool writable;
};

struct used {
  uint64_t token;
  uint32_t written;
};

// The private table of a driver: by id, and the free ids in a circle.
struct table {
  struct shadow *shadow;
  uint32_t *published;
  uint16_t *free_ids;
  uint32_t mask, taken, returned;
};

static inline void table_make(struct table *table, uint32_t size) {
  uint32_t places = 1;
  while (places < size) places *= 2;
  table->shadow = calloc(size, sizeof *table->shadow);
  table->published = calloc(size, sizeof *table->published);
  table->free_ids = calloc(places, sizeof *table->free_ids);
  for (uint32_t id = 0; id < size; id++) table->free_ids[id] = (uint16_t)id;
  table->mask = places - 1;
  table->taken = 0;
  table->returned = size;
}

static inline void table_free(struct table *table) {
  free(table->shadow);
  free(table->published);
  free(table->free_ids);
}

#endif
