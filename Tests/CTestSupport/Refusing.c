#include "CTestSupport.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

struct refusing {
  enum test_call call;
  int error;
  void (*body)(void *);
  void *context;
  int result;
};

// A call, and what one of its arguments is, if not all calls are meant; or of what length (the second argument) nothing is left over.
struct meant {
  unsigned int number;
  int argument;  // from 0, or -1
  unsigned int value;
  unsigned int unit;
};

int test_refuse_here(enum test_call call, int error) {
  static const struct meant all[] = {
      [test_call_readv] = {SYS_readv, -1},
      [test_call_writev] = {SYS_writev, -1},
      [test_call_recvmmsg] = {SYS_recvmmsg, -1},
      [test_call_sendmmsg] = {SYS_sendmmsg, -1},
      [test_call_newfstatat] = {SYS_newfstatat, -1},
      [test_call_timerfd_settime] = {SYS_timerfd_settime, -1},
      [test_call_renameat2] = {SYS_renameat2, -1},
      [test_call_setns] = {SYS_setns, -1},
      [test_call_sched_setaffinity] = {SYS_sched_setaffinity, -1},
      [test_call_preadv2] = {SYS_preadv2, -1},
      [test_call_populate] = {SYS_madvise, 2, 23 /* MADV_POPULATE_WRITE */},
      [test_call_populate_huge] = {SYS_madvise, 2, 23, 2u << 20},
      [test_call_peer_descriptor] = {SYS_getsockopt, 2, 77 /* SO_PEERPIDFD */},
      [test_call_ignore_outgoing] = {SYS_setsockopt, 2, 23 /* PACKET_IGNORE_OUTGOING */},
      [test_call_link_flags] = {SYS_ioctl, 1, 0x8914 /* SIOCSIFFLAGS */},
  };
  struct meant meant = all[call];
  // The lower halves of arguments: nothing is beyond them here.
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, meant.number, 0, 5),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
               (unsigned int)(meant.argument < 0 ? offsetof(struct seccomp_data, nr)
                                                 : offsetof(struct seccomp_data, args) + 8 * (size_t)meant.argument)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, meant.argument < 0 ? meant.number : meant.value, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, meant.unit > 0 ? meant.unit - 1 : 0, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((unsigned int)error & SECCOMP_RET_DATA)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
    return -errno;
  return 0;
}

static void *refuse_and_run(void *argument) {
  struct refusing *refusing = argument;
  refusing->result = test_refuse_here(refusing->call, refusing->error);
  if (refusing->result == 0) refusing->body(refusing->context);
  return NULL;
}

int test_on_thread_refusing(enum test_call call, int error, void (*body)(void *), void *context) {
  struct refusing refusing = {.call = call, .error = error, .body = body, .context = context};
  pthread_t thread;
  int result = pthread_create(&thread, NULL, refuse_and_run, &refusing);
  if (result != 0) return -result;
  pthread_join(thread, NULL);
  return refusing.result;
}
