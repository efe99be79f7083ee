#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "CSimulation.h"
#include "interposed.h"
#include "simulated_objects.h"

// Descriptors that a world's thread has opened, and nobody has closed: those of other threads are none of its. What is memory only
// is left out, which the library keeps as long as a device may still write to it.

static atomic_bool opened[INTERPOSED_MOST];
// None from here on has been opened; known to worlds' threads, of which there is one at a time.
static int beyond;

int interposed_opened(int descriptor) {
  if (descriptor < 0 || descriptor >= INTERPOSED_MOST) return descriptor;
  if (!interposed_world()) {
    // What had this number before is closed, wherever.
    interposed_closed(descriptor);
    return descriptor;
  }
  atomic_store(&opened[descriptor], true);
  if (descriptor >= beyond) beyond = descriptor + 1;
  return descriptor;
}

void interposed_closed(int descriptor) {
  if (descriptor >= 0 && descriptor < INTERPOSED_MOST && atomic_load(&opened[descriptor])) atomic_store(&opened[descriptor], false);
}

// What an open descriptor is, as the kernel says; false when it is not open.
static bool read_kind(int descriptor, char *kind, size_t room) {
  char link[32];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, kind, room - 1);
  if (length < 0) return false;
  kind[length] = 0;
  return true;
}

int simulation_descriptor_left(int from, char *kind, size_t room) {
  for (int descriptor = from; descriptor < beyond; descriptor++) {
    if (!atomic_load(&opened[descriptor])) continue;
    // Closed inside of the C library.
    if (!read_kind(descriptor, kind, room)) continue;
    // The number of a socket or a pipe is another one each time.
    if (strncmp(kind, "anon_inode:", 11) != 0) kind[strcspn(kind, "[")] = 0;
    const struct object *object = simulated_object(descriptor);
    static const char *const words[] = {[TAP_QUEUE] = "/dev/net/tun", [LINK_SOCKET] = "a link socket", [INTERNET_SOCKET] = "a UDP socket"};
    if (object) snprintf(kind, room, "%s", words[object->kind]);
    return descriptor;
  }
  return -1;
}

void simulation_descriptors_forget(void) {
  for (int descriptor = 0; descriptor < beyond; descriptor++) interposed_closed(descriptor);
  beyond = 0;
}

// --- What a message brings

void interposed_received(struct msghdr *message) {
  for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t index = 0; index < count; index++) {
      int descriptor;
      memcpy(&descriptor, CMSG_DATA(part) + index * sizeof descriptor, sizeof descriptor);
      char kind[64];
      if (read_kind(descriptor, kind, sizeof kind) && strncmp(kind, "/memfd:", 7) == 0)
        interposed_closed(descriptor);
      else
        interposed_opened(descriptor);
    }
  }
}
