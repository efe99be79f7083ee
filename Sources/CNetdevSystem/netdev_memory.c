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

int netdev_memfd_create(const char *name, size_t length, bool huge_pages) {
  unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  if (huge_pages) flags |= MFD_HUGETLB | MFD_HUGE_2MB;
  int descriptor = NETDEV_CALL(memfd_create, name, flags);
  if (descriptor < 0) return -errno;
  if (NETDEV_CALL(ftruncate, descriptor, (off_t)length) < 0 ||
      NETDEV_CALL(fcntl, descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
    int error = errno;
    if (!NETDEV_PLANTED("leak")) netdev_close(descriptor);
    return -error;
  }
  return descriptor;
}

void *netdev_map_shared(int descriptor, size_t length) {
  void *address =
      NETDEV_CALL(mmap, NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor, 0);
  return address == MAP_FAILED ? NULL : address;
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
