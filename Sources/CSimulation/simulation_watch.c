#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

#include "CSimulation.h"

// Who looks at a world from outside: a thread that says when the program does not come back, and a handler that says where it has
// trapped. One world at a time lives in a process.
static struct {
  uint64_t seed;
  unsigned limit;
  _Atomic uint64_t step;
  atomic_bool rests;
  bool has_thread;
  pthread_t thread;
  bool is_over;
} watch;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change;
static __thread bool is_world;

// --- Lines, also from a signal's handler

struct line {
  char text[160];
  size_t length;
};

static void add(struct line *line, const char *text) {
  while (*text && line->length < sizeof line->text - 1) line->text[line->length++] = *text++;
}

static void add_number(struct line *line, uint64_t number) {
  char digits[21];
  size_t at = sizeof digits;
  digits[--at] = 0;
  do digits[--at] = (char)('0' + number % 10);
  while (number /= 10);
  add(line, digits + at);
}

static struct line begin(void) {
  struct line line = {.length = 0};
  add(&line, "simulation: seed ");
  add_number(&line, watch.seed);
  add(&line, ", step ");
  add_number(&line, atomic_load(&watch.step));
  return line;
}

static void end(struct line *line) {
  line->text[line->length++] = '\n';
  ssize_t written = write(STDERR_FILENO, line->text, line->length);
  (void)written;
}

void simulation_tell(uint64_t seed, const char *text) {
  struct line line = {.length = 0};
  add(&line, "simulation: seed ");
  add_number(&line, seed);
  add(&line, " ");
  add(&line, text);
  end(&line);
}

// --- The thread

static void *look(void *nothing) {
  uint64_t seen = 0;
  unsigned looks = 0;
  pthread_mutex_lock(&mutex);
  while (!watch.is_over) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t nanoseconds = (uint64_t)until.tv_nsec + watch.limit * UINT64_C(100000);
    until.tv_sec += (time_t)(nanoseconds / 1000000000u);
    until.tv_nsec = (long)(nanoseconds % 1000000000u);
    pthread_cond_timedwait(&change, &mutex, &until);
    uint64_t step = atomic_load(&watch.step);
    looks = step == seen && !atomic_load(&watch.rests) && !watch.is_over ? looks + 1 : 0;
    seen = step;
    if (looks != 10) continue;
    struct line line = begin();
    add(&line, ": the program has not come back for ");
    add_number(&line, watch.limit < 1000 ? watch.limit : watch.limit / 1000);
    add(&line, watch.limit < 1000 ? " ms" : " s");
    end(&line);
  }
  pthread_mutex_unlock(&mutex);
  return nothing;
}

static void start_thread(void) {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&change, &attributes);
  pthread_condattr_destroy(&attributes);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  watch.has_thread = pthread_create(&watch.thread, NULL, look, NULL) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (watch.has_thread) pthread_setname_np(watch.thread, "simulation-look");
}

static void end_thread(void) {
  pthread_mutex_lock(&mutex);
  watch.is_over = true;
  pthread_cond_signal(&change);
  pthread_mutex_unlock(&mutex);
  if (watch.has_thread) pthread_join(watch.thread, NULL);
  pthread_cond_destroy(&change);
}

// --- The handler

static const int fatal[] = {SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGABRT, SIGSYS};
enum { FATAL = sizeof fatal / sizeof *fatal };
static struct sigaction earlier[FATAL];
static stack_t earlier_stack;
// A program that calls itself without end has no room left on its own.
static char handler_stack[1 << 16];

static void note_trap(int signal, siginfo_t *information, void *context) {
  static atomic_flag is_told = ATOMIC_FLAG_INIT;
  if (is_world && !atomic_flag_test_and_set(&is_told)) {
    struct line line = begin();
    add(&line, ": trapped");
    end(&line);
  }
  int place = 0;
  while (fatal[place] != signal) place++;
  const struct sigaction *next = &earlier[place];
  if (next->sa_flags & SA_SIGINFO) return next->sa_sigaction(signal, information, context);
  if (next->sa_handler != SIG_DFL && next->sa_handler != SIG_IGN) return next->sa_handler(signal);
  // What the system does of itself, when this returns.
  sigaction(signal, next, NULL);
  if (next->sa_handler == SIG_DFL) raise(signal);
}

static void take_signals(void) {
  struct sigaction own = {.sa_sigaction = note_trap, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigemptyset(&own.sa_mask);
  for (int place = 0; place < FATAL; place++) sigaction(fatal[place], &own, &earlier[place]);
  stack_t stack = {.ss_sp = handler_stack, .ss_size = sizeof handler_stack};
  sigaltstack(&stack, &earlier_stack);
}

static void give_signals_back(void) {
  for (int place = 0; place < FATAL; place++) {
    struct sigaction present;
    // Somebody else may have taken them meanwhile.
    if (sigaction(fatal[place], NULL, &present) == 0 && present.sa_sigaction == note_trap)
      sigaction(fatal[place], &earlier[place], NULL);
  }
  sigaltstack(&earlier_stack, NULL);
}

// --- A world's time

void simulation_watch_begin(uint64_t seed, unsigned milliseconds) {
  watch.seed = seed;
  watch.limit = milliseconds < 10 ? 10 : milliseconds;
  watch.is_over = false;
  atomic_store(&watch.step, 0);
  atomic_store(&watch.rests, false);
  is_world = true;
  start_thread();
  take_signals();
}

void simulation_watch_step(uint64_t step) { atomic_store_explicit(&watch.step, step, memory_order_relaxed); }

void simulation_watch_rest(bool rests) { atomic_store(&watch.rests, rests); }

void simulation_watch_end(void) {
  give_signals_back();
  end_thread();
  is_world = false;
}
