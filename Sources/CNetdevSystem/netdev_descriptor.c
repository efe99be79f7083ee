#include "netdev_descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "netdev_fault.h"

void netdev_close(int descriptor) { (void)NETDEV_CALL_DONE(close, descriptor); }

int netdev_descriptor_above_standard(int descriptor) {
  if (descriptor < 0 || descriptor > STDERR_FILENO) return descriptor;
  int higher = NETDEV_CALL(fcntl, descriptor, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  int error = errno;
  netdev_close(descriptor);
  return higher < 0 ? -error : higher;
}

int netdev_unlink(const char *path) { return NETDEV_CALL(unlink, path) < 0 ? -errno : 0; }

int32_t netdev_process_identifier(void) { return (int32_t)getpid(); }
