// Ordered accesses to memory shared with a device or another thread.
//
// Ring fields are read with acquire and written with release; the one full fence stands between publishing and reading the
// other side's suppression area (VIRTIO 1.4 §2.7.13.3, §2.7.10). ThreadSanitizer understands these accesses.
#ifndef SWIFT_NETDEV_ATOMICS_H
#define SWIFT_NETDEV_ATOMICS_H

#include <stdbool.h>
#include <stdint.h>

static inline uint16_t netdev_load_acquire_u16(const void *address) {
  return __atomic_load_n((const uint16_t *)address, __ATOMIC_ACQUIRE);
}

static inline uint32_t netdev_load_acquire_u32(const void *address) {
  return __atomic_load_n((const uint32_t *)address, __ATOMIC_ACQUIRE);
}

static inline uint64_t netdev_load_acquire_u64(const void *address) {
  return __atomic_load_n((const uint64_t *)address, __ATOMIC_ACQUIRE);
}

static inline void netdev_store_release_u16(void *address, uint16_t value) {
  __atomic_store_n((uint16_t *)address, value, __ATOMIC_RELEASE);
}

static inline void netdev_store_release_u32(void *address, uint32_t value) {
  __atomic_store_n((uint32_t *)address, value, __ATOMIC_RELEASE);
}

static inline void netdev_store_release_u64(void *address, uint64_t value) {
  __atomic_store_n((uint64_t *)address, value, __ATOMIC_RELEASE);
}

// Relaxed accesses: for fields of a shared table whose order another access settles, read or written exactly once.
static inline uint8_t netdev_load_relaxed_u8(const void *address) {
  return __atomic_load_n((const uint8_t *)address, __ATOMIC_RELAXED);
}

static inline uint16_t netdev_load_relaxed_u16(const void *address) {
  return __atomic_load_n((const uint16_t *)address, __ATOMIC_RELAXED);
}

static inline uint32_t netdev_load_relaxed_u32(const void *address) {
  return __atomic_load_n((const uint32_t *)address, __ATOMIC_RELAXED);
}

static inline uint64_t netdev_load_relaxed_u64(const void *address) {
  return __atomic_load_n((const uint64_t *)address, __ATOMIC_RELAXED);
}

static inline void netdev_store_relaxed_u8(void *address, uint8_t value) {
  __atomic_store_n((uint8_t *)address, value, __ATOMIC_RELAXED);
}

static inline void netdev_store_relaxed_u16(void *address, uint16_t value) {
  __atomic_store_n((uint16_t *)address, value, __ATOMIC_RELAXED);
}

static inline void netdev_store_relaxed_u32(void *address, uint32_t value) {
  __atomic_store_n((uint32_t *)address, value, __ATOMIC_RELAXED);
}

static inline void netdev_store_relaxed_u64(void *address, uint64_t value) {
  __atomic_store_n((uint64_t *)address, value, __ATOMIC_RELAXED);
}

// The StoreLoad fence: what was stored before is visible before anything after is loaded.
static inline void netdev_full_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

static inline void netdev_acquire_fence(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }

// Replaces `*expected` by `desired`, or says what is there instead; may fail for no reason, as a loop around it expects.
static inline bool netdev_compare_exchange_word(uintptr_t *address, uintptr_t *expected, uintptr_t desired) {
  return __atomic_compare_exchange_n(address, expected, desired, true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static inline uintptr_t netdev_load_acquire_word(const uintptr_t *address) {
  return __atomic_load_n(address, __ATOMIC_ACQUIRE);
}

static inline uintptr_t netdev_load_relaxed_word(const uintptr_t *address) {
  return __atomic_load_n(address, __ATOMIC_RELAXED);
}

static inline void netdev_store_release_word(uintptr_t *address, uintptr_t value) {
  __atomic_store_n(address, value, __ATOMIC_RELEASE);
}

// Acquires what the last one stored with release, as who takes a lock does.
static inline uint16_t netdev_exchange_acquire_u16(uint16_t *address, uint16_t value) {
  return __atomic_exchange_n(address, value, __ATOMIC_ACQUIRE);
}

static inline uint32_t netdev_exchange_u32(uint32_t *address, uint32_t value) {
  return __atomic_exchange_n(address, value, __ATOMIC_SEQ_CST);
}

#endif
