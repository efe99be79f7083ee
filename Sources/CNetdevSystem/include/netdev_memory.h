// Shared memory, and what the sanitizers must be told about it.
#ifndef SWIFT_NETDEV_MEMORY_H
#define SWIFT_NETDEV_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

// A sealable memfd of `length` bytes, grown and sealed against shrinking, or -errno.
// With `huge_pages`, `length` must be a multiple of 2 MiB; -ENOMEM is then seen at mapping.
int netdev_memfd_create(const char *name, size_t length, bool huge_pages);

// Maps the whole of a descriptor shared, with every page there; NULL on failure with errno set, also when a page is not to be
// had.
void *netdev_map_shared(int descriptor, size_t length);

// Gives a mapping back.
void netdev_unmap(void *address, size_t length);

// For ThreadSanitizer, which does not see into the runtime that counts references: what this thread did before it let go of
// `object` has happened before what its last holder does. Nothing in other builds.
void netdev_note_release(const void *object);
void netdev_note_last(const void *object);

// AddressSanitizer's view of memory that is free but mapped. Nothing, at the price of one load, in other builds.
extern const bool netdev_poisoning;

void netdev_poison_region(const void *address, size_t length);
void netdev_unpoison_region(const void *address, size_t length);

static inline void netdev_poison(const void *address, size_t length) {
  if (netdev_poisoning) netdev_poison_region(address, length);
}

static inline void netdev_unpoison(const void *address, size_t length) {
  if (netdev_poisoning) netdev_unpoison_region(address, length);
}

#endif
