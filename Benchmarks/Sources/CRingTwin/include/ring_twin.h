// A split ring's core in plain C, both sides, with the checks of the Swift ring: the measure of what the work costs.
//
// It is written as one would write it in C: structs of fields, functions that a caller can inline, a batch function where
// Swift has one. Its faults are the same codes as `RingError.Rule` has, by name; it covers what a burst of packets needs.
#ifndef SWIFT_NETDEV_RING_TWIN_H
#define SWIFT_NETDEV_RING_TWIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum twin_error {
  TWIN_OK = 0,
  TWIN_USED_INDEX_JUMP,
  TWIN_USED_ID_OUT_OF_RANGE,
  TWIN_USED_ID_NOT_OUTSTANDING,
  TWIN_USED_LENGTH_TOO_LONG,
  TWIN_AVAIL_INDEX_JUMP,
  TWIN_HEAD_OUT_OF_RANGE,
  TWIN_NEXT_OUT_OF_RANGE,
  TWIN_CHAIN_LOOP,
  TWIN_READABLE_AFTER_WRITABLE,
  TWIN_INDIRECT_NOT_NEGOTIATED,
  TWIN_BUFFER_UNMAPPED,
};

struct twin_buffer {
  uint64_t address;
  uint32_t length;
  uint64_t token;
};

struct twin_used {
  uint64_t token;
  uint32_t written;
};

struct twin_shadow {
  uint64_t token;
  uint32_t writable;
  uint16_t next;
  uint16_t count;
};

struct twin_driver {
  uint8_t *descriptors, *avail, *used;
  struct twin_shadow *shadow;
  uint16_t *free_ids;
  uint32_t mask;
  bool event_index;
  uint32_t avail_index, published, kick_checked, used_index;
  uint32_t taken, returned;
  bool kick_unconditionally;
  enum twin_error failure;
};

struct twin_region {
  uint64_t address, length;
  uint8_t *host;
  bool writable;
};

struct twin_segment {
  void *base;
  size_t length;
};

struct twin_chain {
  uint16_t head, readable, writable;
  struct twin_segment *segments;
};

struct twin_device {
  uint8_t *descriptors, *avail, *used;
  struct twin_segment *segments;
  size_t segment_capacity, segment_count;
  uint32_t mask;
  bool event_index;
  uint32_t avail_index, avail_seen, used_index, published, call_checked;
  bool call_unconditionally;
  enum twin_error failure;
};

// Lays a ring of `size` descriptors in `block` as SplitRingLayout does, and allocates the private tables.
void twin_driver_init(struct twin_driver *, void *block, uint32_t size, uint16_t start, bool event_index);
void twin_driver_destroy(struct twin_driver *);
void twin_device_init(struct twin_device *, void *block, uint32_t size, uint16_t start, bool event_index);
void twin_device_destroy(struct twin_device *);

// One buffer; false without room. A chain: readable buffers first.
bool twin_driver_add(struct twin_driver *, uint64_t address, uint32_t length, bool writable, uint64_t token);
bool twin_driver_add_chain(struct twin_driver *, const struct twin_buffer *, size_t readable, size_t writable,
                           uint64_t token);
void twin_driver_publish(struct twin_driver *);
bool twin_driver_needs_kick(struct twin_driver *);
bool twin_driver_arm(struct twin_driver *, uint32_t after);

// Up to `max` used chains; a violation is seen in `failure` once the good ones before it were returned.
size_t twin_driver_reap(struct twin_driver *, struct twin_used *, size_t max);

// Up to `max` chains; a malformed one ends the batch, is returned with length 0, and is named by `*error`.
size_t twin_device_pop(struct twin_device *, const struct twin_region *, struct twin_chain *, size_t max,
                       enum twin_error *error);
void twin_device_push_used(struct twin_device *, uint16_t head, uint32_t written);
void twin_device_publish_used(struct twin_device *);
bool twin_device_needs_call(struct twin_device *);
bool twin_device_arm(struct twin_device *);

// The loop that is counted: `packets` through both sides in bursts, one full buffer each; `serves` takes and returns in one
// loop of the device instead of two. Returns a checksum.
uint64_t twin_run(uint32_t size, uint32_t burst, uint64_t packets, bool serves, void *block, const struct twin_region *);

#endif
