// The rings' bursts in plain C, both formats and both sides, with the checks of the Swift rings: the measure of what the work
// costs.
//
// It is written as one would write it in C: structs of fields, indices in locals, a function for each burst that the driver and
// the engine have. It covers what a burst of honest packets needs; what is not of that simple kind ends a burst, and there it
// stays.
#ifndef SWIFT_NETDEV_RING_TWIN_H
#define SWIFT_NETDEV_RING_TWIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What was agreed, and where the rings lie: each in a block that RingLayout lays out, buffers in one region.
struct twin_setting {
  bool packed, in_order;
  uint32_t size;
  void *transmit, *receive;
  uint64_t address, length;
  uint8_t *host;
};

struct twin_counts {
  // Packets that went round, tokens and lengths added up, notifications.
  uint64_t carried, sum, notified;
};

// Both sides of a transmit ring and of a receive ring. All of EVENT_IDX.
struct twin;
struct twin *twin_make(const struct twin_setting *);
void twin_free(struct twin *);

// A burst of frames from the transmit ring to the receive ring and back to the driver; what came round.
uint64_t twin_loop(struct twin *, uint32_t burst);
// A burst of frames that the device takes one by one and releases.
uint64_t twin_transmit(struct twin *, uint32_t burst);
struct twin_counts twin_counts(const struct twin *);

// The counted loops: bursts until `packets` are round.
void twin_run(struct twin *, bool transmits, uint32_t burst, uint64_t packets);

#endif
