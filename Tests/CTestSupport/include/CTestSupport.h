// Calls that tests make of the kernel and that Swift's Glibc module does not show.
#ifndef SWIFT_NETDEV_TEST_SUPPORT_H
#define SWIFT_NETDEV_TEST_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Gives the calling thread a network namespace of its own, with its loopback interface up. Returns a descriptor of the one
// it was in, for test_leave_network, or -errno. What the thread opens meanwhile belongs to the new namespace, which lives as
// long as any of it.
int test_enter_new_network(void);

// Takes the calling thread back and closes the descriptor. Returns 0 or -errno.
int test_leave_network(int descriptor);

// A non-blocking socket that sees and sends whole frames of one interface of the calling thread's namespace, or -errno.
int test_packet_socket(const char *interface);

// What a sender leaves to its interface: a checksum to complete, from `start` on, at `start` + `offset` (a start of 0: none), and
// pieces of so many bytes to cut the frame into (0: none).
struct test_offload {
  uint16_t start;
  uint16_t offset;
  uint16_t piece;
};

// Sends a frame so many times by an interface of the calling thread's namespace. Returns 0 or -errno.
int test_send_frame(
    const char *interface, const uint8_t *bytes, size_t length, struct test_offload offload, int times);

// Makes a TAP interface that stays (ip tuntap add). Returns 0 or -errno.
int test_make_persistent_tap(const char *name, int multi_queue);

// Sets the MTU of an interface of the calling thread's namespace. Returns 0 or -errno.
int test_set_mtu(const char *interface, int mtu);

// 1 if the calling thread's namespace has an interface of this name, else 0.
int test_interface_exists(const char *interface);

// Context switches of the calling thread so far, voluntary and involuntary.
long test_context_switches(void);

// Waits up to `milliseconds` for a descriptor to be readable. Returns 1 when it is.
int test_wait_readable(int descriptor, int milliseconds);

// 1 in a build with ThreadSanitizer, else 0.
int test_thread_sanitizer(void);

// A blocking UDP socket connected to 127.0.0.1:port whose reads give up after `milliseconds`, or -errno.
int test_udp_client(uint16_t port, int milliseconds);

// A UDP socket bound to `own` and connected to `address`, both in numbers of one family, whose reads give up after
// `milliseconds`, or -errno. It hears only what comes from that address.
int test_udp_client_between(const char *own, const char *address, uint16_t port, int milliseconds);

// Opens a queue of a multi-queue TAP interface, or of a TUN interface, as another program might: with virtio-net headers or
// without. Returns the descriptor or -errno.
int test_open_tap_queue(const char *name, int is_tun, int with_headers);

// Sets the length of the interface's headers by way of any of its queues. Returns 0 or -errno.
int test_set_header_length(int descriptor, int length);

// Runs a shell command in the calling thread's namespace; its exit status, or -1 when it had none.
int test_shell_command(const char *command);

// A system call to refuse.
enum test_call {
  test_call_readv,
  test_call_writev,
  test_call_recvmmsg,
  test_call_sendmmsg,
  test_call_newfstatat,
  test_call_timerfd_settime,
  test_call_renameat2,
  test_call_setns,
  test_call_sched_setaffinity,
  test_call_preadv2,
  // MADV_POPULATE_WRITE, and no other madvise.
  test_call_populate,
  // The same of whole huge pages.
  test_call_populate_huge,
  // Of one option each: SO_PEERPIDFD, PACKET_IGNORE_OUTGOING.
  test_call_peer_descriptor,
  test_call_ignore_outgoing,
  // SIOCSIFFLAGS.
  test_call_link_flags,
};

// Runs `body` on a thread of its own on which a filter of system calls (seccomp) refuses one with an error number, as a
// sandbox does. Returns 0, or -errno when the filter cannot be had.
int test_on_thread_refusing(enum test_call call, int error, void (*body)(void *), void *context);

// Has the same done to the calling thread, and to those that it starts, from here on: there is no way back. Returns 0 or -errno.
int test_refuse_here(enum test_call call, int error);

// Has a thread hold the kernel's lock of all changes to links (rtnl) for so many milliseconds; it holds it when this returns.
// Whoever asks the kernel about a link waits meanwhile, on the whole machine. Returns 0, or -errno when it cannot be had
// (userfaultfd, /dev/net/tun).
int test_hold_link_lock(int milliseconds);

// 1 while that lasts, else 0.
int test_link_lock_is_held(void);

// Whether it can be held here. In CI it can: tests that need it run rather than being skipped.
bool test_can_hold_link_lock(void);

// Makes a netlink socket readable as if the kernel had told it something. Returns 0 or -errno.
int test_tell_netlink(int descriptor);

// Starts a process in a namespace of process numbers of its own, which connects to a socket `count` times and stays until its last
// connection ends, or until test_end_process kills it. Returns its number here, or -errno.
int test_start_connected_process(const char *path, int count);
void test_end_process(int process);

// Watches a process that has no number in the watcher's namespace of process numbers, as one outside of a container: a process
// of the caller's namespace listens on `path`, and one of a namespace of its own connects and asks for the process behind that,
// by a function like netdev_unix_peer_process. Then the first one is killed. Returns 0 when the other one has seen its exit; or
// the step at which something else happened.
int test_watch_from_namespace(const char *path, int (*peer_process)(int descriptor, int32_t *process));

// What one of the C library's functions that open descriptors has opened.
struct test_opened {
  int descriptors[2];
  int count;
  // Around one descriptor.
  void *file;
  void *folder;
  bool is_process;
};

// Those functions, one after the other from 0 on: a name, NULL behind the last one; opens, returns 0 or -errno; closes.
const char *test_opening_name(size_t index);
int test_opening_open(size_t index, struct test_opened *opened);
void test_opening_close(struct test_opened *opened);
// Takes the lowest number that is free, by a system call of its own that nobody sees: memory.
int test_take_number(void);
// What functions of the C library answer that close a descriptor where there is none: an errno, or 0. And one closed among others.
int test_close_folder_of_nothing(void);
int test_close_stream_of_memory(void);
int test_close_by_range(void);

#endif
