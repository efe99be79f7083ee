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

int test_refuse_here(enum test_call call, int error) {
  static const long numbers[] = {
      [test_call_readv] = SYS_readv,
      [test_call_writev] = SYS_writev,
      [test_call_recvmmsg] = SYS_recvmmsg,
      [test_call_sendmmsg] = SYS_sendmmsg,
      [test_call_newfstatat] = SYS_newfstatat,
      [test_call_timerfd_settime] = SYS_timerfd_settime,
      [test_call_renameat2] = SYS_renameat2,
      [test_call_setns] = SYS_setns,
      [test_call_sched_setaffinity] = SYS_sched_setaffinity,
      [test_call_populate_huge] = SYS_madvise,
  };
  unsigned int number = (unsigned int)numbers[call];
  struct sock_filter refusal =
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((unsigned int)error & SECCOMP_RET_DATA));
  struct sock_filter any[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
      refusal,
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  // The lower halves of its arguments: the length, of which nothing is beyond huge pages, and the advice.
  struct sock_filter huge[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 5),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 23 /* MADV_POPULATE_WRITE */, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (2u << 20) - 1, 1, 0),
      refusal,
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = sizeof any / sizeof any[0], .filter = any};
  if (call == test_call_populate_huge)
    program = (struct sock_fprog){.len = sizeof huge / sizeof huge[0], .filter = huge};
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
