// Packet sockets (AF_PACKET): frames of an interface of this host, in rings of TPACKET_V2 that are shared with the kernel.
#ifndef SWIFT_NETDEV_PACKET_H
#define SWIFT_NETDEV_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "netdev_atomics.h"

// An interface, as a socket of its namespace sees it.
struct netdev_packet_interface {
  int index;
  int mtu;
  bool is_ethernet;   // its frames have Ethernet headers
  uint8_t address[6];  // its station address; zeros where it has none
};

// Opens a socket for whole frames, non-blocking, close-on-exec, that hears nothing yet. Returns the descriptor or -errno.
int netdev_packet_open(void);

// Looks up an interface by name. Returns 0 or -errno: -ENODEV when there is none.
int netdev_packet_look(int descriptor, const char *name, struct netdev_packet_interface *found);

// A number that the calling thread's network namespace has and no other one of this time; 0 where nothing tells.
uint64_t netdev_packet_namespace(void);

// Whether the calling thread's namespace has an interface of this name.
bool netdev_packet_has_interface(const char *name);

// The names of the interfaces of the calling thread's namespace, separated by ", ", cut to `length` bytes with the zero.
void netdev_packet_names(char *names, size_t length);

// Steps of netdev_packet_prepare and netdev_packet_begin.
enum netdev_packet_step {
  netdev_packet_step_filter,
  netdev_packet_step_version,
  netdev_packet_step_header,
  netdev_packet_step_loss,
  netdev_packet_step_outgoing,
  netdev_packet_step_receive_ring,
  netdev_packet_step_transmit_ring,
  netdev_packet_step_map,
  netdev_packet_step_bind,
  netdev_packet_step_promiscuous,
  netdev_packet_step_group,
  netdev_packet_step_open_filter,
};

// Two rings of slots of one size, a power of two.
struct netdev_packet_rings {
  uint32_t slot_size;
  uint32_t receive_slots;   // each count fills whole blocks: a multiple of netdev_packet_slots_per_block
  uint32_t transmit_slots;
};

// Slots that one block of the kernel's memory has.
uint32_t netdev_packet_slots_per_block(uint32_t slot_size);

// Bytes in front of a received frame in its slot, and of one to transmit: as much as there can be.
#define NETDEV_PACKET_OVERHEAD 112

// Sets the socket up, behind a filter that drops everything, and maps its rings: the receive ring first. Returns 0 or -errno;
// `*step` then says what failed.
int netdev_packet_prepare(int descriptor, struct netdev_packet_rings rings, void **memory, int *step);

// Bytes of the mapping.
size_t netdev_packet_length(struct netdev_packet_rings rings);

// Binds the socket to the interface. Its filter still drops everything. Returns 0 or -errno.
int netdev_packet_bind(int descriptor, int index);

// The index of the interface that the socket is bound to. Returns it, or -errno: -ENODEV when that has left the socket's namespace.
// Should it come back, even with its index, the socket remains without it.
int netdev_packet_bound_to(int descriptor);

// Asks the interface to receive what is for other stations too, as long as the socket is open. Returns 0 or -errno.
int netdev_packet_promise_all(int descriptor, int index);

// Joins the sockets that share an interface's frames by flow; a `group` of -1 makes one. Returns its number, or -errno.
int netdev_packet_join(int descriptor, int group);

// Lets the filter go: from here on frames arrive. Those for other stations are dropped in front of the ring, unless `all`: an
// interface that somebody else has made promiscuous has them too. Returns 0 or -errno.
int netdev_packet_begin(int descriptor, bool all);

// Has the kernel take frames from the transmit ring, without waiting. Returns 0 or -errno.
int netdev_packet_send(int descriptor);

// The error that the kernel has noted for the socket, which it forgets: 0 for none, or -errno.
int netdev_packet_error(int descriptor);

// Frames that the kernel has dropped for want of room since this was asked last, or -errno.
int64_t netdev_packet_drops(int descriptor);

// Asks for a larger share of the system's memory for frames under way. What the system grants is enough to go on.
void netdev_packet_set_room(int descriptor, int bytes);

// A descriptor that is readable once after frames have left the transmit ring, however many and wherever in it. The socket
// itself says only whether there is room. Returns it or -errno.
int netdev_packet_watch_releases(int descriptor);

// Takes what such a descriptor tells. Returns how many were told, or -errno.
int netdev_packet_take_releases(int descriptor);

// MARK: - Slots

// A received frame, as its slot says: copied once.
struct netdev_packet_frame {
  uint32_t offset;    // of the first byte in the slot; what is captured lies in the slot
  uint32_t captured;  // bytes that are there
  uint32_t length;    // bytes that the frame had
  uint16_t tag;       // the VLAN tag that the kernel took out of the frame
  uint16_t tag_protocol;
  bool has_tag;
  bool is_outgoing;     // sent by this host
  bool lacks_checksum;  // its checksum is to be completed
  bool has_segments;    // it stands for several frames, which are to be cut out of it
  uint16_t checksum_start;
  uint16_t checksum_offset;
};

// What the kernel has put into a receive slot. False when the slot is the kernel's.
bool netdev_packet_read(const void *slot, uint32_t slot_size, struct netdev_packet_frame *frame);

// Whether a receive slot has a frame.
static inline bool netdev_packet_has_frame(const void *slot) {
  return (netdev_load_acquire_u32(slot) & 1) != 0;  // TP_STATUS_USER
}

// Gives a receive slot to the kernel.
static inline void netdev_packet_give_back(void *slot) {
  netdev_store_release_u32(slot, 0);  // TP_STATUS_KERNEL
}

// Where a frame to transmit begins in its slot.
#define NETDEV_PACKET_TRANSMIT_OFFSET 42

// Makes a slot with `length` bytes of frame ready to be taken.
void netdev_packet_publish(void *slot, uint32_t length);

// Takes back a slot that the kernel has not taken.
static inline void netdev_packet_withdraw(void *slot) { netdev_store_release_u32(slot, 0); }

// Whether the kernel has taken the frame; and whether it is done with it.
static inline bool netdev_packet_is_taken(const void *slot) {
  return (netdev_load_acquire_u32(slot) & 1) == 0;  // TP_STATUS_SEND_REQUEST
}
static inline bool netdev_packet_is_released(const void *slot) {
  return (netdev_load_acquire_u32(slot) & 3) == 0;  // nor TP_STATUS_SENDING
}

#endif
