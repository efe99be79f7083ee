#include "store_twin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "twin_support.h"

#define BATCH 64
#define ROOM 2048

struct store_client {
  int descriptor;
  size_t keys;
  size_t value;
  uint32_t next;
  char requests[BATCH][ROOM];
  char answers[BATCH][ROOM];
};

struct store_client *store_client_open(uint32_t address, size_t keys, size_t value) {
  struct store_client *client = calloc(1, sizeof *client);
  if (!client) return NULL;
  client->keys = keys;
  client->value = value < ROOM / 2 ? value : ROOM / 2;
  client->descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address), .sin_port = htons(STORE_PORT)};
  if (client->descriptor < 0 || connect(client->descriptor, (struct sockaddr *)&name, sizeof name) < 0) {
    int error = errno;
    if (client->descriptor >= 0) close(client->descriptor);
    free(client);
    errno = error;
    return NULL;
  }
  return client;
}

void store_client_close(struct store_client *client) {
  close(client->descriptor);
  free(client);
}

// The value of every key: so many letters.
static size_t put_value(const struct store_client *client, char *text) {
  memset(text, 'v', client->value);
  return client->value;
}

static size_t put_set(const struct store_client *client, char *text, uint32_t key) {
  size_t length = (size_t)snprintf(text, ROOM, "set key%u ", key);
  return length + put_value(client, text + length);
}

static size_t put_get(char *text, uint32_t key) { return (size_t)snprintf(text, ROOM, "get key%u", key); }

static int is_right(const struct store_client *client, const char *answer, size_t length) {
  if (length == 2) return answer[0] == 'o' && answer[1] == 'k';
  return length == client->value && answer[0] == 'v' && answer[length - 1] == 'v';
}

// 1 for an answer, 0 when there is none to read, or -errno.
static int take_answer(struct store_client *client) {
  ssize_t length = recv(client->descriptor, client->answers[0], ROOM, 0);
  if (length < 0) return errno == EAGAIN || errno == EINTR ? 0 : -errno;
  return is_right(client, client->answers[0], (size_t)length) ? 1 : -EBADMSG;
}

static int ask(struct store_client *client, size_t length, int milliseconds) {
  if (send(client->descriptor, client->requests[0], length, 0) < 0) return -errno;
  int result;
  do {
    result = twin_wait_readable(client->descriptor, milliseconds);
    if (result == 0) result = take_answer(client);
  } while (result == 0);
  return result < 0 ? result : 0;
}

int store_client_fill(struct store_client *client) {
  uint64_t until = twin_now() + 10000000000u;
  for (uint32_t key = 0; key < client->keys; key++) {
    int result;
    do {
      result = ask(client, put_set(client, client->requests[0], key), key == 0 ? 100 : 1000);
      // Nobody there yet.
      if (key == 0 && (result == -ECONNREFUSED || result == -ENETUNREACH || result == -EHOSTUNREACH)) {
        usleep(10000);
        result = -ETIMEDOUT;
      }
    } while (key == 0 && result == -ETIMEDOUT && twin_now() < until);
    if (result < 0) return result;
  }
  return 0;
}

static int ping(struct store_client *client, uint32_t *nanoseconds, size_t count) {
  for (size_t i = 0; i < count; i++) {
    size_t length = put_get(client->requests[0], client->next++ % (uint32_t)client->keys);
    uint64_t start = twin_now();
    int result = ask(client, length, 1000);
    if (result < 0) return result;
    uint64_t took = twin_now() - start;
    nanoseconds[i] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
  }
  return 0;
}

int store_client_ping(struct store_client *client, int cpu, uint32_t *nanoseconds, size_t count) {
  cpu_set_t before = twin_pin(cpu);
  int result = ping(client, nanoseconds, count);
  twin_unpin(before);
  return result;
}

static int send_requests(struct store_client *client, struct mmsghdr *messages, struct iovec *pieces, size_t count) {
  for (size_t i = 0; i < count; i++) {
    uint32_t number = client->next++;
    uint32_t key = number % (uint32_t)client->keys;
    pieces[i] = (struct iovec){
        .iov_base = client->requests[i],
        .iov_len = number % 10 == 0 ? put_set(client, client->requests[i], key) : put_get(client->requests[i], key)};
    messages[i].msg_hdr = (struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1};
  }
  for (size_t done = 0; done < count;) {
    int result = sendmmsg(client->descriptor, messages + done, (unsigned)(count - done), 0);
    if (result < 0) return -errno;
    done += (size_t)result;
  }
  return 0;
}

static int take_answers(struct store_client *client, struct mmsghdr *messages, struct iovec *pieces) {
  for (size_t i = 0; i < BATCH; i++) {
    pieces[i] = (struct iovec){.iov_base = client->answers[i], .iov_len = ROOM};
    messages[i].msg_hdr = (struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1};
  }
  int count = recvmmsg(client->descriptor, messages, BATCH, 0, NULL);
  if (count < 0) return errno == EAGAIN || errno == EINTR ? 0 : -errno;
  for (int i = 0; i < count; i++)
    if (!is_right(client, client->answers[i], messages[i].msg_len)) return -EBADMSG;
  return count;
}

static int stream(struct store_client *client, size_t window, size_t *count, uint64_t until) {
  struct mmsghdr messages[BATCH];
  struct iovec pieces[BATCH];
  memset(messages, 0, sizeof messages);
  size_t sent = 0, answered = 0, wanted = *count;
  if (window > BATCH) window = BATCH;
  while (answered < wanted) {
    size_t more = window - (sent - answered);
    if (more > wanted - sent) more = wanted - sent;
    int result = more > 0 ? send_requests(client, messages, pieces, more) : 0;
    if (result < 0) return result;
    sent += more;
    result = twin_wait_readable(client->descriptor, 1000);
    if (result == 0) result = take_answers(client, messages, pieces);
    if (result < 0) return result;
    answered += (size_t)result;
    // On a machine that is busy with other things a rate is had in less than all of them.
    if (wanted > sent && twin_now() > until) wanted = sent;
  }
  *count = answered;
  return 0;
}

int store_client_stream(struct store_client *client, int cpu, size_t window, size_t *count, uint64_t *nanoseconds) {
  cpu_set_t before = twin_pin(cpu);
  uint64_t start = twin_now();
  int result = stream(client, window, count, start + 1000000000u);
  *nanoseconds = twin_now() - start;
  twin_unpin(before);
  return result;
}
