#include "CTestSupport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <linux/virtio_net.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int interface_request(struct ifreq *request, const char *name, unsigned long operation) {
  int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -errno;
  strncpy(request->ifr_name, name, IFNAMSIZ - 1);
  int result = ioctl(descriptor, operation, request) < 0 ? -errno : 0;
  close(descriptor);
  return result;
}

int test_leave_network(int descriptor) {
  int result = setns(descriptor, CLONE_NEWNET) < 0 ? -errno : 0;
  close(descriptor);
  return result;
}

int test_enter_new_network(void) {
  int before = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (before < 0) return -errno;
  if (unshare(CLONE_NEWNET) < 0) {
    int error = errno;
    close(before);
    return -error;
  }
  struct ifreq request;
  memset(&request, 0, sizeof request);
  request.ifr_flags = IFF_UP;
  int result = interface_request(&request, "lo", SIOCSIFFLAGS);
  if (result == 0) return before;
  test_leave_network(before);
  return result;
}

int test_packet_socket(const char *interface) {
  int descriptor = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL));
  if (descriptor < 0) return -errno;
  struct ifreq request;
  memset(&request, 0, sizeof request);
  int result = interface_request(&request, interface, SIOCGIFINDEX);
  if (result == 0) {
    struct sockaddr_ll name = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = request.ifr_ifindex};
    if (bind(descriptor, (struct sockaddr *)&name, sizeof name) < 0) result = -errno;
  }
  if (result < 0) {
    close(descriptor);
    return result;
  }
  return descriptor;
}

int test_send_frame(
    const char *interface, const uint8_t *bytes, size_t length, struct test_offload offload, int times) {
  int descriptor = test_packet_socket(interface);
  if (descriptor < 0) return descriptor;
  int one = 1;
  struct virtio_net_hdr header = {.flags = offload.start > 0 ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0,
                                  .gso_type = offload.piece > 0 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_NONE,
                                  .hdr_len = (uint16_t)(offload.start + (offload.piece > 0 ? 20 : 0)),
                                  .gso_size = offload.piece,
                                  .csum_start = offload.start,
                                  .csum_offset = offload.offset};
  struct iovec pieces[2] = {{&header, sizeof header}, {(void *)bytes, length}};
  int result = setsockopt(descriptor, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one) < 0 ? -errno : 0;
  for (int count = 0; result == 0 && count < times; count++)
    if (writev(descriptor, pieces, 2) < 0) result = -errno;
  close(descriptor);
  return result;
}

int test_make_persistent_tap(const char *name, int multi_queue) {
  int descriptor = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (descriptor < 0) return -errno;
  struct ifreq request;
  memset(&request, 0, sizeof request);
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (multi_queue ? IFF_MULTI_QUEUE : 0));
  int result = 0;
  if (ioctl(descriptor, TUNSETIFF, &request) < 0 || ioctl(descriptor, TUNSETPERSIST, 1UL) < 0) result = -errno;
  close(descriptor);
  return result;
}

int test_set_mtu(const char *interface, int mtu) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  request.ifr_mtu = mtu;
  return interface_request(&request, interface, SIOCSIFMTU);
}

int test_interface_exists(const char *interface) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  return interface_request(&request, interface, SIOCGIFINDEX) == 0;
}

long test_context_switches(void) {
  struct rusage usage;
  if (getrusage(RUSAGE_THREAD, &usage) < 0) return 0;
  return usage.ru_nvcsw + usage.ru_nivcsw;
}

int test_wait_readable(int descriptor, int milliseconds) {
  struct pollfd entry = {.fd = descriptor, .events = POLLIN};
  return poll(&entry, 1, milliseconds) == 1;
}

int test_udp_client(uint16_t port, int milliseconds) {
  int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -errno;
  struct sockaddr_in name = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
  struct timeval limit = {.tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000};
  if (connect(descriptor, (struct sockaddr *)&name, sizeof name) < 0 ||
      setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0) {
    int error = errno;
    close(descriptor);
    return -error;
  }
  return descriptor;
}

int test_thread_sanitizer(void) {
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
  return 1;
#endif
#endif
  return 0;
}

int test_udp_client_between(const char *own, const char *address, uint16_t port, int milliseconds) {
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICHOST};
  struct addrinfo *here = NULL, *there = NULL;
  char service[8];
  snprintf(service, sizeof service, "%u", port);
  if (getaddrinfo(own, "0", &hints, &here) != 0) return -EINVAL;
  if (getaddrinfo(address, service, &hints, &there) != 0) {
    freeaddrinfo(here);
    return -EINVAL;
  }
  struct timeval patience = {.tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000};
  int descriptor = socket(here->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  int result = descriptor < 0 || bind(descriptor, here->ai_addr, here->ai_addrlen) < 0 ||
                       connect(descriptor, there->ai_addr, there->ai_addrlen) < 0 ||
                       setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0
                   ? -errno
                   : descriptor;
  if (result < 0 && descriptor >= 0) close(descriptor);
  freeaddrinfo(here);
  freeaddrinfo(there);
  return result;
}

int test_open_tap_queue(const char *name, int with_headers) {
  int descriptor = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (descriptor < 0) return -errno;
  struct ifreq request;
  memset(&request, 0, sizeof request);
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE | (with_headers ? IFF_VNET_HDR : 0));
  if (ioctl(descriptor, TUNSETIFF, &request) == 0) return descriptor;
  int error = errno;
  close(descriptor);
  return -error;
}

int test_set_header_length(int descriptor, int length) {
  return ioctl(descriptor, TUNSETVNETHDRSZ, &length) < 0 ? -errno : 0;
}

int test_shell_command(const char *command) {
  int status = system(command);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

struct refusing {
  long number;
  int error;
  void (*body)(void *);
  void *context;
  int result;
};

static void *refuse_and_run(void *argument) {
  struct refusing *refusing = argument;
  struct sock_filter refusal =
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((unsigned int)refusing->error & SECCOMP_RET_DATA));
  struct sock_filter any[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)refusing->number, 0, 1),
      refusal,
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  // The lower halves of its arguments: the length, of which nothing is beyond huge pages, and the advice.
  struct sock_filter huge[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)refusing->number, 0, 5),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 23 /* MADV_POPULATE_WRITE */, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (2u << 20) - 1, 1, 0),
      refusal,
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = sizeof any / sizeof any[0], .filter = any};
  if (refusing->number == SYS_madvise)
    program = (struct sock_fprog){.len = sizeof huge / sizeof huge[0], .filter = huge};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0) {
    refusing->result = -errno;
    return NULL;
  }
  refusing->body(refusing->context);
  return NULL;
}

int test_on_thread_refusing(enum test_call call, int error, void (*body)(void *), void *context) {
  static const long numbers[] = {
      [test_call_readv] = SYS_readv,
      [test_call_writev] = SYS_writev,
      [test_call_recvmmsg] = SYS_recvmmsg,
      [test_call_sendmmsg] = SYS_sendmmsg,
      [test_call_newfstatat] = SYS_newfstatat,
      [test_call_timerfd_settime] = SYS_timerfd_settime,
      [test_call_populate_huge] = SYS_madvise,
  };
  struct refusing refusing = {.number = numbers[call], .error = error, .body = body, .context = context};
  pthread_t thread;
  int result = pthread_create(&thread, NULL, refuse_and_run, &refusing);
  if (result != 0) return -result;
  pthread_join(thread, NULL);
  return refusing.result;
}

// The tunnel driver copies the size of a send buffer from the caller's memory under the lock: a page that a handler of this
// process is slow to fill keeps it.
struct link_lock {
  int faults, tunnel, milliseconds;
  void *page;
};

// Positive until it is known whether the lock is held, then 0 or -errno; and whether it is held now.
static int outcome, is_held;

static void *set_send_buffer(void *argument) {
  struct link_lock *lock = argument;
  (void)ioctl(lock->tunnel, TUNSETSNDBUF, lock->page);
  return NULL;
}

static int give_up_lock(struct link_lock *lock, int result) {
  if (lock->tunnel >= 0) close(lock->tunnel);
  if (lock->faults >= 0) close(lock->faults);
  if (lock->page != MAP_FAILED) munmap(lock->page, 4096);
  free(lock);
  return result;
}

static void *hold_and_release(void *argument) {
  struct link_lock *lock = argument;
  pthread_t caller;
  int error = pthread_create(&caller, NULL, set_send_buffer, lock);
  // It is in the call when the page is asked for.
  struct pollfd entry = {.fd = lock->faults, .events = POLLIN};
  while (error == 0 && poll(&entry, 1, -1) < 0) {
  }
  __atomic_store_n(&is_held, error == 0, __ATOMIC_RELEASE);
  __atomic_store_n(&outcome, -error, __ATOMIC_RELEASE);
  if (error == 0) usleep((useconds_t)lock->milliseconds * 1000);
  static char filling[4096] __attribute__((aligned(4096)));
  const int size = 1 << 20;
  memcpy(filling, &size, sizeof size);
  struct uffdio_copy copy = {.dst = (uintptr_t)lock->page, .src = (uintptr_t)filling, .len = 4096};
  __atomic_store_n(&is_held, 0, __ATOMIC_RELEASE);
  // Without its handler the page is an ordinary one.
  if (ioctl(lock->faults, UFFDIO_COPY, &copy) < 0) {
    close(lock->faults);
    lock->faults = -1;
  }
  if (error == 0) pthread_join(caller, NULL);
  give_up_lock(lock, 0);
  return NULL;
}

int test_hold_link_lock(int milliseconds) {
  struct link_lock *lock = malloc(sizeof *lock);
  if (!lock) return -ENOMEM;
  *lock = (struct link_lock){.tunnel = -1, .milliseconds = milliseconds};
  lock->page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  lock->faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
  if (lock->faults < 0 || lock->page == MAP_FAILED) return give_up_lock(lock, -errno);
  struct uffdio_api version = {.api = UFFD_API};
  struct uffdio_register range = {
      .range = {.start = (uintptr_t)lock->page, .len = 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  if (ioctl(lock->faults, UFFDIO_API, &version) < 0 || ioctl(lock->faults, UFFDIO_REGISTER, &range) < 0)
    return give_up_lock(lock, -errno);
  struct ifreq request;
  memset(&request, 0, sizeof request);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  lock->tunnel = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (lock->tunnel < 0 || ioctl(lock->tunnel, TUNSETIFF, &request) < 0) return give_up_lock(lock, -errno);
  __atomic_store_n(&outcome, 1, __ATOMIC_RELEASE);
  pthread_t holder;
  int error = pthread_create(&holder, NULL, hold_and_release, lock);
  if (error != 0) return give_up_lock(lock, -error);
  pthread_detach(holder);
  int result;
  while ((result = __atomic_load_n(&outcome, __ATOMIC_ACQUIRE)) > 0) usleep(100);
  return result;
}

int test_link_lock_is_held(void) { return __atomic_load_n(&is_held, __ATOMIC_ACQUIRE); }

int test_tell_netlink(int descriptor) {
  struct sockaddr_nl address;
  socklen_t length = sizeof address;
  if (getsockname(descriptor, (struct sockaddr *)&address, &length) < 0) return -errno;
  int sender = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (sender < 0) return -errno;
  struct nlmsghdr message = {.nlmsg_len = sizeof message, .nlmsg_type = NLMSG_NOOP};
  address.nl_groups = 0;
  int result =
      sendto(sender, &message, sizeof message, 0, (struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
  close(sender);
  return result;
}

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
