// libevent's own system calls. An executable's definition of a function is the one that shared libraries call, too: what
// libevent calls comes by here, and by the seam; whatever else comes here (Dispatch has an epoll of its own) goes on as it is.
//
// The pipe in event_base_new is not here: libevent ends the process when it is refused, and the library keeps descriptors in
// reserve for that call.
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "CFaultSupport.h"

static bool is_refused(const char *call, const void *caller) {
  Dl_info image;
  if (!dladdr(caller, &image) || !image.dli_fname || !strstr(image.dli_fname, "libevent")) return false;
  return netdev_fault_refuses("libevent", call, caller);
}

int epoll_create1(int flags) {
  if (is_refused("epoll_create1", __builtin_return_address(0))) return -1;
  return (int)syscall(SYS_epoll_create1, flags);
}

int epoll_ctl(int epoll, int operation, int descriptor, struct epoll_event *event) {
  const void *caller = __builtin_return_address(0);
  if (operation == EPOLL_CTL_DEL) {
    // It fails when the descriptor is not there, and in no other way: then it is not there afterwards either.
    int result = (int)syscall(SYS_epoll_ctl, epoll, operation, descriptor, event);
    return is_refused("epoll_ctl_del", caller) ? -1 : result;
  }
  if (is_refused(operation == EPOLL_CTL_ADD ? "epoll_ctl_add" : "epoll_ctl_mod", caller)) return -1;
  return (int)syscall(SYS_epoll_ctl, epoll, operation, descriptor, event);
}

int epoll_wait(int epoll, struct epoll_event *events, int count, int milliseconds) {
  if (is_refused("epoll_wait", __builtin_return_address(0))) return -1;
  return (int)syscall(SYS_epoll_pwait, epoll, events, count, milliseconds, NULL, 8);
}
