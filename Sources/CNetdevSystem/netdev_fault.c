#include "netdev_fault.h"

#ifndef NETDEV_TESTING

bool netdev_fault_is_built(void) { return false; }
void netdev_fault_phase(const char *phase) { (void)phase; }
bool netdev_fault_plan(const char *plan) { return plan == NULL; }
uint64_t netdev_fault_fired(void) { return 0; }
void netdev_fault_write_record(void) {}
bool netdev_fault_is_planted(const char *name) {
  (void)name;
  return false;
}
void netdev_fault_set_place(void (*hold)(void)) { (void)hold; }
void netdev_fault_place(void) {}
void netdev_fault_forbid_places(bool forbidden) { (void)forbidden; }
uint64_t netdev_fault_spared_places(void) { return 0; }
void netdev_fault_set_chooser(int (*choose)(const char *call, bool cuts)) { (void)choose; }
bool netdev_fault_refuses(const char *function, const char *call, const void *caller) {
  (void)function, (void)call, (void)caller;
  return false;
}
size_t netdev_fault_cut(const char *function, const char *call, const void *caller, size_t length) {
  (void)function, (void)call, (void)caller;
  return length;
}

#else

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// One call site in one phase on one thread. The strings are literals, and threads are told apart by name.
struct site {
  char phase[24];
  const char *function;
  const char *call;
  uintptr_t caller;
  char thread[16];
  uint64_t count;
  bool can_be_cut;
};

struct plan {
  bool is_set;
  char phase[24];
  char function[64];  // *: any
  char call[32];
  uintptr_t caller;  // 0: any
  uint64_t first;
  uint64_t count;
  int error;
};

#define SITES 1024

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct plan plan;
static struct site sites[SITES];
static size_t site_count;
static char phase[24] = "start";
static uint64_t matched;  // calls of this phase that the plan names
static uint64_t fired;
static const char *record_path;
static const char *planted;
// Read without the lock on every call: whether there is anything to do at all.
static bool is_active;

static void copy(char *to, size_t room, const char *from, size_t length) {
  if (length > room - 1) length = room - 1;
  memcpy(to, from, length);
  to[length] = 0;
}

// PHASE/FUNCTION:CALL@CALLER/FIRST/COUNT/ERROR
static bool parse(const char *text, struct plan *into) {
  char whole[256], *rest = whole, *part[5];
  copy(whole, sizeof whole, text, strlen(text));
  for (int index = 0; index < 5; index++) {
    part[index] = strsep(&rest, "/");
    if (!part[index]) return false;
  }
  char *caller = part[1], *function = strsep(&caller, "@"), *call = function;
  function = strsep(&call, ":");
  if (!caller || !call) return false;
  memset(into, 0, sizeof *into);
  copy(into->phase, sizeof into->phase, part[0], strlen(part[0]));
  copy(into->function, sizeof into->function, function, strlen(function));
  copy(into->call, sizeof into->call, call, strlen(call));
  into->caller = *caller == '*' ? 0 : (uintptr_t)strtoull(caller, NULL, 16);
  into->first = strtoull(part[2], NULL, 10);
  into->count = *part[3] == '*' ? UINT64_MAX : strtoull(part[3], NULL, 10);
  into->error = atoi(part[4]);
  into->is_set = true;
  return into->first > 0 && into->count > 0 && into->error >= 0;
}

__attribute__((constructor)) static void read_environment(void) {
  const char *text = getenv("NETDEV_FAULT");
  if (text && *text && !parse(text, &plan)) {
    fprintf(stderr, "NETDEV_FAULT cannot be read: %s\n", text);
    abort();
  }
  record_path = getenv("NETDEV_FAULT_RECORD");
  planted = getenv("NETDEV_PLANT");
  is_active = plan.is_set || record_path;
}

__attribute__((destructor)) static void write_at_end(void) { netdev_fault_write_record(); }

bool netdev_fault_is_built(void) { return true; }

void netdev_fault_phase(const char *name) {
  pthread_mutex_lock(&lock);
  copy(phase, sizeof phase, name, strlen(name));
  matched = 0;
  pthread_mutex_unlock(&lock);
}

bool netdev_fault_plan(const char *text) {
  struct plan read = {.is_set = false};
  if (text && !parse(text, &read)) return false;
  pthread_mutex_lock(&lock);
  plan = read;
  matched = 0;
  __atomic_store_n(&is_active, plan.is_set || record_path, __ATOMIC_RELEASE);
  pthread_mutex_unlock(&lock);
  return true;
}

uint64_t netdev_fault_fired(void) { return __atomic_load_n(&fired, __ATOMIC_ACQUIRE); }

static __thread void (*thread_place)(void);

void netdev_fault_set_place(void (*hold)(void)) { thread_place = hold; }

static __thread unsigned thread_forbidden;
static __thread uint64_t thread_spared;

void netdev_fault_forbid_places(bool forbidden) { thread_forbidden += forbidden ? 1 : -1u; }

uint64_t netdev_fault_spared_places(void) { return thread_spared; }

void netdev_fault_place(void) {
  if (!thread_place) return;
  if (thread_forbidden == 0) return thread_place();
  thread_spared++;
}

static __thread int (*thread_chooser)(const char *call, bool cuts);

void netdev_fault_set_chooser(int (*choose)(const char *call, bool cuts)) { thread_chooser = choose; }

static int chosen(const char *call, bool cuts) {
  int kept = errno, error = thread_chooser ? thread_chooser(call, cuts) : 0;
  errno = kept;
  return error;
}

bool netdev_fault_is_planted(const char *name) { return planted && strcmp(planted, name) == 0; }

void netdev_fault_write_record(void) {
  if (!record_path) return;
  pthread_mutex_lock(&lock);
  FILE *file = fopen(record_path, "w");
  for (size_t index = 0; file && index < site_count; index++) {
    const struct site *site = &sites[index];
    fprintf(
        file, "%s %s:%s@%lx %llu %s%s\n", site->phase, site->function, site->call, (unsigned long)site->caller,
        (unsigned long long)site->count, site->thread, site->can_be_cut ? " cut" : "");
  }
  if (file) fclose(file);
  pthread_mutex_unlock(&lock);
}

static void note(const char *function, const char *call, uintptr_t caller, bool can_be_cut) {
  char thread[16] = "";
  pthread_getname_np(pthread_self(), thread, sizeof thread);
  for (char *character = thread; *character; character++)
    if (*character == ' ') *character = '_';
  struct site *site = sites, *end = sites + site_count;
  while (site < end && (site->caller != caller || site->can_be_cut != can_be_cut || strcmp(site->function, function) ||
                        strcmp(site->call, call) || strcmp(site->phase, phase) || strcmp(site->thread, thread)))
    site++;
  if (site == end) {
    if (site_count == SITES) return;
    site_count++;
    *site = (struct site){.function = function, .call = call, .caller = caller, .can_be_cut = can_be_cut};
    memcpy(site->phase, phase, sizeof phase);
    memcpy(site->thread, thread, sizeof thread);
  }
  site->count++;
}

// Whether the plan means this call. Counts it.
static bool is_meant(const char *function, const char *call, const void *address, bool cuts, int *error) {
  Dl_info image;
  uintptr_t caller = (uintptr_t)address;
  if (dladdr(address, &image)) caller -= (uintptr_t)image.dli_fbase;
  pthread_mutex_lock(&lock);
  if (record_path) note(function, call, caller, cuts);
  bool meant = plan.is_set && cuts == (plan.error == 0) && !strcmp(plan.call, call) &&
               (plan.function[0] == '*' || !strcmp(plan.function, function)) &&
               (plan.caller == 0 || plan.caller == caller) && (plan.phase[0] == '*' || !strcmp(plan.phase, phase));
  if (meant) {
    matched++;
    meant = matched >= plan.first && matched - plan.first < plan.count;
  }
  *error = plan.error;
  if (meant) __atomic_fetch_add(&fired, 1, __ATOMIC_RELEASE);
  pthread_mutex_unlock(&lock);
  return meant;
}

bool netdev_fault_refuses(const char *function, const char *call, const void *caller) {
  int kept = errno, error = chosen(call, false);
  if (error) {
    errno = error;
    return true;
  }
  if (!__atomic_load_n(&is_active, __ATOMIC_ACQUIRE)) return false;
  bool refused = is_meant(function, call, caller, false, &error);
  errno = refused ? error : kept;
  return refused;
}

size_t netdev_fault_cut(const char *function, const char *call, const void *caller, size_t length) {
  if (length > 1 && chosen(call, true)) return length / 2;
  if (!__atomic_load_n(&is_active, __ATOMIC_ACQUIRE)) return length;
  int kept = errno, error;
  bool is_cut = is_meant(function, call, caller, true, &error);
  errno = kept;
  return is_cut && length > 1 ? length / 2 : length;
}

#endif
