#include "echo_twin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "echo_wire.h"
#include "twin_support.h"

struct echo_server {
  enum echo_kind kind;
  int descriptor;
  uint64_t spin;
  uint64_t answered;
  int stop;
  pthread_t thread;
};

static int stopped(struct echo_server *server) { return __atomic_load_n(&server->stop, __ATOMIC_RELAXED); }

static void swap(uint8_t *a, uint8_t *b, size_t length) {
  uint8_t kept[6];
  memcpy(kept, a, length);
  memcpy(a, b, length);
  memcpy(b, kept, length);
}

// Addresses and ports of a UDP datagram change places; no checksum changes with them.
static int answer(uint8_t *frame, size_t length) {
  if (length < ECHO_HEADERS || frame[12] != 8 || frame[13] != 0 || frame[14] != 0x45 || frame[23] != 17) return 0;
  swap(frame, frame + 6, 6);
  swap(frame + 26, frame + 30, 4);
  swap(frame + 34, frame + 36, 2);
  return 1;
}

// Nothing to read: spins for a while if that is wanted, then sleeps. Returns when there may be something.
static void wait_readable(struct echo_server *server) {
  struct pollfd entry = {.fd = server->descriptor, .events = POLLIN};
  if (server->spin > 0) {
    uint64_t until = twin_now() + server->spin;
    do {
      if (poll(&entry, 1, 0) > 0) return;
    } while (twin_now() < until);
  }
  // Now and then the request to stop is looked at.
  poll(&entry, 1, 50);
}

static void serve_loop(struct echo_server *server) {
  uint8_t buffer[ECHO_HEADER + 2048];
  while (!stopped(server)) {
    ssize_t length = read(server->descriptor, buffer, sizeof buffer);
    if (length < 0) {
      if (errno != EAGAIN && errno != EINTR) return;
      wait_readable(server);
      continue;
    }
    if (length < ECHO_HEADER || !answer(buffer + ECHO_HEADER, (size_t)length - ECHO_HEADER)) continue;
    memset(buffer, 0, ECHO_HEADER);
    if (write(server->descriptor, buffer, (size_t)length) == length) server->answered++;
  }
}

static void serve_sockets(struct echo_server *server) {
  uint8_t buffer[2048];
  while (!stopped(server)) {
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    ssize_t length = recvfrom(server->descriptor, buffer, sizeof buffer, 0, (struct sockaddr *)&peer, &size);
    if (length < 0) {
      if (errno != EAGAIN && errno != EINTR) return;
      continue;
    }
    if (sendto(server->descriptor, buffer, (size_t)length, 0, (struct sockaddr *)&peer, size) == length)
      server->answered++;
  }
}

static void *run(void *context) {
  struct echo_server *server = context;
  if (server->kind == ECHO_LOOP)
    serve_loop(server);
  else
    serve_sockets(server);
  return NULL;
}

static int open_server_socket(void) {
  int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -1;
  struct sockaddr_in name = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(ECHO_INTERFACE_ADDRESS), .sin_port = htons(ECHO_PORT)};
  // Now and then the request to stop is looked at.
  struct timeval limit = {.tv_usec = 50000};
  if (bind(descriptor, (struct sockaddr *)&name, sizeof name) < 0 ||
      setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0) {
    close(descriptor);
    return -1;
  }
  return descriptor;
}

struct echo_server *echo_start(enum echo_kind kind, int tap, int cpu, uint64_t spin_nanoseconds) {
  struct echo_server *server = calloc(1, sizeof *server);
  if (!server) return NULL;
  server->kind = kind;
  server->spin = spin_nanoseconds;
  server->descriptor = kind == ECHO_LOOP ? dup(tap) : open_server_socket();
  if (server->descriptor < 0) {
    free(server);
    return NULL;
  }
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET((size_t)cpu, &set);
  int result = pthread_attr_setaffinity_np(&attributes, sizeof set, &set);
  if (result == 0) result = pthread_create(&server->thread, &attributes, run, server);
  pthread_attr_destroy(&attributes);
  if (result != 0) {
    close(server->descriptor);
    free(server);
    errno = result;
    return NULL;
  }
  return server;
}

uint64_t echo_stop(struct echo_server *server) {
  __atomic_store_n(&server->stop, 1, __ATOMIC_RELAXED);
  pthread_join(server->thread, NULL);
  close(server->descriptor);
  uint64_t answered = server->answered;
  free(server);
  return answered;
}
