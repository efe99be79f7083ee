#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "interposed.h"
#include "simulated_kernel.h"
#include "simulated_objects.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

// A process is a pipe: who has the reading end is told when the other one is closed, as of a process' descriptor.
struct process {
  struct process *next;
  int number;
  int ends[2];
  char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

static __thread struct process *processes;
static __thread int numbers;

static struct process *find(int number) {
  struct process *process = processes;
  while (process && process->number != number) process = process->next;
  return process;
}

int simulated_process_begin(void) {
  struct process *process = calloc(1, sizeof *process);
  if (!process) return -1;
  if (pipe2(process->ends, O_CLOEXEC | O_NONBLOCK) < 0) {
    free(process);
    return -1;
  }
  // They go with the world.
  interposed_closed(process->ends[0]);
  interposed_closed(process->ends[1]);
  process->next = processes;
  process->number = ++numbers;
  processes = process;
  return process->number;
}

void simulated_process_exit(int number) {
  struct process *process = find(number);
  if (!process || process->ends[1] < 0) return;
  close(process->ends[1]);
  process->ends[1] = -1;
}

void simulated_process_listens(int number, int listener) {
  struct sockaddr_un name = {0};
  socklen_t length = sizeof name;
  // As it was bound, which is what whoever connects is told: its file may have another name since.
  if (getsockname(listener, (struct sockaddr *)&name, &length) < 0 || name.sun_family != AF_UNIX) return;
  char *path = name.sun_path;
  for (struct process *other = processes; other; other = other->next)
    if (strncmp(other->path, path, sizeof name.sun_path) == 0) other->path[0] = 0;
  struct process *process = find(number);
  if (process && strnlen(path, sizeof name.sun_path) < sizeof process->path) strcpy(process->path, path);
}

// A name without a file, that tells which process of which test it is.
static socklen_t name_of(int number, struct sockaddr_un *name) {
  *name = (struct sockaddr_un){.sun_family = AF_UNIX};
  int length = snprintf(name->sun_path + 1, sizeof name->sun_path - 1, "netdev-simulation/%d/%d", (int)getpid(), number);
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

int simulated_process_connect(int number, const char *path) {
  struct sockaddr_un own, name = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof name.sun_path) return -ENAMETOOLONG;
  strcpy(name.sun_path, path);
  int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor < 0) return -errno;
  if (bind(descriptor, (struct sockaddr *)&own, name_of(number, &own)) < 0 ||
      connect(descriptor, (struct sockaddr *)&name, sizeof name) < 0) {
    int error = errno;
    close(descriptor);
    return -error;
  }
  return descriptor;
}

static struct process *behind(int descriptor) {
  struct sockaddr_un name = {0}, other;
  socklen_t length = sizeof name;
  if (getpeername(descriptor, (struct sockaddr *)&name, &length) < 0 || name.sun_family != AF_UNIX) return NULL;
  for (struct process *process = processes; process; process = process->next) {
    if (process->path[0] && strcmp(process->path, name.sun_path) == 0) return process;
    if (length == name_of(process->number, &other) && memcmp(&name, &other, length) == 0) return process;
  }
  return NULL;
}

// The process at the other end of a socket, if it is one of the world's: ENOTCONN is for all others.
int simulated_process_behind(int descriptor, int option, void *value, socklen_t *length) {
  if (option != SO_PEERCRED && option != SO_PEERPIDFD) return -ENOTCONN;
  struct process *process = behind(descriptor);
  if (!process) return -ENOTCONN;
  if (option == SO_PEERCRED) {
    // Far beyond the numbers of real ones.
    struct ucred credentials = {.pid = (1 << 23) + process->number, .uid = getuid(), .gid = getgid()};
    memcpy(value, &credentials, *length < sizeof credentials ? *length : sizeof credentials);
    return 0;
  }
  int copy = fcntl(process->ends[0], F_DUPFD_CLOEXEC, 3);
  if (copy < 0) return -errno;
  // The library keeps it until the process has ended, with the memory that that one has.
  interposed_closed(copy);
  memcpy(value, &copy, sizeof copy);
  return 0;
}

void simulated_processes_end(void) {
  while (processes) {
    struct process *process = processes;
    processes = process->next;
    if (process->ends[1] >= 0) close(process->ends[1]);
    close(process->ends[0]);
    free(process);
  }
  numbers = 0;
}
