#include "ring_twin.h"

#include <stdlib.h>
#include <string.h>

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

static inline uint16_t load_acquire16(const void *p) { return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE); }
static inline uint16_t load16(const void *p) { return __atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED); }
static inline uint32_t load32(const void *p) { return __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED); }
static inline uint64_t load64(const void *p) { return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED); }
static inline void store_release16(void *p, uint16_t v) { __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE); }
static inline void store16(void *p, uint16_t v) { __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELAXED); }
static inline void store32(void *p, uint32_t v) { __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELAXED); }
static inline void store64(void *p, uint64_t v) { __atomic_store_n((uint64_t *)p, v, __ATOMIC_RELAXED); }

static inline bool passed(uint16_t event, uint16_t old, uint16_t new) {
  return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

static size_t used_offset(uint32_t size) { return (16 * (size_t)size + 6 + 2 * (size_t)size + 63) & ~(size_t)63; }

// Driver.

void twin_driver_init(struct twin_driver *ring, void *block, uint32_t size, uint16_t start, bool event_index) {
  memset(ring, 0, sizeof *ring);
  memset(block, 0, used_offset(size) + 6 + 8 * (size_t)size);
  ring->descriptors = block;
  ring->avail = ring->descriptors + 16 * (size_t)size + 4;
  ring->used = ring->descriptors + used_offset(size) + 4;
  ring->shadow = calloc(size, sizeof *ring->shadow);
  ring->free_ids = calloc(size, sizeof *ring->free_ids);
  for (uint32_t id = 0; id < size; id++) ring->free_ids[id] = (uint16_t)id;
  ring->mask = size - 1;
  ring->event_index = event_index;
  ring->avail_index = ring->published = ring->kick_checked = ring->used_index = start;
  ring->returned = size;
  ring->kick_unconditionally = true;
  store_release16(ring->avail - 2, start);
  store_release16(ring->used - 2, start);
}

void twin_driver_destroy(struct twin_driver *ring) {
  free(ring->shadow);
  free(ring->free_ids);
}

static inline void fail(struct twin_driver *ring, enum twin_error error) {
  if (ring->failure) return;
  ring->failure = error;
  ring->taken = ring->returned;
}

static inline void put_descriptor(uint8_t *place, uint64_t address, uint32_t length, uint16_t flags, uint16_t next) {
  store64(place, address);
  store64(place + 8, (uint64_t)length | (uint64_t)flags << 32 | (uint64_t)next << 48);
}

inline bool twin_driver_add(struct twin_driver *ring, uint64_t address, uint32_t length, bool writable, uint64_t token) {
  if (ring->returned == ring->taken) return false;
  uint16_t head = ring->free_ids[ring->taken++ & ring->mask];
  put_descriptor(ring->descriptors + 16 * (size_t)head, address, length, writable ? WRITE : 0, 0);
  ring->shadow[head] = (struct twin_shadow){token, writable ? length : 0, 0, 1};
  store16(ring->avail + 2 * (size_t)(ring->avail_index & ring->mask), head);
  ring->avail_index++;
  return true;
}

// The same for a burst, with the indices in locals.
static inline size_t add_burst(struct twin_driver *ring, size_t count, bool writable, uint64_t address, uint32_t stride,
                               uint32_t length, uint64_t token) {
  size_t room = ring->returned - ring->taken;
  if (count > room) count = room;
  uint8_t *descriptors = ring->descriptors, *avail = ring->avail;
  struct twin_shadow *shadow = ring->shadow;
  uint16_t *free_ids = ring->free_ids;
  uint32_t mask = ring->mask, taken = ring->taken, index = ring->avail_index;
  for (size_t i = 0; i < count; i++) {
    uint16_t head = free_ids[taken++ & mask];
    put_descriptor(descriptors + 16 * (size_t)head, address + i * stride, length, writable ? WRITE : 0, 0);
    shadow[head] = (struct twin_shadow){token + i, writable ? length : 0, 0, 1};
    store16(avail + 2 * (size_t)(index++ & mask), head);
  }
  ring->taken = taken;
  ring->avail_index = index;
  return count;
}

bool twin_driver_add_chain(struct twin_driver *ring, const struct twin_buffer *buffers, size_t readable,
                           size_t writable, uint64_t token) {
  size_t total = readable + writable;
  if (total == 0 || (uint32_t)(ring->returned - ring->taken) < total) return false;
  uint16_t head = ring->free_ids[ring->taken++ & ring->mask];
  uint16_t id = head;
  uint32_t bytes = 0;
  for (size_t i = 0; i < total; i++) {
    bool last = i == total - 1;
    uint16_t next = last ? 0 : ring->free_ids[ring->taken++ & ring->mask];
    uint16_t flags = (uint16_t)((i >= readable ? WRITE : 0) | (last ? 0 : NEXT));
    if (i >= readable) bytes += buffers[i].length;
    put_descriptor(ring->descriptors + 16 * (size_t)id, buffers[i].address, buffers[i].length, flags, next);
    ring->shadow[id] = (struct twin_shadow){0, 0, next, 0};
    id = next;
  }
  ring->shadow[head].token = token;
  ring->shadow[head].writable = bytes;
  ring->shadow[head].count = (uint16_t)total;
  store16(ring->avail + 2 * (size_t)(ring->avail_index & ring->mask), head);
  ring->avail_index++;
  return true;
}

inline void twin_driver_publish(struct twin_driver *ring) {
  if (ring->avail_index == ring->published) return;
  ring->published = ring->avail_index;
  store_release16(ring->avail - 2, (uint16_t)ring->published);
}

inline bool twin_driver_needs_kick(struct twin_driver *ring) {
  uint32_t old = ring->kick_checked, new = ring->published;
  if (new == old || ring->failure) return false;
  ring->kick_checked = new;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (ring->kick_unconditionally) {
    ring->kick_unconditionally = false;
    return true;
  }
  if (!ring->event_index) return (load16(ring->used - 4) & 1) == 0;
  if (new - old >= 65535) return true;
  return passed(load16(ring->used + 8 * ((size_t)ring->mask + 1)), (uint16_t)old, (uint16_t)new);
}

inline bool twin_driver_arm(struct twin_driver *ring, uint32_t after) {
  if (ring->failure) return false;
  uint32_t flying = ring->published - ring->used_index;
  uint32_t wanted = after < flying ? after : flying;
  if (wanted < 1) wanted = 1;
  if (ring->event_index)
    store16(ring->avail + 2 * ((size_t)ring->mask + 1), (uint16_t)(ring->used_index + wanted - 1));
  else
    store16(ring->avail - 4, 0);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  uint16_t pending = (uint16_t)(load_acquire16(ring->used - 2) - (uint16_t)ring->used_index);
  return pending >= (ring->event_index ? wanted : 1);
}

// Chains of one buffer up to the index `end`, as long as they come and nothing is wrong.
static inline size_t reap_singles(struct twin_driver *ring, struct twin_used *output, uint32_t end) {
  const uint8_t *used = ring->used;
  struct twin_shadow *shadow = ring->shadow;
  uint16_t *free_ids = ring->free_ids;
  uint32_t mask = ring->mask, returned = ring->returned, index = ring->used_index;
  struct twin_used *place = output;
  while (index != end) {
    const uint8_t *element = used + 8 * (size_t)(index & mask);
    uint32_t id = load32(element), written = load32(element + 4);
    if (id > mask) break;
    struct twin_shadow *entry = shadow + id;
    if (entry->count != 1) break;
    if (written > entry->writable) break;
    entry->count = 0;
    place->token = entry->token;
    place->written = written;
    place++;
    free_ids[returned++ & mask] = (uint16_t)id;
    index++;
  }
  ring->returned = returned;
  ring->used_index = index;
  return (size_t)(place - output);
}

// One chain of any length; false when something is wrong, and the ring is then broken.
static __attribute__((noinline)) bool reap_one(struct twin_driver *ring, struct twin_used *output) {
  const uint8_t *element = ring->used + 8 * (size_t)(ring->used_index & ring->mask);
  uint32_t id = load32(element), written = load32(element + 4);
  enum twin_error error = TWIN_OK;
  if (id > ring->mask)
    error = TWIN_USED_ID_OUT_OF_RANGE;
  else if (ring->shadow[id].count == 0)
    error = TWIN_USED_ID_NOT_OUTSTANDING;
  else if (written > ring->shadow[id].writable)
    error = TWIN_USED_LENGTH_TOO_LONG;
  if (error) {
    fail(ring, error);
    return false;
  }
  struct twin_shadow *entry = ring->shadow + id;
  uint16_t rest = (uint16_t)id;
  for (uint16_t i = 0; i < entry->count; i++) {
    ring->free_ids[ring->returned++ & ring->mask] = rest;
    rest = ring->shadow[rest].next;
  }
  entry->count = 0;
  *output = (struct twin_used){entry->token, written};
  ring->used_index++;
  return true;
}

inline size_t twin_driver_reap(struct twin_driver *ring, struct twin_used *output, size_t max) {
  uint16_t advance = (uint16_t)(load_acquire16(ring->used - 2) - (uint16_t)ring->used_index);
  if (ring->failure) return 0;
  if (advance > ring->published - ring->used_index) {
    fail(ring, TWIN_USED_INDEX_JUMP);
    return 0;
  }
  uint32_t end = ring->used_index + (advance < max ? advance : (uint32_t)max);
  size_t done = 0;
  while (ring->used_index != end) {
    done += reap_singles(ring, output + done, end);
    if (ring->used_index == end || !reap_one(ring, output + done)) break;
    done++;
  }
  return done;
}

// Device.

void twin_device_init(struct twin_device *ring, void *block, uint32_t size, uint16_t start, bool event_index) {
  memset(ring, 0, sizeof *ring);
  ring->descriptors = block;
  ring->avail = ring->descriptors + 16 * (size_t)size + 4;
  ring->used = ring->descriptors + used_offset(size) + 4;
  ring->segment_capacity = size;
  ring->segments = calloc(size, sizeof *ring->segments);
  ring->mask = size - 1;
  ring->event_index = event_index;
  ring->avail_index = ring->avail_seen = ring->used_index = ring->published = ring->call_checked = start;
  ring->call_unconditionally = true;
}

void twin_device_destroy(struct twin_device *ring) { free(ring->segments); }

static inline void *translate(const struct twin_region *region, uint64_t address, uint32_t length, bool write) {
  uint64_t offset = address - region->address;
  uint64_t remaining = offset < region->length ? region->length - offset : 0;
  if ((uint64_t)length - 1 < remaining && (!write || region->writable)) return region->host + offset;
  return NULL;
}

inline void twin_device_push_used(struct twin_device *ring, uint16_t head, uint32_t written) {
  uint8_t *element = ring->used + 8 * (size_t)(ring->used_index & ring->mask);
  store32(element, head);
  store32(element + 4, written);
  ring->used_index++;
}

// Follows a chain of several descriptors; a malformed one is returned with length 0.
static __attribute__((noinline)) enum twin_error walk(struct twin_device *ring, const struct twin_region *memory,
                                                      uint16_t head, uint64_t address, uint64_t word,
                                                      struct twin_chain *chain, bool *no_room) {
  size_t readable = 0, writable = 0;
  struct twin_segment *start = ring->segments + ring->segment_count;
  enum twin_error error = TWIN_OK;
  for (;;) {
    uint16_t flags = (uint16_t)(word >> 32);
    uint32_t length = (uint32_t)word;
    bool write = (flags & WRITE) != 0;
    if (flags & INDIRECT) {
      error = TWIN_INDIRECT_NOT_NEGOTIATED;
      break;
    }
    if (readable + writable > ring->mask) {
      error = TWIN_CHAIN_LOOP;
      break;
    }
    if (!write && writable) {
      error = TWIN_READABLE_AFTER_WRITABLE;
      break;
    }
    void *base = translate(memory, address, length, write);
    if (!base) {
      error = TWIN_BUFFER_UNMAPPED;
      break;
    }
    if (ring->segment_count + readable + writable >= ring->segment_capacity) {
      *no_room = true;
      return TWIN_OK;
    }
    start[readable + writable] = (struct twin_segment){base, length};
    if (write)
      writable++;
    else
      readable++;
    if (!(flags & NEXT)) break;
    uint32_t next = (uint32_t)(word >> 48);
    if (next > ring->mask) {
      error = TWIN_NEXT_OUT_OF_RANGE;
      break;
    }
    address = load64(ring->descriptors + 16 * (size_t)next);
    word = load64(ring->descriptors + 16 * (size_t)next + 8);
  }
  ring->avail_index++;
  if (error) {
    twin_device_push_used(ring, head, 0);
    return error;
  }
  ring->segment_count += readable + writable;
  *chain = (struct twin_chain){head, (uint16_t)readable, (uint16_t)writable, start};
  return TWIN_OK;
}

// Chains of one good buffer up to the index `end`, as long as they come and there are segments.
static inline size_t pop_singles(struct twin_device *ring, const struct twin_region *memory, struct twin_chain *output,
                                 uint32_t end) {
  const uint8_t *avail = ring->avail, *descriptors = ring->descriptors;
  uint32_t mask = ring->mask, first = ring->avail_index, index = first;
  struct twin_segment *segment = ring->segments + ring->segment_count;
  size_t room = ring->segment_capacity - ring->segment_count;
  uint32_t last = end - first < room ? end : first + (uint32_t)room;
  struct twin_chain *place = output;
  while (index != last) {
    uint32_t head = load16(avail + 2 * (size_t)(index & mask));
    if (head > mask) break;
    uint64_t address = load64(descriptors + 16 * (size_t)head), word = load64(descriptors + 16 * (size_t)head + 8);
    if (word & (uint64_t)(NEXT | INDIRECT) << 32) break;
    bool write = (word & (uint64_t)WRITE << 32) != 0;
    void *base = translate(memory, address, (uint32_t)word, write);
    if (!base) break;
    *segment = (struct twin_segment){base, (uint32_t)word};
    *place++ = (struct twin_chain){(uint16_t)head, !write, write, segment++};
    index++;
  }
  ring->avail_index = index;
  ring->segment_count += index - first;
  return (size_t)(place - output);
}

inline size_t twin_device_pop(struct twin_device *ring, const struct twin_region *memory, struct twin_chain *output,
                              size_t max, enum twin_error *error) {
  *error = TWIN_OK;
  uint16_t advance = (uint16_t)(load_acquire16(ring->avail - 2) - (uint16_t)ring->avail_index);
  if (advance > ring->mask + 1 || ring->failure) {
    if (!ring->failure) ring->failure = TWIN_AVAIL_INDEX_JUMP;
    *error = ring->failure;
    return 0;
  }
  ring->avail_seen = ring->avail_index + advance;
  ring->segment_count = 0;
  uint32_t end = ring->avail_index + (advance < max ? advance : (uint32_t)max);
  size_t done = 0;
  while (ring->avail_index != end) {
    done += pop_singles(ring, memory, output + done, end);
    if (ring->avail_index == end) break;
    uint32_t head = load16(ring->avail + 2 * (size_t)(ring->avail_index & ring->mask));
    if (head > ring->mask) {
      ring->failure = *error = TWIN_HEAD_OUT_OF_RANGE;
      break;
    }
    const uint8_t *descriptor = ring->descriptors + 16 * (size_t)head;
    bool no_room = false;
    *error = walk(ring, memory, (uint16_t)head, load64(descriptor), load64(descriptor + 8), &output[done], &no_room);
    if (*error || no_room) break;
    done++;
  }
  return done;
}

// A burst of used elements, with the indices in locals.
static inline void push_burst(struct twin_device *ring, const struct twin_chain *chains, size_t count) {
  uint8_t *used = ring->used;
  uint32_t mask = ring->mask, index = ring->used_index;
  for (size_t i = 0; i < count; i++) {
    uint8_t *element = used + 8 * (size_t)(index++ & mask);
    store32(element, chains[i].head);
    store32(element + 4, (uint32_t)chains[i].segments[0].length);
  }
  ring->used_index = index;
}

// Takes and returns chains of one good buffer in one loop: each is used completely, with its full length.
static inline size_t serve_singles(struct twin_device *ring, const struct twin_region *memory, uint32_t end) {
  const uint8_t *avail = ring->avail, *descriptors = ring->descriptors;
  uint8_t *used = ring->used;
  uint32_t mask = ring->mask, first = ring->avail_index, index = first, used_index = ring->used_index;
  struct twin_segment *segment = ring->segments;
  while (index != end) {
    uint32_t head = load16(avail + 2 * (size_t)(index & mask));
    if (head > mask) break;
    uint64_t address = load64(descriptors + 16 * (size_t)head), word = load64(descriptors + 16 * (size_t)head + 8);
    if (word & (uint64_t)(NEXT | INDIRECT) << 32) break;
    void *base = translate(memory, address, (uint32_t)word, (word & (uint64_t)WRITE << 32) != 0);
    if (!base) break;
    *segment = (struct twin_segment){base, (uint32_t)word};
    uint8_t *element = used + 8 * (size_t)(used_index++ & mask);
    store32(element, head);
    store32(element + 4, (uint32_t)word);
    index++;
  }
  ring->avail_index = index;
  ring->used_index = used_index;
  return index - first;
}

static inline size_t serve(struct twin_device *ring, const struct twin_region *memory, size_t max,
                           enum twin_error *error) {
  *error = TWIN_OK;
  uint16_t advance = (uint16_t)(load_acquire16(ring->avail - 2) - (uint16_t)ring->avail_index);
  if (advance > ring->mask + 1 || ring->failure) {
    if (!ring->failure) ring->failure = TWIN_AVAIL_INDEX_JUMP;
    *error = ring->failure;
    return 0;
  }
  ring->avail_seen = ring->avail_index + advance;
  ring->segment_count = 0;
  uint32_t end = ring->avail_index + (advance < max ? advance : (uint32_t)max);
  size_t done = 0;
  while (ring->avail_index != end) {
    done += serve_singles(ring, memory, end);
    if (ring->avail_index == end) break;
    struct twin_chain chain;
    ring->segment_count = 0;
    size_t one = twin_device_pop(ring, memory, &chain, 1, error);
    if (one == 0) break;
    uint64_t length = 0;
    for (size_t i = 0; i < chain.writable; i++) length += chain.segments[chain.readable + i].length;
    twin_device_push_used(ring, chain.head, (uint32_t)length);
    done++;
  }
  return done;
}

inline void twin_device_publish_used(struct twin_device *ring) {
  if (ring->used_index == ring->published) return;
  ring->published = ring->used_index;
  store_release16(ring->used - 2, (uint16_t)ring->published);
}

inline bool twin_device_needs_call(struct twin_device *ring) {
  uint32_t old = ring->call_checked, new = ring->published;
  if (new == old) return false;
  ring->call_checked = new;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (ring->call_unconditionally) {
    ring->call_unconditionally = false;
    return true;
  }
  if (!ring->event_index) return (load16(ring->avail - 4) & 1) == 0;
  if (new - old >= 65535) return true;
  return passed(load16(ring->avail + 2 * ((size_t)ring->mask + 1)), (uint16_t)old, (uint16_t)new);
}

inline bool twin_device_arm(struct twin_device *ring) {
  if (ring->failure) return false;
  if (ring->event_index)
    store16(ring->used + 8 * ((size_t)ring->mask + 1), (uint16_t)ring->avail_index);
  else
    store16(ring->used - 4, 0);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  return load_acquire16(ring->avail - 2) != (uint16_t)ring->avail_index;
}

// The counted loop.

uint64_t twin_run(uint32_t size, uint32_t burst, uint64_t packets, bool serves, void *block,
                  const struct twin_region *memory) {
  struct twin_driver driver;
  struct twin_device device;
  twin_driver_init(&driver, block, size, 0, true);
  twin_device_init(&device, block, size, 0, true);
  struct twin_chain chains[64];
  struct twin_used used[64];
  uint64_t sum = 0, token = 0, notified = 0;
  while (token < packets) {
    token += add_burst(&driver, burst, true, memory->address, 2048, 1526, token);
    twin_driver_publish(&driver);
    if (twin_driver_needs_kick(&driver)) notified++;
    enum twin_error error;
    if (serves)
      serve(&device, memory, burst, &error);
    else
      push_burst(&device, chains, twin_device_pop(&device, memory, chains, burst, &error));
    twin_device_publish_used(&device);
    if (twin_device_needs_call(&device)) notified++;
    size_t reaped = twin_driver_reap(&driver, used, burst);
    for (size_t i = 0; i < reaped; i++) sum += used[i].token + used[i].written;
  }
  twin_device_destroy(&device);
  twin_driver_destroy(&driver);
  return sum + (notified << 48);
}
