#include "echo_twin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "echo_wire.h"
#include "twin_support.h"

#define CLIENT_PORT 40000
#define CAPACITY 2048

struct echo_client {
  int descriptor;
  bool frames;
  // What is sent, and what comes back when all is well; the answer's first `skipped` bytes are not looked at.
  uint8_t question[CAPACITY];
  uint8_t answer[CAPACITY];
  size_t length;
  size_t skipped;
};

static void put16(uint8_t *at, unsigned value) {
  at[0] = (uint8_t)(value >> 8);
  at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value) {
  put16(at, value >> 16);
  put16(at + 2, value & 0xffff);
}

static uint32_t sum(const uint8_t *bytes, size_t length, uint32_t total) {
  for (size_t i = 0; i < length; i++) total += i % 2 == 0 ? (uint32_t)bytes[i] << 8 : bytes[i];
  return total;
}

static unsigned fold(uint32_t total) {
  while (total >> 16) total = (total & 0xffff) + (total >> 16);
  return ~total & 0xffff;
}

// A datagram from the descriptor's side to the kernel's echo port, both checksums in place as the kernel itself sends them.
static void fill_frame(uint8_t *frame, const uint8_t *mac, size_t payload) {
  memcpy(frame, mac, 6);
  memcpy(frame + 6, echo_descriptor_mac, 6);
  put16(frame + 12, 0x0800);
  uint8_t *ip = frame + 14, *udp = ip + 20;
  ip[0] = 0x45;
  put16(ip + 2, (unsigned)(28 + payload));
  ip[8] = 64;
  ip[9] = 17;
  put32(ip + 12, ECHO_DESCRIPTOR_ADDRESS);
  put32(ip + 16, ECHO_INTERFACE_ADDRESS);
  put16(ip + 10, fold(sum(ip, 20, 0)));
  put16(udp, CLIENT_PORT);
  put16(udp + 2, ECHO_PORT);
  put16(udp + 4, (unsigned)(8 + payload));
  put16(udp + 6, fold(sum(udp, 8 + payload, sum(ip + 12, 8, 17 + 8 + (uint32_t)payload))));
}

static int hardware_address(const char *interface, uint8_t *mac) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
  int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -1;
  int result = ioctl(descriptor, SIOCGIFHWADDR, &request);
  close(descriptor);
  memcpy(mac, request.ifr_hwaddr.sa_data, 6);
  return result;
}

static int open_socket(void) {
  int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  struct sockaddr_in own = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(ECHO_INTERFACE_ADDRESS), .sin_port = htons(CLIENT_PORT)};
  struct sockaddr_in peer = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(ECHO_DESCRIPTOR_ADDRESS), .sin_port = htons(ECHO_PORT)};
  if (descriptor >= 0 && (bind(descriptor, (struct sockaddr *)&own, sizeof own) < 0 ||
                          connect(descriptor, (struct sockaddr *)&peer, sizeof peer) < 0)) {
    close(descriptor);
    return -1;
  }
  return descriptor;
}

struct echo_client *echo_client_open(const char *interface, int tap, size_t payload) {
  if (payload > CAPACITY - ECHO_HEADER - ECHO_HEADERS) {
    errno = EMSGSIZE;
    return NULL;
  }
  struct echo_client *client = calloc(1, sizeof *client);
  if (!client) return NULL;
  client->frames = tap >= 0;
  client->skipped = client->frames ? ECHO_HEADER + ECHO_HEADERS : 0;
  client->length = client->skipped + payload;
  for (size_t i = client->skipped; i < client->length; i++) client->question[i] = (uint8_t)(i * 7);
  uint8_t mac[6];
  if (client->frames) {
    client->descriptor = hardware_address(interface, mac) < 0 ? -1 : dup(tap);
    if (client->descriptor >= 0) fill_frame(client->question + ECHO_HEADER, mac, payload);
  } else {
    client->descriptor = open_socket();
  }
  if (client->descriptor < 0) {
    free(client);
    return NULL;
  }
  return client;
}

void echo_client_close(struct echo_client *client) {
  close(client->descriptor);
  free(client);
}

static int send_question(struct echo_client *client) {
  return write(client->descriptor, client->question, client->length) < 0 ? -errno : 0;
}

// 1 for an answer, 0 when there is none to read, or -errno.
static int take_answer(struct echo_client *client) {
  for (;;) {
    ssize_t length = read(client->descriptor, client->answer, sizeof client->answer);
    if (length < 0) return errno == EAGAIN ? 0 : errno == EINTR ? 0 : -errno;
    // Something else on the wire, such as the kernel's own ARP.
    if (client->frames && (size_t)length != client->length) continue;
    if ((size_t)length != client->length || memcmp(client->answer + client->skipped, client->question + client->skipped,
                                                   client->length - client->skipped) != 0)
      return -EBADMSG;
    return 1;
  }
}

static int ping(struct echo_client *client, uint32_t *nanoseconds, size_t count) {
  for (size_t i = 0; i < count; i++) {
    uint64_t start = twin_now();
    int result = send_question(client);
    if (result < 0) return result;
    do {
      result = twin_wait_readable(client->descriptor, 1000);
      if (result == 0) result = take_answer(client);
    } while (result == 0);
    if (result < 0) return result;
    uint64_t took = twin_now() - start;
    nanoseconds[i] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
  }
  return 0;
}

int echo_client_ping(struct echo_client *client, int cpu, uint32_t *nanoseconds, size_t count) {
  cpu_set_t before = twin_pin(cpu);
  int result = ping(client, nanoseconds, count);
  twin_unpin(before);
  return result;
}

static int stream(struct echo_client *client, size_t window, size_t *count, uint64_t until) {
  size_t sent = 0, answered = 0, wanted = *count;
  while (answered < wanted) {
    while (sent < wanted && sent - answered < window) {
      int result = send_question(client);
      if (result < 0) return result;
      sent++;
    }
    int result = twin_wait_readable(client->descriptor, 1000);
    while (result == 0 && answered < sent) {
      result = take_answer(client);
      if (result <= 0) break;
      answered++;
      result = 0;
    }
    if (result < 0) return result;
    // On a machine that is busy with other things a rate is had in less than all of them.
    if (wanted > sent && twin_now() > until) wanted = sent;
  }
  *count = answered;
  return 0;
}

int echo_client_stream(struct echo_client *client, int cpu, size_t window, size_t *count, uint64_t *nanoseconds) {
  cpu_set_t before = twin_pin(cpu);
  uint64_t start = twin_now();
  int result = stream(client, window, count, start + 1000000000u);
  *nanoseconds = twin_now() - start;
  twin_unpin(before);
  return result;
}
