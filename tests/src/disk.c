/* A disk that misbehaves, put between a program and its files by LD_PRELOAD.
 *
 * Below DISK_ROOT: what was made safe by fsync or fdatasync is copied to DISK_SHADOW, so that after a SIGKILL
 * the shadow holds what a disk would after a power cut. A file's data is kept by inode, names by folder:
 *   $DISK_SHADOW/inode-<number>    the data as it was last synced
 *   $DISK_SHADOW/folder-<number>   the folder's path, then "<inode> <name>" for each entry when it was synced
 *
 * The file DISK_CONTROL says what goes wrong at the moment, one word a line:
 *   eio, erofs, enospc  writing, creating and syncing below DISK_ROOT/DISK_BAD fail
 *   slow          each write there takes 1.5 s
 *   clock N       the system clock is N seconds ahead (negative: behind)
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))real(#name))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static int fail_with, slow;
static long clock_offset;

static void look(void) {
  static struct timespec last;
  struct timespec now;
  REAL(clock_gettime)(CLOCK_MONOTONIC, &now);
  if (last.tv_sec && (now.tv_sec - last.tv_sec) * 1000 + (now.tv_nsec - last.tv_nsec) / 1000000 < 50) return;
  last = now;
  const char *path = getenv("DISK_CONTROL");
  char text[256] = "";
  int fd = path ? REAL(open)(path, O_RDONLY) : -1;
  if (fd >= 0) {
    ssize_t got = read(fd, text, sizeof text - 1);
    text[got > 0 ? got : 0] = 0;
    close(fd);
  }
  fail_with = strstr(text, "eio") ? EIO : strstr(text, "erofs") ? EROFS : strstr(text, "enospc") ? ENOSPC : 0;
  slow = strstr(text, "slow") != NULL;
  const char *clock = strstr(text, "clock ");
  clock_offset = clock ? atol(clock + 6) : 0;
}

/* Whether a descriptor belongs to a file or folder below the root; gives its path. */
static int below_root(int fd, char *path) {
  const char *root = getenv("DISK_ROOT");
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = root ? readlink(link, path, PATH_MAX - 1) : -1;
  if (length < 0) return 0;
  path[length] = 0;
  return strncmp(path, root, strlen(root)) == 0;
}

static int is_bad(const char *path) {
  const char *root = getenv("DISK_ROOT"), *bad = getenv("DISK_BAD");
  char full[PATH_MAX];
  if (!root || !bad) return 0;
  snprintf(full, sizeof full, "%s/%s", root, bad);
  return strncmp(path, full, strlen(full)) == 0;
}

/* Refuses, or waits, if the disk is to. */
static int trouble(int fd) {
  char path[PATH_MAX];
  look();
  if (!(fail_with || slow) || !below_root(fd, path) || !is_bad(path)) return 0;
  if (slow) usleep(1500000);
  if (!fail_with) return 0;
  errno = fail_with;
  return -1;
}

static void keep_file(int fd, ino_t inode) {
  char shadow[PATH_MAX], part[PATH_MAX], buffer[65536];
  snprintf(shadow, sizeof shadow, "%s/inode-%lu", getenv("DISK_SHADOW"), (unsigned long)inode);
  snprintf(part, sizeof part, "%s.part", shadow);
  snprintf(buffer, 64, "/proc/self/fd/%d", fd);
  int in = REAL(open)(buffer, O_RDONLY);
  int out = REAL(open)(part, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  ssize_t got;
  while (in >= 0 && (got = read(in, buffer, sizeof buffer)) > 0)
    if (REAL(write)(out, buffer, got) != got) abort();
  close(in);
  close(out);
  rename(part, shadow);
}

static void keep_folder(const char *path, ino_t inode) {
  char shadow[PATH_MAX], part[PATH_MAX];
  snprintf(shadow, sizeof shadow, "%s/folder-%lu", getenv("DISK_SHADOW"), (unsigned long)inode);
  snprintf(part, sizeof part, "%s.part", shadow);
  FILE *out = fopen(part, "w");
  DIR *folder = opendir(path);
  if (!out || !folder) abort();
  fprintf(out, "%s\n", path);
  for (struct dirent *entry; (entry = readdir(folder));)
    if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
      fprintf(out, "%lu %s\n", (unsigned long)entry->d_ino, entry->d_name);
  closedir(folder);
  fclose(out);
  rename(part, shadow);
}

static void keep(int fd) {
  char path[PATH_MAX];
  struct stat found;
  if (!getenv("DISK_SHADOW") || !below_root(fd, path) || fstat(fd, &found)) return;
  pthread_mutex_lock(&lock);
  if (S_ISDIR(found.st_mode)) keep_folder(path, found.st_ino);
  else keep_file(fd, found.st_ino);
  pthread_mutex_unlock(&lock);
}

int fsync(int fd) {
  if (trouble(fd)) return -1;
  int result = REAL(fsync)(fd);
  if (!result) keep(fd);
  return result;
}

int fdatasync(int fd) {
  if (trouble(fd)) return -1;
  int result = REAL(fdatasync)(fd);
  if (!result) keep(fd);
  return result;
}

ssize_t write(int fd, const void *data, size_t size) { return trouble(fd) ? -1 : REAL(write)(fd, data, size); }

ssize_t writev(int fd, const struct iovec *pieces, int count) {
  return trouble(fd) ? -1 : REAL(writev)(fd, pieces, count);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
  return trouble(fd) ? -1 : REAL(pwrite)(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  return trouble(fd) ? -1 : REAL(pwrite64)(fd, data, size, at);
}

static int refuse_to_create(const char *path, int flags) {
  look();
  if (!fail_with || !(flags & (O_CREAT | O_WRONLY | O_RDWR)) || !is_bad(path)) return 0;
  errno = fail_with;
  return 1;
}

int open(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  mode_t mode = va_arg(more, mode_t);
  va_end(more);
  return refuse_to_create(path, flags) ? -1 : REAL(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  mode_t mode = va_arg(more, mode_t);
  va_end(more);
  return refuse_to_create(path, flags) ? -1 : REAL(open64)(path, flags, mode);
}

int clock_gettime(clockid_t which, struct timespec *time) {
  int result = REAL(clock_gettime)(which, time);
  if (!result && which == CLOCK_REALTIME) {
    look();
    time->tv_sec += clock_offset;
  }
  return result;
}
