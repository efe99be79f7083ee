#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "CFaultSupport.h"

static int each(const char *path, const char *form, char *text, size_t room, bool is_link) {
  DIR *directory = opendir(path);
  if (!directory) return -1;
  int count = 0;
  struct dirent *entry;
  char own[32] = "";
  FILE *self = fopen("/proc/self/comm", "r");
  if (self) {
    if (!fgets(own, sizeof own, self)) own[0] = 0;
    fclose(self);
  }
  while ((entry = readdir(directory))) {
    if (entry->d_name[0] == '.') continue;
    char name[512], what[512] = "";
    snprintf(name, sizeof name, form, entry->d_name);
    if (is_link) {
      if (atoi(entry->d_name) == dirfd(directory)) continue;
      ssize_t length = readlink(name, what, sizeof what - 1);
      what[length < 0 ? 0 : length] = 0;
    } else {
      FILE *file = fopen(name, "r");
      if (!file) continue;
      if (!fgets(what, sizeof what, file)) what[0] = 0;
      fclose(file);
      // The runtime's threads have the program's name, or are Dispatch's by theirs.
      if (!strcmp(what, own) || strstr(what, "qos")) continue;
      what[strcspn(what, "\n")] = 0;
    }
    count++;
    if (text && strlen(text) + strlen(what) + 2 < room) strcat(strcat(text, " "), what);
  }
  closedir(directory);
  return count;
}

// One reading. It may lack a line that is there all the time while other threads map and unmap.
static int mappings_once(char *text, size_t room) {
  FILE *file = fopen("/proc/self/maps", "r");
  if (!file) return -1;
  int count = 0;
  char line[1024];
  while (fgets(line, sizeof line, file)) {
    char *name = strstr(line, "/memfd:netdev");
    if (!name) name = strstr(line, "socket:[");
    if (!name) continue;
    count++;
    name[strcspn(name, " \n")] = 0;
    if (text && strlen(text) + strlen(name) + 2 < room) strcat(strcat(text, " "), name);
  }
  fclose(file);
  return count;
}

// The longest of several readings.
static int mappings(void) {
  int most = -1;
  for (int reading = 0; reading < 4; reading++) {
    int count = mappings_once(NULL, 0);
    if (count > most) most = count;
  }
  return most;
}

struct fault_census fault_take_census(void) {
  struct fault_census census = {
      .descriptors = each("/proc/self/fd", "/proc/self/fd/%s", NULL, 0, true),
      .mappings = mappings(),
      .threads = each("/proc/self/task", "/proc/self/task/%s/comm", NULL, 0, false)};
  FILE *file = fopen("/proc/self/statm", "r");
  long pages = 0, resident = 0;
  if (file) {
    if (fscanf(file, "%ld %ld", &pages, &resident) == 2) census.resident = resident * (sysconf(_SC_PAGESIZE) / 1024);
    fclose(file);
  }
  return census;
}

void fault_describe_census(char *text, size_t room) {
  text[0] = 0;
  each("/proc/self/fd", "/proc/self/fd/%s", text, room, true);
  mappings_once(text, room);
  each("/proc/self/task", "/proc/self/task/%s/comm", text, room, false);
}

int64_t fault_used_cpu(void) {
  struct timespec used;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return (int64_t)used.tv_sec * 1000000 + used.tv_nsec / 1000;
}
