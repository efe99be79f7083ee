#include "ring_twin.h"
#include "twin_packed.h"
#include "twin_split.h"

// Both sides of a transmit ring and of a receive ring, in one format or the other.
struct twin {
  bool packed;
  struct region memory;
  struct twin_counts counts;
  uint64_t token;
  struct used used[64];
  union {
    struct {
      struct split_driver transmit, receive;
      struct split_device source, target;
    } split;
    struct {
      struct packed_driver transmit, receive;
      struct packed_device source, target;
    } packed_rings;
  };
};

struct twin *twin_make(const struct twin_setting *setting) {
  struct twin *twin = calloc(1, sizeof *twin);
  twin->packed = setting->packed;
  twin->memory = (struct region){setting->address, setting->length, setting->host};
  uint32_t size = setting->size;
  if (setting->packed) {
    packed_driver_make(&twin->packed_rings.transmit, setting->transmit, size, setting->in_order);
    packed_driver_make(&twin->packed_rings.receive, setting->receive, size, setting->in_order);
    packed_device_make(&twin->packed_rings.source, setting->transmit, size, setting->in_order);
    packed_device_make(&twin->packed_rings.target, setting->receive, size, setting->in_order);
  } else {
    split_driver_make(&twin->split.transmit, setting->transmit, size, setting->in_order);
    split_driver_make(&twin->split.receive, setting->receive, size, setting->in_order);
    split_device_make(&twin->split.source, setting->transmit, size, setting->in_order);
    split_device_make(&twin->split.target, setting->receive, size, setting->in_order);
  }
  return twin;
}

void twin_free(struct twin *twin) {
  if (twin->packed) {
    table_free(&twin->packed_rings.transmit.table);
    table_free(&twin->packed_rings.receive.table);
  } else {
    table_free(&twin->split.transmit.table);
    table_free(&twin->split.receive.table);
  }
  free(twin);
}

struct twin_counts twin_counts(const struct twin *twin) { return twin->counts; }

static inline void count(struct twin *twin, uint32_t taken) {
  for (uint32_t i = 0; i < taken; i++) twin->counts.sum += twin->used[i].token + twin->used[i].written;
}

static inline struct burst frames(const struct twin *twin) {
  return (struct burst){twin->memory.address, twin->token, 2048, 64, false};
}

static inline struct burst buffers(const struct twin *twin) {
  return (struct burst){twin->memory.address + 64 * 2048, twin->token, 2048, 1526, true};
}

// The same for each format, written once.
#define LOOP(format, rings)                                                                           \
  static inline uint64_t format##_loop(struct twin *twin, uint32_t burst) {                           \
    format##_add(&rings.receive, burst, buffers(twin));                                               \
    format##_publish(&rings.receive);                                                                 \
    twin->counts.notified += format##_needs_kick(&rings.receive);                                     \
    twin->token += format##_add(&rings.transmit, burst, frames(twin));                                \
    format##_publish(&rings.transmit);                                                                \
    twin->counts.notified += format##_needs_kick(&rings.transmit);                                    \
    if (format##_begin(&rings.source)) {                                                              \
      format##_begin(&rings.target);                                                                  \
      format##_relay(&rings.source, &rings.target, &twin->memory, burst);                             \
    }                                                                                                 \
    format##_publish_used(&rings.target);                                                             \
    format##_publish_used(&rings.source);                                                             \
    twin->counts.notified += format##_needs_call(&rings.target);                                      \
    twin->counts.notified += format##_needs_call(&rings.source);                                      \
    if (format##_look(&rings.transmit)) count(twin, format##_take(&rings.transmit, 64, twin->used));  \
    uint32_t taken = format##_look(&rings.receive) ? format##_take(&rings.receive, 64, twin->used) : 0; \
    count(twin, taken);                                                                               \
    twin->counts.carried += taken;                                                                    \
    return taken;                                                                                     \
  }                                                                                                   \
  static inline uint64_t format##_transmit(struct twin *twin, uint32_t burst) {                       \
    twin->token += format##_add(&rings.transmit, burst, frames(twin));                                \
    format##_publish(&rings.transmit);                                                                \
    twin->counts.notified += format##_needs_kick(&rings.transmit);                                    \
    if (format##_begin(&rings.source)) {                                                              \
      uint16_t id;                                                                                    \
      while (format##_next(&rings.source, &twin->memory, &id)) format##_release(&rings.source, id);   \
    }                                                                                                 \
    format##_publish_used(&rings.source);                                                             \
    twin->counts.notified += format##_needs_call(&rings.source);                                      \
    uint32_t taken = format##_look(&rings.transmit) ? format##_take(&rings.transmit, 64, twin->used) : 0; \
    count(twin, taken);                                                                               \
    twin->counts.carried += taken;                                                                    \
    return taken;                                                                                     \
  }

LOOP(split, twin->split)
LOOP(packed, twin->packed_rings)

uint64_t twin_loop(struct twin *twin, uint32_t burst) {
  return twin->packed ? packed_loop(twin, burst) : split_loop(twin, burst);
}

uint64_t twin_transmit(struct twin *twin, uint32_t burst) {
  return twin->packed ? packed_transmit(twin, burst) : split_transmit(twin, burst);
}

void twin_run(struct twin *twin, bool transmits, uint32_t burst, uint64_t packets) {
  if (transmits) {
    while (twin->counts.carried < packets && twin_transmit(twin, burst) > 0) {
    }
  } else {
    while (twin->counts.carried < packets && twin_loop(twin, burst) > 0) {
    }
  }
}
