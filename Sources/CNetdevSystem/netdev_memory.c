#include "netdev_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "netdev_descriptor.h"
#include "netdev_fault.h"

#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if __has_feature(address_sanitizer) || defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define NETDEV_ASAN 1
#endif
#if __has_feature(thread_sanitizer) || defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define NETDEV_TSAN 1
#endif

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

int netdev_memfd_create(const char *name, size_t length, bool huge_pages) {
  unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  if (huge_pages) flags |= MFD_HUGETLB | MFD_HUGE_2MB;
  int descriptor = netdev_descriptor_above_stdio(NETDEV_CALL(memfd_create, name, flags));
  if (descriptor < 0) return descriptor;
  if (NETDEV_CALL(ftruncate, descriptor, (off_t)length) < 0 ||
      NETDEV_CALL(fcntl, descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
    int error = errno;
    if (!NETDEV_PLANTED("leak")) netdev_close(descriptor);
    return -error;
  }
  return descriptor;
}

// Sees to it that every page is there. MAP_POPULATE does not say when it could not, and a huge page that a control group
// forbids, or memory that the host has run out of, is then SIGBUS at the first access.
static int populate(void *address, int descriptor, size_t length) {
  if (NETDEV_CALL(madvise, address, length, MADV_POPULATE_WRITE) == 0) return 0;
  if (errno != EINVAL && !netdev_error_is_refusal(errno)) return -1;
  // Kernels before 5.14, and filters: the file has the pages at least.
  return NETDEV_CALL(fallocate, descriptor, 0, 0, (off_t)length);
}

void *netdev_map_shared(int descriptor, size_t length) {
  void *address = NETDEV_CALL(mmap, NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (address == MAP_FAILED) return NULL;
  if (populate(address, descriptor, length) == 0) return address;
  int error = errno;
  netdev_unmap(address, length);
  errno = error;
  return NULL;
}

void netdev_unmap(void *address, size_t length) { (void)NETDEV_CALL_DONE(munmap, address, length); }

void netdev_note_release(const void *object) {
#ifdef NETDEV_TSAN
  __tsan_release((void *)object);
#else
  (void)object;
#endif
}

void netdev_note_last(const void *object) {
#ifdef NETDEV_TSAN
  __tsan_acquire((void *)object);
#else
  (void)object;
#endif
}

#ifdef NETDEV_ASAN
const bool netdev_poisoning = true;
#else
const bool netdev_poisoning = false;
#endif

void netdev_poison_region(const void *address, size_t length) {
#ifdef NETDEV_ASAN
  __asan_poison_memory_region(address, length);
#else
  (void)address;
  (void)length;
#endif
}

void netdev_unpoison_region(const void *address, size_t length) {
#ifdef NETDEV_ASAN
  __asan_unpoison_memory_region(address, length);
#else
  (void)address;
  (void)length;
#endif
}
