// A vhost-user switch with one port that sends every frame back: the smallest thing that a driver takes for one. A process of
// its own, so that its death is one, its calls are nobody's, and what the driver leaks stays the driver's.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "CFaultSupport.h"

// MARK: - Protocol

enum {
  GET_FEATURES = 1,
  SET_FEATURES = 2,
  SET_OWNER = 3,
  SET_MEM_TABLE = 5,
  SET_VRING_NUM = 8,
  SET_VRING_ADDR = 9,
  SET_VRING_BASE = 10,
  GET_VRING_BASE = 11,
  SET_VRING_KICK = 12,
  SET_VRING_CALL = 13,
  SET_VRING_ERR = 14,
  GET_PROTOCOL_FEATURES = 15,
  SET_PROTOCOL_FEATURES = 16,
  GET_QUEUE_NUM = 17,
  SET_VRING_ENABLE = 18,
  SET_BACKEND_REQ_FD = 21,
  SET_STATUS = 39,
  GET_STATUS = 40,
};

struct message {
  uint32_t request, flags, size;
  union {
    uint64_t number;
    struct {
      uint32_t index, value;
    } ring;
    struct {
      uint32_t index, flags;
      uint64_t descriptors, used, available, log;
    } addresses;
    struct {
      uint32_t count, padding;
      struct {
        uint64_t device, length, user, offset;
      } regions[8];
    } table;
    uint8_t bytes[512];
  };
} __attribute__((packed));

struct region {
  uint64_t device, length, user;
  uint8_t *memory;
  size_t mapped;
};

struct descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags, next;
};

struct ring {
  uint32_t size;
  struct descriptor *descriptors;
  uint16_t *available, *used;
  uint16_t next, done;
  int kick, call, error;
  bool is_enabled;
};

struct port {
  struct region regions[8];
  int region_count;
  struct ring rings[2];
  int channel;
  uint64_t status;
};

static void *translate(const struct port *port, uint64_t address, uint64_t length, bool is_user) {
  for (int index = 0; index < port->region_count; index++) {
    const struct region *region = &port->regions[index];
    uint64_t base = is_user ? region->user : region->device;
    if (address >= base && length <= region->length && address - base <= region->length - length)
      return region->memory + (address - base);
  }
  return NULL;
}

static void set_descriptor(int *place, int descriptor) {
  if (*place >= 0) close(*place);
  *place = descriptor;
}

static void forget_memory(struct port *port) {
  for (int index = 0; index < port->region_count; index++)
    munmap(port->regions[index].memory - (port->regions[index].mapped - port->regions[index].length),
           port->regions[index].mapped);
  port->region_count = 0;
}

// MARK: - Frames

static uint16_t load(const uint16_t *place) { return __atomic_load_n(place, __ATOMIC_ACQUIRE); }

static void use(struct ring *ring, uint16_t head, uint32_t length) {
  // The used ring: flags, index, then pairs of 32-bit words.
  uint32_t *entry = (uint32_t *)(ring->used + 2) + 2 * (ring->done % ring->size);
  entry[0] = head;
  entry[1] = length;
  __atomic_store_n(&ring->used[1], ++ring->done, __ATOMIC_RELEASE);
}

static void call(const struct ring *ring) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  const uint64_t one = 1;
  if (ring->call >= 0 && !(load(&ring->available[0]) & 1) && write(ring->call, &one, sizeof one) < 0) return;
}

// Copies between a chain and `bytes`; returns how many.
static uint32_t copy(
    const struct port *port, const struct ring *ring, uint16_t head, uint8_t *bytes, uint32_t length, bool in) {
  uint32_t done = 0;
  for (uint32_t steps = 0; steps < ring->size; steps++) {
    struct descriptor part = ring->descriptors[head % ring->size];
    uint8_t *memory = translate(port, part.address, part.length, false);
    if (!memory) break;
    uint32_t count = part.length < length - done ? part.length : length - done;
    if (in)
      memcpy(memory, bytes + done, count);
    else
      memcpy(bytes + done, memory, count);
    done += count;
    if (!(part.flags & 1)) break;
    head = part.next;
  }
  return done;
}

// Sends frames back while there are some, and buffers for them.
static void serve(struct port *port) {
  struct ring *receive = &port->rings[0], *transmit = &port->rings[1];
  static uint8_t frame[65536];
  bool moved = false, received = false;
  while (transmit->available && transmit->next != load(&transmit->available[1])) {
    uint16_t head = transmit->available[2 + transmit->next++ % transmit->size];
    uint32_t length = copy(port, transmit, head, frame, sizeof frame, false);
    if (receive->available && receive->next != load(&receive->available[1])) {
      uint16_t room = receive->available[2 + receive->next++ % receive->size];
      // The net header: nothing to say, and one buffer.
      memset(frame, 0, 12);
      frame[10] = 1;
      use(receive, room, copy(port, receive, room, frame, length, true));
      received = true;
    }
    use(transmit, head, 0);
    moved = true;
  }
  if (received) call(receive);
  if (moved) call(transmit);
}

// MARK: - Messages

static bool answer(int connection, struct message *message, uint32_t size) {
  message->flags = 1 | 4;
  message->size = size;
  return send(connection, message, 12 + size, MSG_NOSIGNAL) == (ssize_t)(12 + size);
}

static bool read_whole(int connection, void *bytes, size_t length, int *descriptors, int *count) {
  for (size_t done = 0; done < length;) {
    union {
      struct cmsghdr header;
      char bytes[CMSG_SPACE(8 * sizeof(int))];
    } control;
    struct iovec piece = {.iov_base = (char *)bytes + done, .iov_len = length - done};
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t received = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
    if (received <= 0) return false;
    done += (size_t)received;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
      if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
      int there = (int)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
      for (int index = 0; index < there; index++, (*count)++)
        memcpy(&descriptors[*count & 7], CMSG_DATA(part) + (size_t)index * sizeof(int), sizeof(int));
    }
  }
  return true;
}

// One message; false at the end of the connection.
static bool hear(struct port *port, int connection) {
  struct message message;
  int descriptors[8] = {-1, -1, -1, -1, -1, -1, -1, -1}, count = 0;
  if (!read_whole(connection, &message, 12, descriptors, &count)) return false;
  if (message.size > sizeof message.bytes) return false;
  if (message.size > 0 && !read_whole(connection, message.bytes, message.size, descriptors, &count)) return false;
  bool needs_reply = (message.flags & 8) != 0;
  struct ring *ring = &port->rings[message.ring.index & 1];
  switch (message.request) {
    case GET_FEATURES:
      message.number = 1ull << 32 | 1ull << 30;
      return answer(connection, &message, 8);
    case GET_PROTOCOL_FEATURES:
      // MQ, REPLY_ACK, BACKEND_REQ, STATUS
      message.number = 1 << 0 | 1 << 3 | 1 << 5 | 1 << 16;
      return answer(connection, &message, 8);
    case GET_QUEUE_NUM:
      message.number = 1;
      return answer(connection, &message, 8);
    case GET_STATUS:
      message.number = port->status;
      return answer(connection, &message, 8);
    case GET_VRING_BASE:
      message.ring.value = ring->next;
      ring->available = NULL;
      set_descriptor(&ring->kick, -1);
      return answer(connection, &message, 8);
    case SET_MEM_TABLE:
      forget_memory(port);
      for (uint32_t index = 0; index < message.table.count && index < 8 && (int)index < count; index++) {
        struct region *region = &port->regions[index];
        region->device = message.table.regions[index].device;
        region->user = message.table.regions[index].user;
        region->length = message.table.regions[index].length;
        region->mapped = region->length + message.table.regions[index].offset;
        void *memory = mmap(NULL, region->mapped, PROT_READ | PROT_WRITE, MAP_SHARED, descriptors[index], 0);
        if (memory == MAP_FAILED) return false;
        region->memory = (uint8_t *)memory + message.table.regions[index].offset;
        close(descriptors[index]);
        port->region_count++;
      }
      break;
    case SET_VRING_NUM: ring->size = message.ring.value; break;
    case SET_VRING_BASE: ring->next = ring->done = (uint16_t)message.ring.value; break;
    case SET_VRING_ADDR:
      ring->descriptors = translate(port, message.addresses.descriptors, 16ull * ring->size, true);
      ring->used = translate(port, message.addresses.used, 4 + 8ull * ring->size, true);
      ring->available = translate(port, message.addresses.available, 4 + 2ull * ring->size, true);
      if (!ring->descriptors || !ring->used || !ring->available) return false;
      break;
    case SET_VRING_KICK: set_descriptor(&ring->kick, descriptors[0]); break;
    case SET_VRING_CALL: set_descriptor(&ring->call, descriptors[0]); break;
    case SET_VRING_ERR: set_descriptor(&ring->error, descriptors[0]); break;
    case SET_VRING_ENABLE: ring->is_enabled = message.ring.value == 1; break;
    case SET_BACKEND_REQ_FD: set_descriptor(&port->channel, descriptors[0]); break;
    case SET_STATUS: port->status = message.number & 0xff; break;
    default: break;
  }
  if (!needs_reply) return true;
  message.number = 0;
  return answer(connection, &message, 8);
}

static void converse(int connection) {
  struct port port = {.channel = -1};
  for (int index = 0; index < 2; index++) port.rings[index].kick = port.rings[index].call = port.rings[index].error = -1;
  for (;;) {
    struct pollfd entries[3] = {{.fd = connection, .events = POLLIN},
                                {.fd = port.rings[0].kick, .events = POLLIN},
                                {.fd = port.rings[1].kick, .events = POLLIN}};
    if (poll(entries, 3, -1) < 0 && errno != EINTR) break;
    uint64_t drained;
    for (int index = 0; index < 2; index++)
      if (entries[index + 1].revents & POLLIN && read(port.rings[index].kick, &drained, sizeof drained) < 0) continue;
    if (port.rings[0].is_enabled && port.rings[1].is_enabled) serve(&port);
    if (entries[0].revents && !hear(&port, connection)) break;
  }
  forget_memory(&port);
  for (int index = 0; index < 2; index++) {
    set_descriptor(&port.rings[index].kick, -1);
    set_descriptor(&port.rings[index].call, -1);
    set_descriptor(&port.rings[index].error, -1);
  }
  set_descriptor(&port.channel, -1);
  close(connection);
}

static void run_switch(const char *path, bool is_client, int ready) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_NAME, "switch");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
  int listener = -1;
  if (!is_client) {
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(path);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4) < 0) _exit(1);
  }
  if (write(ready, "", 1) != 1) _exit(1);
  close(ready);
  for (;;) {
    int connection = is_client ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) : accept(listener, NULL, NULL);
    if (connection < 0) _exit(1);
    if (is_client && connect(connection, (struct sockaddr *)&address, sizeof address) < 0) {
      close(connection);
      usleep(2000);
      continue;
    }
    converse(connection);
    if (is_client) usleep(2000);
  }
}

// MARK: - The nursery

struct order {
  int32_t process;  // to kill; 0 to start one
  bool is_client;
  char path[108];
};

static int nursery = -1;

static void run_nursery(int orders) {
  prctl(PR_SET_NAME, "nursery");
  struct order order;
  while (recv(orders, &order, sizeof order, 0) == sizeof order) {
    if (order.process) {
      kill(order.process, SIGKILL);
      waitpid(order.process, NULL, 0);
    } else {
      int ready[2];
      char byte;
      if (pipe(ready) < 0) _exit(1);
      order.process = fork();
      if (order.process == 0) {
        close(orders);
        close(ready[0]);
        run_switch(order.path, order.is_client, ready[1]);
      }
      close(ready[1]);
      if (read(ready[0], &byte, 1) != 1) order.process = 0;
      close(ready[0]);
    }
    if (send(orders, &order, sizeof order, MSG_NOSIGNAL) < 0) break;
  }
  _exit(0);
}

void fault_start_nursery(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) abort();
  if (fork() == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(ends[0]);
    run_nursery(ends[1]);
  }
  close(ends[1]);
  nursery = ends[0];
}

static int32_t give(struct order order) {
  if (send(nursery, &order, sizeof order, MSG_NOSIGNAL) < 0) return 0;
  return recv(nursery, &order, sizeof order, 0) == sizeof order ? order.process : 0;
}

int32_t fault_start_switch(const char *path, bool is_client) {
  struct order order = {.is_client = is_client};
  snprintf(order.path, sizeof order.path, "%s", path);
  return give(order);
}

void fault_kill_switch(int32_t process) {
  if (process > 0) (void)give((struct order){.process = process});
}
