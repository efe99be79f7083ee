#include "CTrafficSupport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAXIMUM_FLOWS 256
#define MAXIMUM_WINDOW 256

struct flow {
  int descriptor;
  // Numbers of the datagrams that are not answered yet, oldest first.
  long unanswered[MAXIMUM_WINDOW];
  int first;
  int count;
};

static int size_of(const struct test_window *wanted, long number) {
  int span = wanted->largest - wanted->smallest + 1;
  return wanted->smallest + (int)(number * 7919 % span);
}

static void fill(uint8_t *bytes, int size, long number) {
  for (int i = 0; i < size; i++) bytes[i] = (uint8_t)(number * 31 + i + (number >> 8));
}

static int open_flow(const struct test_window *wanted, struct flow *flow, uint16_t *port) {
  struct sockaddr_in peer4 = {.sin_family = AF_INET, .sin_port = htons(wanted->port)};
  struct sockaddr_in6 peer6 = {.sin6_family = AF_INET6, .sin6_port = htons(wanted->port)};
  int is4 = inet_pton(AF_INET, wanted->address, &peer4.sin_addr) == 1;
  flow->descriptor = -1;
  if (!is4 && inet_pton(AF_INET6, wanted->address, &peer6.sin6_addr) != 1) return -EINVAL;
  flow->descriptor = socket(is4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (flow->descriptor < 0) return -errno;
  const struct sockaddr *peer = is4 ? (struct sockaddr *)&peer4 : (struct sockaddr *)&peer6;
  if (connect(flow->descriptor, peer, is4 ? sizeof peer4 : sizeof peer6) < 0) return -errno;
  // The port is at the same place in both.
  struct sockaddr_in6 own;
  socklen_t length = sizeof own;
  if (getsockname(flow->descriptor, (struct sockaddr *)&own, &length) < 0) return -errno;
  *port = ntohs(own.sin6_port);
  return 0;
}

static int send_next(const struct test_window *wanted, struct flow *flow, struct test_window_result *result) {
  uint8_t bytes[65536];
  long number = result->sent;
  int size = size_of(wanted, number);
  fill(bytes, size, number);
  if (send(flow->descriptor, bytes, (size_t)size, 0) < 0) {
    // ECONNREFUSED tells of an earlier datagram; a full queue is no failure either.
    if (errno == EAGAIN || errno == ENOBUFS || errno == EINTR) return 0;
    return -errno;
  }
  flow->unanswered[(flow->first + flow->count) % MAXIMUM_WINDOW] = number;
  flow->count++;
  result->sent++;
  return 1;
}

static int is_datagram(const struct test_window *wanted, long number, const uint8_t *bytes, ssize_t size) {
  uint8_t expected[65536];
  if (size != size_of(wanted, number)) return 0;
  fill(expected, (int)size, number);
  return memcmp(bytes, expected, (size_t)size) == 0;
}

// Which of the unanswered datagrams an answer is, oldest first; -1 for none of them.
static int find_answered(
    const struct test_window *wanted, const struct flow *flow, const uint8_t *bytes, ssize_t size) {
  for (int i = 0; i < flow->count; i++)
    if (is_datagram(wanted, flow->unanswered[(flow->first + i) % MAXIMUM_WINDOW], bytes, size)) return i;
  return -1;
}

static void take_answers(const struct test_window *wanted, struct flow *flow, struct test_window_result *result) {
  uint8_t bytes[65536];
  for (;;) {
    ssize_t size = recv(flow->descriptor, bytes, sizeof bytes, 0);
    if (size < 0) return;
    int place = find_answered(wanted, flow, bytes, size);
    if (place < 0) {
      result->wrong++;
      continue;
    }
    // Those that it has overtaken move up by one.
    for (int i = place; i > 0; i--)
      flow->unanswered[(flow->first + i) % MAXIMUM_WINDOW] = flow->unanswered[(flow->first + i - 1) % MAXIMUM_WINDOW];
    flow->first = (flow->first + 1) % MAXIMUM_WINDOW;
    flow->count--;
    result->right++;
    if (place > 0) result->early++;
  }
}

int test_udp_window(const struct test_window *wanted, struct test_window_result *result) {
  memset(result, 0, sizeof *result);
  if (wanted->flows < 1 || wanted->flows > MAXIMUM_FLOWS || wanted->window < 1 || wanted->window > MAXIMUM_WINDOW)
    return -EINVAL;
  struct flow *flows = calloc((size_t)wanted->flows, sizeof *flows);
  struct pollfd *polls = calloc((size_t)wanted->flows, sizeof *polls);
  int opened = 0;
  while (opened < wanted->flows && result->error == 0) {
    int status = open_flow(wanted, &flows[opened], &result->ports[opened]);
    if (status < 0) result->error = -status;
    polls[opened].fd = flows[opened].descriptor;
    polls[opened].events = POLLIN;
    opened++;
  }
  while (result->error == 0 && result->right < wanted->total) {
    for (int i = 0; i < wanted->flows && result->error == 0; i++) {
      while (flows[i].count < wanted->window && result->sent < wanted->total) {
        // The first one goes alone: datagrams that wait in the kernel for a neighbor's address are overtaken by those
        // that are sent when it has just come.
        if (result->sent > 0 && result->right == 0) break;
        int status = send_next(wanted, &flows[i], result);
        if (status < 0) result->error = -status;
        if (status <= 0) break;
      }
    }
    int ready = poll(polls, (nfds_t)wanted->flows, wanted->patience_milliseconds);
    if (ready == 0) break;
    if (ready < 0 && errno != EINTR) result->error = errno;
    for (int i = 0; i < wanted->flows; i++)
      if (polls[i].revents != 0) take_answers(wanted, &flows[i], result);
  }
  for (int i = 0; i < opened; i++)
    if (flows[i].descriptor >= 0) close(flows[i].descriptor);
  free(flows);
  free(polls);
  return result->error == 0 && result->right == wanted->total && result->wrong == 0 && result->early == 0 ? 0 : -1;
}

int test_shell(const char *command) {
  int status = system(command);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int test_new_network(void) {
  if (unshare(CLONE_NEWNET) < 0) return -errno;
  return test_shell("ip link set lo up") == 0 ? 0 : -EIO;
}
