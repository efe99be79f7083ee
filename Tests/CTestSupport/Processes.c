#include "CTestSupport.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

int test_start_connected_process(const char *path, int count) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  // As fork, with one flag more.
  long process = syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
  if (process < 0) return -errno;
  if (process > 0) return (int)process;
  int descriptor = -1;
  while (count-- > 0) {
    descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0 || connect(descriptor, (struct sockaddr *)&address, sizeof address) < 0) _exit(1);
  }
  // Whoever has forgotten it has closed its last connection, or ended.
  char byte;
  while (read(descriptor, &byte, 1) > 0) {
  }
  _exit(0);
}

void test_end_process(int process) {
  kill(process, SIGKILL);
  waitpid(process, NULL, 0);
}

static void listen_until_killed(const struct sockaddr_un *address) {
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || bind(listener, (const struct sockaddr *)address, sizeof *address) < 0 || listen(listener, 1) < 0)
    _exit(1);
  // Nobody forgets it: its parent kills it in the same function.
  alarm(60);
  for (;;) pause();
}

static int watch_peer(const struct sockaddr_un *address, int told, int (*peer_process)(int, int32_t *)) {
  int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  for (int tries = 0; connect(descriptor, (const struct sockaddr *)address, sizeof *address) < 0; tries++) {
    if (tries == 10000) return 2;
    usleep(1000);
  }
  int32_t number = -1;
  int peer = peer_process(descriptor, &number);
  if (peer < 0) return 3;
  if (number != 0) return 4;
  struct pollfd entry = {.fd = peer, .events = POLLIN};
  if (poll(&entry, 1, 0) != 0) return 5;
  if (write(told, "", 1) != 1) return 6;
  return poll(&entry, 1, 30000) == 1 ? 0 : 7;
}

int test_watch_from_namespace(const char *path, int (*peer_process)(int descriptor, int32_t *process)) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  int told[2];
  if (pipe2(told, O_CLOEXEC) < 0) return -errno;
  pid_t listener = fork();
  if (listener == 0) {
    // Else the caller would wait for a watcher that has ended without a word.
    close(told[0]);
    close(told[1]);
    listen_until_killed(&address);
  }
  // As fork, with one flag more.
  long watcher = syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
  if (watcher == 0) _exit(watch_peer(&address, told[1], peer_process));
  close(told[1]);
  char byte;
  int status = -1;
  if (watcher > 0 && read(told[0], &byte, 1) < 0) status = -2;
  close(told[0]);
  if (listener > 0) test_end_process(listener);
  if (watcher > 0 && waitpid((pid_t)watcher, &status, 0) < 0) return -errno;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
