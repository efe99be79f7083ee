// A split ring's bursts.
#ifndef SWIFT_NETDEV_TWIN_SPLIT_H
#define SWIFT_NETDEV_TWIN_SPLIT_H

#include "twin_memory.h"

static inline bool passed(uint16_t event, uint16_t old, uint16_t new) {
  return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

static inline size_t split_used_offset(uint32_t size) {
  return (16 * (size_t)size + 6 + 2 * (size_t)size + 63) & ~(size_t)63;
}

struct split_areas {
  // The entries, behind flags and idx.
  uint8_t *descriptors, *avail, *used;
  uint32_t mask;
};

struct split_driver {
  struct split_areas at;
  struct table table;
  uint32_t avail_index, published, kick_checked, used_index, used_seen, batch;
  bool kick_unconditionally, in_order, broken;
};

struct split_device {
  struct split_areas at;
  uint32_t avail_index, avail_seen, used_index, published, call_checked, batch;
  uint16_t batch_head;
  bool call_unconditionally, in_order, broken;
};

static inline struct split_areas split_areas(void *block, uint32_t size) {
  uint8_t *base = block;
  return (struct split_areas){base, base + 16 * (size_t)size + 4, base + split_used_offset(size) + 4, size - 1};
}

static inline void split_driver_make(struct split_driver *ring, void *block, uint32_t size, bool in_order) {
  memset(ring, 0, sizeof *ring);
  memset(block, 0, split_used_offset(size) + 6 + 8 * (size_t)size);
  ring->at = split_areas(block, size);
  table_make(&ring->table, size);
  ring->kick_unconditionally = true;
  ring->in_order = in_order;
}

static inline void split_device_make(struct split_device *ring, void *block, uint32_t size, bool in_order) {
  memset(ring, 0, sizeof *ring);
  ring->at = split_areas(block, size);
  ring->call_unconditionally = true;
  ring->in_order = in_order;
}

static inline uint32_t split_add(struct split_driver *ring, uint32_t count, struct burst burst) {
  struct split_areas at = ring->at;
  struct table table = ring->table;
  uint32_t index = ring->avail_index;
  count = min32(count, table.returned - table.taken);
  for (uint32_t i = 0; i < count; i++) {
    uint16_t head = table.free_ids[table.taken++ & table.mask];
    uint8_t *descriptor = at.descriptors + 16 * (size_t)head;
    store64(descriptor, burst.address + (uint64_t)i * burst.stride);
    store64(descriptor + 8, (uint64_t)burst.length | (uint64_t)(burst.writable ? WRITE : 0) << 32);
    table.shadow[head] = (struct shadow){burst.token + i, burst.writable ? burst.length : 0, 0, 1};
    if (!burst.writable) table.published[head] = index;
    store16(at.avail + 2 * (size_t)(index++ & at.mask), head);
  }
  ring->table.taken = table.taken;
  ring->avail_index = index;
  return count;
}

static inline void split_publish(struct split_driver *ring) {
  if (ring->avail_index == ring->published) return;
  ring->published = ring->avail_index;
  store_release16(ring->at.avail - 2, (uint16_t)ring->published);
}

static inline bool split_needs_kick(struct split_driver *ring) {
  uint32_t old = ring->kick_checked, new = ring->published;
  if (new == old || ring->broken) return false;
  ring->kick_checked = new;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (ring->kick_unconditionally) {
    ring->kick_unconditionally = false;
    return true;
  }
  if (new - old >= 65535) return true;
  return passed(load16(ring->at.used + 8 * ((size_t)ring->at.mask + 1)), (uint16_t)old, (uint16_t)new);
}

static inline bool split_look(struct split_driver *ring) {
  uint16_t advance = (uint16_t)(load_acquire16(ring->at.used - 2) - (uint16_t)ring->used_index);
  if (advance > ring->published - ring->used_index || ring->broken) {
    ring->broken = true;
    return false;
  }
  ring->used_seen = ring->used_index + advance;
  return true;
}

// In order a used element stands for all chains up to its id.
static inline uint32_t split_take_in_order(struct split_driver *ring, uint32_t count, struct used *output) {
  struct split_areas at = ring->at;
  struct table table = ring->table;
  uint32_t done = 0, index = ring->used_index, batch = ring->batch;
  while (done < count) {
    uint32_t oldest = table.returned & at.mask;
    struct shadow *entry = table.shadow + oldest;
    uint32_t written;
    if (batch > 0) {
      written = entry->writable;
      batch--;
    } else {
      const uint8_t *element = at.used + 8 * (size_t)(index & at.mask);
      uint32_t id = load32(element);
      written = load32(element + 4);
      if (id != oldest) {
        uint32_t length = ((id - oldest) & at.mask) + 1;
        if (id > at.mask || length > ring->used_seen - index || written > table.shadow[id].writable) break;
        batch = length - 1;
        written = entry->writable;
      } else if (written > entry->writable) {
        break;
      }
    }
    output[done++] = (struct used){entry->token, written};
    entry->count = 0;
    table.returned++;
    index++;
  }
  ring->batch = batch;
  ring->table.returned = table.returned;
  ring->used_index = index;
  return done;
}

static inline uint32_t split_take(struct split_driver *ring, uint32_t max, struct used *output) {
  uint32_t count = min32(max, ring->used_seen - ring->used_index);
  if (ring->in_order) return split_take_in_order(ring, count, output);
  struct split_areas at = ring->at;
  struct table table = ring->table;
  uint32_t index = ring->used_index, done = 0;
  while (done < count) {
    const uint8_t *element = at.used + 8 * (size_t)(index & at.mask);
    uint32_t id = load32(element), written = load32(element + 4);
    if (id > at.mask) break;
    struct shadow *entry = table.shadow + id;
    if (entry->count != 1 || written > entry->writable) break;
    output[done++] = (struct used){entry->token, written};
    entry->count = 0;
    table.free_ids[table.returned++ & table.mask] = (uint16_t)id;
    index++;
  }
  ring->table.returned = table.returned;
  ring->used_index = index;
  return done;
}

static inline bool split_begin(struct split_device *ring) {
  uint16_t advance = (uint16_t)(load_acquire16(ring->at.avail - 2) - (uint16_t)ring->avail_index);
  if (advance > ring->at.mask + 1 || ring->broken) {
    ring->broken = true;
    return false;
  }
  ring->avail_seen = ring->avail_index + advance;
  return advance != 0;
}

// A descriptor's buffer when it has just these flags, and lies in the region.
static inline void *split_buffer(const struct split_areas *at, uint32_t head, uint16_t flags, const struct region *memory,
                                 uint32_t *length) {
  if (head > at->mask) return NULL;
  const uint8_t *descriptor = at->descriptors + 16 * (size_t)head;
  uint64_t address = load64(descriptor);
  *length = load32(descriptor + 8);
  if ((load16(descriptor + 12) & (NEXT | WRITE | INDIRECT)) != flags) return NULL;
  return translate(memory, address, *length);
}

static inline uint32_t split_relay(struct split_device *from, struct split_device *to, const struct region *memory,
                                   uint32_t max) {
  struct split_areas source = from->at, target = to->at;
  uint32_t source_avail = from->avail_index, source_used = from->used_index, target_avail = to->avail_index,
           target_used = to->used_index;
  uint32_t limit = min32(max, min32(from->avail_seen - source_avail, to->avail_seen - target_avail)), done = 0;
  uint16_t last = 0;
  bool batches = from->in_order;
  while (done < limit) {
    uint32_t head = load16(source.avail + 2 * (size_t)(source_avail & source.mask));
    uint32_t room = load16(target.avail + 2 * (size_t)(target_avail & target.mask));
    uint32_t length, capacity;
    void *bytes = split_buffer(&source, head, 0, memory, &length);
    void *place = split_buffer(&target, room, WRITE, memory, &capacity);
    if (!bytes || !place || capacity < length) break;
    if (batches) {
      last = (uint16_t)head;
    } else {
      uint8_t *element = source.used + 8 * (size_t)(source_used++ & source.mask);
      store32(element, head);
      store32(element + 4, 0);
    }
    uint8_t *element = target.used + 8 * (size_t)(target_used++ & target.mask);
    store32(element, room);
    store32(element + 4, length);
    source_avail++;
    target_avail++;
    done++;
  }
  from->avail_index = source_avail;
  from->used_index = source_used;
  to->avail_index = target_avail;
  to->used_index = target_used;
  if (batches && done > 0) {
    from->batch += done;
    from->batch_head = last;
  }
  return done;
}

// Takes a chain of one buffer to read; false when there is none.
static inline bool split_next(struct split_device *ring, const struct region *memory, uint16_t *head) {
  if (ring->avail_index == ring->avail_seen) return false;
  *head = load16(ring->at.avail + 2 * (size_t)(ring->avail_index & ring->at.mask));
  uint32_t length;
  if (!split_buffer(&ring->at, *head, 0, memory, &length)) return false;
  ring->avail_index++;
  return true;
}

static inline void split_put(struct split_device *ring, uint16_t head, uint32_t written) {
  uint8_t *element = ring->at.used + 8 * (size_t)(ring->used_index++ & ring->at.mask);
  store32(element, head);
  store32(element + 4, written);
}

static inline void split_release(struct split_device *ring, uint16_t head) {
  if (!ring->in_order) {
    split_put(ring, head, 0);
    return;
  }
  ring->batch++;
  ring->batch_head = head;
}

static inline void split_publish_used(struct split_device *ring) {
  if (ring->batch > 0) {
    split_put(ring, ring->batch_head, 0);
    ring->used_index += ring->batch - 1;
    ring->batch = 0;
  }
  if (ring->used_index == ring->published) return;
  ring->published = ring->used_index;
  store_release16(ring->at.used - 2, (uint16_t)ring->published);
}

static inline bool split_needs_call(struct split_device *ring) {
  uint32_t old = ring->call_checked, new = ring->published;
  if (new == old) return false;
  ring->call_checked = new;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (ring->call_unconditionally) {
    ring->call_unconditionally = false;
    return true;
  }
  if (new - old >= 65535) return true;
  return passed(load16(ring->at.avail + 2 * ((size_t)ring->at.mask + 1)), (uint16_t)old, (uint16_t)new);
}

#endif
