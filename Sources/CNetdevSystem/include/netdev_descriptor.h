// Descriptors and files, as far as any of them is closed or removed in the same way.
#ifndef SWIFT_NETDEV_DESCRIPTOR_H
#define SWIFT_NETDEV_DESCRIPTOR_H

#include <stdbool.h>
#include <stdint.h>

// Takes what a call that makes a descriptor has returned: the descriptor, or -1 with errno set. Returns it, or -errno; one that
// would be standard input, output or error, because the program was started without them, is moved up (close-on-exec): what is
// printed shall not land in a device. Every descriptor of the library comes by here.
int netdev_descriptor_above_stdio(int descriptor);

// Descriptors kept free for a call of others that ends the process when it cannot have them.
struct netdev_reserve {
  int parked[3];
  int count;
};

// Makes sure that `wanted` descriptors are to be had, and that none of those made until netdev_reserve_end is below 3. Loops
// made at the same time wait for each other here; a thread of the program's own that opens files meanwhile may still be quicker.
// Returns 0 or -errno: then there is no reserve and nothing to end.
int netdev_reserve_begin(struct netdev_reserve *reserve, int wanted);
void netdev_reserve_end(struct netdev_reserve *reserve);

// The same for a call that another thread makes: nobody waits here, and any thread may give it back.
int netdev_reserve_take(struct netdev_reserve *reserve, int wanted);
void netdev_reserve_give_back(struct netdev_reserve *reserve);

// How many numbers above standard error the limit of descriptors (RLIMIT_NOFILE) leaves free, as far as `wanted`; or -errno.
// Nothing is opened for it.
int netdev_descriptors_free(int wanted);

// Closes a descriptor. Linux has closed it whatever it reports, so that there is nothing to report here; errno stays.
void netdev_close(int descriptor);

// Removes a file. Returns 0 or -errno.
int netdev_unlink(const char *path);

// Whether a call, or what it was asked for, is not to be had here: it is unknown to the kernel or to this kind of descriptor, or a
// filter of system calls or a security module stands in the way, which answer with one of several numbers. What the library can do
// without is then done in another way, whatever the number is; EINVAL counts where it means that the kernel is older.
bool netdev_error_is_refusal(int number);

// The name of an error number ("ENODEV"), and what it means in English; NULL for a number that has none.
const char *netdev_error_name(int number);
const char *netdev_error_meaning(int number);

// The number of this process.
int32_t netdev_process_identifier(void);

#endif
