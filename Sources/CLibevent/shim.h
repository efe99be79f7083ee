#ifndef SWIFT_NETDEV_CLIBEVENT_SHIM_H
#define SWIFT_NETDEV_CLIBEVENT_SHIM_H
// sys/types.h first: event-config.h defines _GNU_SOURCE, and fd_set then changes shape for whoever includes it later.
#include <sys/types.h>
#include <event2/event.h>
#endif
