#include "store_twin.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "twin_support.h"

#define BATCH 64
#define ROOM 2048

struct store_server {
  store_answer answer;
  void *context;
  int descriptor;
  pid_t thread_number;
  int error;
  int stop;
  sem_t ready;
  pthread_t thread;
};

static int open_socket(void) {
  int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -errno;
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(STORE_PORT)};
  // Now and then the request to stop is looked at.
  struct timeval limit = {.tv_usec = 50000};
  if (bind(descriptor, (struct sockaddr *)&name, sizeof name) < 0 ||
      setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0) {
    int error = errno;
    close(descriptor);
    return -error;
  }
  return descriptor;
}

static void serve(struct store_server *server) {
  static _Thread_local unsigned char requests[BATCH][ROOM], answers[BATCH][ROOM];
  struct sockaddr_in peers[BATCH];
  struct iovec from[BATCH], to[BATCH];
  struct mmsghdr received[BATCH], sent[BATCH];
  memset(received, 0, sizeof received);
  memset(sent, 0, sizeof sent);
  for (int i = 0; i < BATCH; i++) {
    from[i] = (struct iovec){.iov_base = requests[i], .iov_len = ROOM};
    to[i] = (struct iovec){.iov_base = answers[i]};
    received[i].msg_hdr = (struct msghdr){.msg_name = &peers[i], .msg_iov = &from[i], .msg_iovlen = 1};
    sent[i].msg_hdr = (struct msghdr){.msg_name = &peers[i], .msg_iov = &to[i], .msg_iovlen = 1};
  }
  while (!__atomic_load_n(&server->stop, __ATOMIC_RELAXED)) {
    for (int i = 0; i < BATCH; i++) received[i].msg_hdr.msg_namelen = sizeof peers[i];
    int count = recvmmsg(server->descriptor, received, BATCH, MSG_WAITFORONE, NULL);
    if (count < 0) {
      if (errno != EAGAIN && errno != EINTR) return;
      continue;
    }
    for (int i = 0; i < count; i++) {
      to[i].iov_len = server->answer(server->context, requests[i], received[i].msg_len, answers[i], ROOM);
      sent[i].msg_hdr.msg_namelen = received[i].msg_hdr.msg_namelen;
    }
    for (int done = 0; done < count;) {
      int result = sendmmsg(server->descriptor, sent + done, (unsigned)(count - done), 0);
      if (result <= 0) break;
      done += result;
    }
  }
}

static void *run(void *context) {
  struct store_server *server = context;
  server->thread_number = (pid_t)syscall(SYS_gettid);
  server->error = twin_new_network();
  if (server->error == 0) server->descriptor = open_socket();
  if (server->error == 0 && server->descriptor < 0) server->error = server->descriptor;
  int failed = server->error != 0;
  sem_post(&server->ready);
  if (failed) return NULL;
  serve(server);
  close(server->descriptor);
  return NULL;
}

struct store_server *store_start(int cpu, store_answer answer, void *context) {
  struct store_server *server = calloc(1, sizeof *server);
  if (!server) return NULL;
  server->answer = answer;
  server->context = context;
  sem_init(&server->ready, 0, 0);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET((size_t)cpu, &set);
  int result = pthread_attr_setaffinity_np(&attributes, sizeof set, &set);
  if (result == 0) result = pthread_create(&server->thread, &attributes, run, server);
  pthread_attr_destroy(&attributes);
  if (result == 0) {
    while (sem_wait(&server->ready) < 0) continue;
    if (server->error == 0) return server;
    result = -server->error;
    pthread_join(server->thread, NULL);
  }
  sem_destroy(&server->ready);
  free(server);
  errno = result;
  return NULL;
}

pid_t store_thread(const struct store_server *server) { return server->thread_number; }

void store_stop(struct store_server *server) {
  __atomic_store_n(&server->stop, 1, __ATOMIC_RELAXED);
  pthread_join(server->thread, NULL);
  sem_destroy(&server->ready);
  free(server);
}
