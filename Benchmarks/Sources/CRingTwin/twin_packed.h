// A packed ring's bursts.
#ifndef SWIFT_NETDEV_TWIN_PACKED_H
#define SWIFT_NETDEV_TWIN_PACKED_H

#include "twin_memory.h"

// A place, and the wrap counter as both marks or none.
struct position {
  uint32_t place;
  uint16_t marks;
};

static inline uint16_t available(struct position at) { return (at.marks ^ USED) & MARKS; }

static inline struct position further(struct position at, uint32_t count, uint32_t size) {
  at.place += count;
  if (at.place >= size) {
    at.place -= size;
    at.marks ^= MARKS;
  }
  return at;
}

static inline bool event_passed(uint32_t word, uint32_t advance, struct position to, uint32_t size) {
  uint32_t wish = word & 0x30000;
  if (wish == 0x10000) return false;
  if (wish != 0x20000 || advance >= size) return true;
  int64_t behind = (int64_t)to.place - (int64_t)(word & 0x7fff);
  if (((word & 0x8000) != 0) != (to.marks != 0)) behind += size;
  return behind > 0 && behind <= advance;
}

static inline uint64_t packed_word(uint32_t length, uint16_t id, uint16_t flags) {
  return (uint64_t)length | (uint64_t)id << 32 | (uint64_t)flags << 48;
}

struct packed_driver {
  uint8_t *ring, *driver_event, *device_event;
  struct table table;
  uint32_t size, free, added, published, returned, kick_checked, unannounced, hidden, batch, first_place;
  uint16_t first_flags;
  struct position next, used_next;
  bool kick_unconditionally, in_order, broken;
};

struct packed_device {
  uint8_t *ring, *driver_event, *device_event;
  uint32_t size, returned, published, call_checked, held, unannounced, hidden, batch, first_place;
  uint16_t first_flags, batch_id;
  struct position next, used_next;
  bool call_unconditionally, in_order, broken;
};

static inline size_t packed_driver_offset(uint32_t size) { return (16 * (size_t)size + 63) & ~(size_t)63; }

static inline void packed_driver_make(struct packed_driver *ring, void *block, uint32_t size, bool in_order) {
  memset(ring, 0, sizeof *ring);
  ring->ring = block;
  ring->driver_event = ring->ring + packed_driver_offset(size);
  ring->device_event = ring->driver_event + 64;
  for (uint32_t place = 0; place < size; place++) {
    store64(ring->ring + 16 * (size_t)place, 0);
    store64(ring->ring + 16 * (size_t)place + 8, 0);
  }
  store32(ring->driver_event, 0);
  store32(ring->device_event, 0);
  table_make(&ring->table, size);
  ring->size = ring->free = size;
  ring->next = ring->used_next = (struct position){0, MARKS};
  ring->kick_unconditionally = true;
  ring->in_order = in_order;
}

static inline void packed_device_make(struct packed_device *ring, void *block, uint32_t size, bool in_order) {
  memset(ring, 0, sizeof *ring);
  ring->ring = block;
  ring->driver_event = ring->ring + packed_driver_offset(size);
  ring->device_event = ring->driver_event + 64;
  ring->size = size;
  ring->next = ring->used_next = (struct position){0, MARKS};
  ring->call_unconditionally = true;
  ring->in_order = in_order;
}

static inline uint32_t packed_add(struct packed_driver *ring, uint32_t count, struct burst burst) {
  struct table table = ring->table;
  struct position next = ring->next;
  uint32_t size = ring->size, added = ring->added;
  bool in_order = ring->in_order;
  count = min32(count, ring->free);
  if (count == 0) return 0;
  uint16_t kind = burst.writable ? WRITE : 0;
  uint16_t flags = available(next) | kind;
  if (added == ring->published) {
    ring->first_place = next.place;
    ring->first_flags = flags;
    // Neither available nor used.
    flags = next.marks ^ MARKS;
  }
  for (uint32_t i = 0; i < count; i++) {
    uint16_t id = in_order ? (uint16_t)next.place : table.free_ids[table.taken++ & table.mask];
    uint8_t *descriptor = ring->ring + 16 * (size_t)next.place;
    store64(descriptor, burst.address + (uint64_t)i * burst.stride);
    store64(descriptor + 8, packed_word(burst.length, id, flags));
    table.shadow[id] = (struct shadow){burst.token + i, burst.writable ? burst.length : 0, 0, 1};
    if (!burst.writable && !in_order) table.published[id] = added;
    added++;
    next = further(next, 1, size);
    flags = available(next) | kind;
  }
  ring->table.taken = table.taken;
  ring->added = added;
  ring->hidden += count;
  ring->free -= count;
  ring->next = next;
  return count;
}

static inline void packed_publish(struct packed_driver *ring) {
  if (ring->added == ring->published) return;
  ring->published = ring->added;
  ring->unannounced = min32(ring->unannounced + ring->hidden, ring->size);
  ring->hidden = 0;
  store_release16(ring->ring + 16 * (size_t)ring->first_place + 14, ring->first_flags);
}

static inline bool packed_needs_kick(struct packed_driver *ring) {
  if (ring->published == ring->kick_checked || ring->broken) return false;
  ring->kick_checked = ring->published;
  uint32_t advance = ring->unannounced;
  ring->unannounced = 0;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (ring->kick_unconditionally) {
    ring->kick_unconditionally = false;
    return true;
  }
  return event_passed(load32(ring->device_event), advance, ring->next, ring->size);
}

static inline bool packed_look(const struct packed_driver *ring) { return !ring->broken; }

static inline uint32_t packed_take_in_order(struct packed_driver *ring, uint32_t count, struct used *output) {
  struct position at = ring->used_next;
  struct shadow *shadow = ring->table.shadow;
  uint32_t size = ring->size, batch = ring->batch, in_flight = ring->published - ring->returned, done = 0;
  while (done < count) {
    struct shadow *entry = shadow + at.place;
    uint32_t written;
    if (batch > 0) {
      written = entry->writable;
      batch--;
    } else {
      const uint8_t *descriptor = ring->ring + 16 * (size_t)at.place;
      if ((load_acquire16(descriptor + 14) & MARKS) != at.marks) break;
      written = load32(descriptor + 8);
      uint32_t id = load16(descriptor + 12);
      if (id != at.place) {
        if (id >= size) break;
        uint32_t length = (id >= at.place ? id - at.place : id + size - at.place) + 1;
        if (length > in_flight - done || written > shadow[id].writable) break;
        batch = length - 1;
        written = entry->writable;
      } else if (written > entry->writable) {
        break;
      }
    }
    output[done++] = (struct used){entry->token, written};
    entry->count = 0;
    at = further(at, 1, size);
  }
  ring->batch = batch;
  ring->returned += done;
  ring->free += done;
  ring->used_next = at;
  return done;
}

static inline uint32_t packed_take(struct packed_driver *ring, uint32_t max, struct used *output) {
  uint32_t count = min32(max, ring->published - ring->returned);
  if (ring->in_order) return packed_take_in_order(ring, count, output);
  struct table table = ring->table;
  struct position at = ring->used_next;
  uint32_t size = ring->size, done = 0;
  while (done < count) {
    const uint8_t *descriptor = ring->ring + 16 * (size_t)at.place;
    if ((load_acquire16(descriptor + 14) & MARKS) != at.marks) break;
    uint32_t written = load32(descriptor + 8), id = load16(descriptor + 12);
    if (id >= size) break;
    struct shadow *entry = table.shadow + id;
    if (entry->count != 1 || written > entry->writable) break;
    output[done++] = (struct used){entry->token, written};
    entry->count = 0;
    table.free_ids[table.returned++ & table.mask] = (uint16_t)id;
    at = further(at, 1, size);
  }
  ring->table.returned = table.returned;
  ring->returned += done;
  ring->free += done;
  ring->used_next = at;
  return done;
}

static inline bool packed_begin(const struct packed_device *ring) {
  if (ring->broken || ring->held == ring->size) return false;
  return (load_acquire16(ring->ring + 16 * (size_t)ring->next.place + 14) & MARKS) == available(ring->next);
}

// The buffer of a descriptor that has just these flags of those that matter, and lies in the region.
static inline void *packed_buffer(const uint8_t *descriptor, uint16_t flags, const struct region *memory, uint32_t *length) {
  if ((load_acquire16(descriptor + 14) & (MARKS | NEXT | WRITE | INDIRECT)) != flags) return NULL;
  *length = load32(descriptor + 8);
  return translate(memory, load64(descriptor), *length);
}

// Writes a used descriptor for `chains`, in as many places.
static inline void packed_put(struct packed_device *ring, uint16_t id, uint32_t chains, uint32_t written) {
  struct position at = ring->used_next;
  uint16_t flags = at.marks | (written ? WRITE : 0);
  if (ring->returned == ring->published) {
    ring->first_place = at.place;
    ring->first_flags = flags;
    flags = available(at);
  }
  store64(ring->ring + 16 * (size_t)at.place + 8, packed_word(written, id, flags));
  ring->returned += chains;
  ring->held -= chains;
  ring->hidden += chains;
  ring->used_next = further(at, chains, ring->size);
}

static inline uint32_t packed_relay(struct packed_device *from, struct packed_device *to, const struct region *memory,
                                    uint32_t max) {
  struct position source = from->next, target = to->next;
  uint32_t source_size = from->size, target_size = to->size, done = 0;
  bool batches = from->in_order;
  uint16_t last = 0, source_used = source.marks, target_used = target.marks | WRITE;
  if (!batches && from->returned == from->published) {
    from->first_place = source.place;
    from->first_flags = source_used;
    source_used = available(source);
  }
  if (to->returned == to->published) {
    to->first_place = target.place;
    to->first_flags = target_used;
    target_used = available(target);
  }
  while (done < max) {
    uint8_t *frame = from->ring + 16 * (size_t)source.place, *room = to->ring + 16 * (size_t)target.place;
    uint32_t length, capacity;
    void *bytes = packed_buffer(frame, available(source), memory, &length);
    if (!bytes) break;
    void *place = packed_buffer(room, available(target) | WRITE, memory, &capacity);
    if (!place || capacity < length) break;
    last = load16(frame + 12);
    if (!batches) store64(frame + 8, packed_word(0, last, source_used));
    store64(room + 8, packed_word(length, load16(room + 12), target_used));
    source = further(source, 1, source_size);
    target = further(target, 1, target_size);
    source_used = source.marks;
    target_used = target.marks | WRITE;
    done++;
  }
  from->next = source;
  to->next = target;
  to->used_next = target;
  to->returned += done;
  to->hidden += done;
  if (batches) {
    from->held += done;
    from->batch += done;
    if (done > 0) from->batch_id = last;
  } else {
    from->used_next = source;
    from->returned += done;
    from->hidden += done;
  }
  return done;
}

// Takes a chain of one buffer to read; false when there is none.
static inline bool packed_next(struct packed_device *ring, const struct region *memory, uint16_t *id) {
  const uint8_t *descriptor = ring->ring + 16 * (size_t)ring->next.place;
  uint32_t length;
  if (ring->held == ring->size || !packed_buffer(descriptor, available(ring->next), memory, &length)) return false;
  *id = load16(descriptor + 12);
  ring->held++;
  ring->next = further(ring->next, 1, ring->size);
  return true;
}

static inline void packed_release(struct packed_device *ring, uint16_t id) {
  if (!ring->in_order) {
    packed_put(ring, id, 1, 0);
    return;
  }
  ring->batch++;
  ring->batch_id = id;
}

static inline void packed_publish_used(struct packed_device *ring) {
  if (ring->batch > 0) {
    packed_put(ring, ring->batch_id, ring->batch, 0);
    ring->batch = 0;
  }
  if (ring->returned == ring->published) return;
  ring->published = ring->returned;
  ring->unannounced = min32(ring->unannounced + ring->hidden, ring->size);
  ring->hidden = 0;
  store_release16(ring->ring + 16 * (size_t)ring->first_place + 14, ring->first_flags);
}

static inline bool packed_needs_call(struct packed_device *ring) {
  if (ring->published == ring->call_checked) return false;
  ring->call_checked = ring->published;
  uint32_t advance = ring->unannounced;
  ring->unannounced = 0;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (ring->call_unconditionally) {
    ring->call_unconditionally = false;
    return true;
  }
  return event_passed(load32(ring->driver_event), advance, ring->used_next, ring->size);
}

#endif
