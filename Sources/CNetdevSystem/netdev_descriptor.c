#include "netdev_descriptor.h"

#include <errno.h>
#include <unistd.h>

#include "netdev_fault.h"

void netdev_close(int descriptor) { (void)NETDEV_CALL_DONE(close, descriptor); }

int netdev_unlink(const char *path) { return NETDEV_CALL(unlink, path) < 0 ? -errno : 0; }

int32_t netdev_process_identifier(void) { return (int32_t)getpid(); }
