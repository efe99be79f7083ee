// What the library's own sending refuses: more descriptors with a message than anybody may send.
#ifndef SWIFT_NETDEV_FUZZ_SUPPORT_H
#define SWIFT_NETDEV_FUZZ_SUPPORT_H

#include <stddef.h>
#include <sys/types.h>

// The most descriptors that the kernel takes with one message.
#define FUZZ_DESCRIPTORS 253

// Writes up to `length` bytes (at least one) and, with the first of them, the same descriptor `count` times. Returns the
// bytes, or -errno.
ssize_t fuzz_send(int socket, const void *bytes, size_t length, int descriptor, int count);

#endif
