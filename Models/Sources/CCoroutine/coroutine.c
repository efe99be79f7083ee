#include "CCoroutine.h"

#include <setjmp.h>
#include <stdlib.h>
#include <ucontext.h>

enum { stack_size = 256 * 1024 };

struct coroutine {
  // Where it begins; from then on jumps hand over, which need no system call.
  ucontext_t entry;
  jmp_buf own, resumer;
  int has_begun;
  void (*body)(void *);
  void *context;
};

static coroutine *running;

// makecontext passes integers only: the coroutine is known by `running`.
static void begin(void) { running->body(running->context); }

coroutine *coroutine_make(void (*body)(void *), void *context) {
  coroutine *thread = calloc(1, sizeof *thread);
  if (!thread || getcontext(&thread->entry) != 0) abort();
  thread->entry.uc_stack.ss_sp = malloc(stack_size);
  if (!thread->entry.uc_stack.ss_sp) abort();
  thread->entry.uc_stack.ss_size = stack_size;
  thread->body = body;
  thread->context = context;
  makecontext(&thread->entry, begin, 0);
  return thread;
}

void coroutine_resume(coroutine *thread) {
  // Looked at again after a jump.
  coroutine *volatile before = running;
  running = thread;
  if (_setjmp(thread->resumer) == 0) {
    if (thread->has_begun) _longjmp(thread->own, 1);
    thread->has_begun = 1;
    setcontext(&thread->entry);
    abort();
  }
  running = before;
}

void coroutine_yield(void) {
  coroutine *thread = running;
  if (_setjmp(thread->own) == 0) _longjmp(thread->resumer, 1);
}
