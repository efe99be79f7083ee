// Local stream sockets that carry descriptors, and the process at the other end.
#ifndef SWIFT_NETDEV_UNIX_H
#define SWIFT_NETDEV_UNIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// The most descriptors that one message carries in either direction; what a peer sends beyond them the kernel closes.
#define NETDEV_UNIX_DESCRIPTORS 32

// Bytes of the longest socket path, its end not counted.
#define NETDEV_UNIX_PATH 107

// A non-blocking, close-on-exec stream socket connected to `path`, or -errno; -EAGAIN when the listener's backlog is full.
int netdev_unix_connect(const char *path);

// A file, whatever its name is.
struct netdev_file {
  uint64_t device;
  uint64_t inode;
};

// A non-blocking, close-on-exec socket that listens on `path`, or -errno. A socket file that nobody listens on is replaced;
// any other file, and a socket that somebody listens on, is -EADDRINUSE. The name is there only when the socket listens, so that
// nobody who does the same takes it for a stale one: it is bound under another name in the directory, which goes in the same
// moment. (Paths of more than 90 bytes may leave no room for that, and some file systems know no such renaming.) `*file` is the socket's file: netdev_unix_close_listener
// removes it.
int netdev_unix_listen(const char *path, struct netdev_file *file);

// Whether a listening socket's file still has this name, as far as the system tells.
bool netdev_unix_has_path(const char *path, struct netdev_file file);

// Closes a listening socket, and removes its file if that still has this name: a listener that leaves must not take the name of
// its successor.
void netdev_unix_close_listener(int listener, const char *path, struct netdev_file file);

// The next connection, non-blocking and close-on-exec, or -errno.
int netdev_unix_accept(int listener);

// Two connected sockets, both non-blocking and close-on-exec. Returns 0 or -errno.
int netdev_unix_pair(int *ends);

// Reads up to `length` bytes and the descriptors that came with them, which the caller owns then (close-on-exec).
// `descriptors` has room for NETDEV_UNIX_DESCRIPTORS. `*truncated` says that more were sent, or that one could not be kept. Returns the bytes, 0 at the
// end, or -errno.
ssize_t netdev_unix_receive(int descriptor, void *bytes, size_t length, int *descriptors, int *count, bool *truncated);

// Writes up to `length` bytes and, with the first of them, `count` descriptors. Returns the bytes, or -errno; descriptors
// were sent unless that is negative.
ssize_t netdev_unix_send(int descriptor, const void *bytes, size_t length, const int *descriptors, int count);

// A descriptor for the process that connected, or listened when this end connected: readable when the process has
// exited. Its number goes to `*process`, 0 for one of another namespace of numbers. -errno when it cannot be had, -ESRCH when the process has exited already.
int netdev_unix_peer_process(int descriptor, int32_t *process);

// A number that no other process has while the descriptor is open; 0 where this kernel has none, and for this process.
uint64_t netdev_process_identity(int process_descriptor);

#endif
