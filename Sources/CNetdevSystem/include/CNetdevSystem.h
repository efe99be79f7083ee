// What Swift cannot say: ordered accesses to shared memory, ioctl macros, system calls that Glibc's module does not show.
#ifndef SWIFT_NETDEV_SYSTEM_H
#define SWIFT_NETDEV_SYSTEM_H

#include "netdev_atomics.h"
#include "netdev_descriptor.h"
#include "netdev_fault.h"
#include "netdev_link.h"
#include "netdev_loop.h"
#include "netdev_memory.h"
#include "netdev_packet.h"
#include "netdev_tap.h"
#include "netdev_udp.h"
#include "netdev_unix.h"

#endif
