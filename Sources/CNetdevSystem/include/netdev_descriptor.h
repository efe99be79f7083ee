// Descriptors and files, as far as any of them is closed or removed in the same way.
#ifndef SWIFT_NETDEV_DESCRIPTOR_H
#define SWIFT_NETDEV_DESCRIPTOR_H

#include <stdint.h>

// Closes a descriptor. Linux has closed it whatever it reports, so that there is nothing to report here.
void netdev_close(int descriptor);

// Removes a file. Returns 0 or -errno.
int netdev_unlink(const char *path);

// The number of this process.
int32_t netdev_process_identifier(void);

#endif
