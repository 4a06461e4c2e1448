/* Preloaded into a process, counts its operations on files below a folder, and lets one of them fail.

   Nothing happens until `fault_arm`. The process that loads the library calls `fault_share` before it forks, so that
   operations of its children count too. Faults: a single operation that fails ("once"), all from there on that need
   space ("full"), a write of half the bytes that then fails ("half"), a SIGKILL before or after the operation, and a
   power cut: a SIGKILL after which what was not synced is gone, as on a file system that keeps no order. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { NONE, ONCE, FULL, HALF, BEFORE, AFTER, POWER };
enum verdict { GO, FAIL, HALVE, DIE_AFTER };
enum { SPACE = 1, WRITE = 2 }; /* properties of an operation: it needs space; it writes bytes */

static long *shared_count;
static char root[PATH_MAX], last[PATH_MAX + 32];
static size_t root_length;
static enum kind kind;
static long at;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* Files with bytes that were not synced: a duplicate of the descriptor, and the length that was. An earlier process's
   bytes count as synced. */
static struct { dev_t device; ino_t inode; int fd; off_t synced; } dirty[1024];
static int dirty_count;
/* Names that were made in a folder which was not synced since. `old` is empty unless the entry is a rename. */
static struct { char new[512], old[512]; } names[4096];
static int name_count;

#define REAL(result, name, ...) \
  static result (*real)(__VA_ARGS__); \
  if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

void fault_share(void) {
  shared_count = mmap(0, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

void fault_arm(const char *folder, int fault, long operation) {
  root_length = strlen(folder);
  snprintf(root, sizeof root, "%s", folder);
  *shared_count = 0;
  kind = fault;
  at = operation;
}

long fault_count(void) { return *shared_count; }

static int below(const char *path) {
  return root_length && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* The absolute path of `path` in `folder`, or "" if it isn't below the root. */
static const char *resolved(int folder, const char *path, char *out) {
  char start[PATH_MAX] = "", link[64];
  if (!root_length || !path) return "";
  if (path[0] != '/') {
    if (folder == AT_FDCWD) {
      if (!getcwd(start, sizeof start)) return "";
    } else {
      snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
      ssize_t length = readlink(link, start, sizeof start - 1);
      if (length < 0) return "";
      start[length] = 0;
    }
    snprintf(out, PATH_MAX, "%s%s%s", start, path[0] ? "/" : "", path);
  } else {
    snprintf(out, PATH_MAX, "%s", path);
  }
  return below(out) ? out : "";
}

static const char *path_of(int fd, char *out) { return resolved(fd, "", out); }

static void lose_unsynced(void) {
  static int (*move)(const char *, const char *), (*gone)(const char *), (*folder_gone)(const char *);
  move = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
  gone = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
  folder_gone = (int (*)(const char *))dlsym(RTLD_NEXT, "rmdir");
  for (int i = 0; i < dirty_count; i++)
    if (dirty[i].fd >= 0 && ftruncate(dirty[i].fd, dirty[i].synced)) _exit(99);
  for (int i = name_count - 1; i >= 0; i--) {
    if (names[i].old[0]) move(names[i].new, names[i].old);
    else if (names[i].new[0] && gone(names[i].new)) folder_gone(names[i].new);
  }
}

static enum verdict judge(const char *operation, const char *path, int properties) {
  if (!path[0] || kind == NONE) {
    if (path[0] && shared_count) __sync_fetch_and_add(shared_count, 1);
    return GO;
  }
  long number = __sync_add_and_fetch(shared_count, 1);
  if (number < at || (number > at && kind != FULL)) return GO;
  if (number == at) snprintf(last, sizeof last, "%s %s\n", operation, path);
  if (number == at && write(2, last, strlen(last)) < 0) _exit(99);
  switch (kind) {
    case FULL: return properties & SPACE ? FAIL : GO;
    case HALF: return properties & WRITE ? HALVE : FAIL;
    case ONCE: return FAIL;
    case AFTER: return DIE_AFTER;
    case POWER: lose_unsynced(); /* fall through */
    default: kill(getpid(), SIGKILL); pause();
  }
  return GO;
}

static int failure(int properties) {
  errno = properties & SPACE ? ENOSPC : EIO;
  return -1;
}

#define JUDGED(operation, path, properties, call) \
  switch (judge(operation, path, properties)) { \
    case FAIL: case HALVE: return failure(properties); \
    case DIE_AFTER: (void)!(long)(call); kill(getpid(), SIGKILL); pause(); \
    default: break; \
  }

static void wrote(int fd, const char *path) {
  struct stat now;
  if (kind != POWER || !path[0] || fstat(fd, &now) || !S_ISREG(now.st_mode)) return;
  pthread_mutex_lock(&mutex);
  for (int i = 0; i < dirty_count; i++)
    if (dirty[i].device == now.st_dev && dirty[i].inode == now.st_ino) {
      if (dirty[i].fd < 0) dirty[i].fd = dup(fd);
      goto known;
    }
  if (dirty_count < 1024) {
    dirty[dirty_count].device = now.st_dev, dirty[dirty_count].inode = now.st_ino;
    dirty[dirty_count].fd = dup(fd), dirty[dirty_count++].synced = now.st_size; /* this write comes next */
  }
known:
  pthread_mutex_unlock(&mutex);
}

static void synced(int fd, const char *path) {
  struct stat now;
  if (kind != POWER || !path[0] || fstat(fd, &now)) return;
  pthread_mutex_lock(&mutex);
  for (int i = 0; i < dirty_count; i++)
    if (dirty[i].device == now.st_dev && dirty[i].inode == now.st_ino && dirty[i].fd >= 0) {
      static int (*closing)(int);
      closing = (int (*)(int))dlsym(RTLD_NEXT, "close");
      closing(dirty[i].fd), dirty[i].fd = -1, dirty[i].synced = now.st_size;
    }
  for (int i = 0; S_ISDIR(now.st_mode) && i < name_count; i++) {
    char *slash = strrchr(names[i].new, '/');
    if (slash && (size_t)(slash - names[i].new) == strlen(path) && !strncmp(names[i].new, path, strlen(path)))
      names[i].new[0] = names[i].old[0] = 0;
  }
  pthread_mutex_unlock(&mutex);
}

static void made(const char *new, const char *old) {
  if (kind != POWER || !new[0] || name_count == 4096) return;
  pthread_mutex_lock(&mutex);
  snprintf(names[name_count].new, 512, "%s", new);
  snprintf(names[name_count++].old, 512, "%s", old);
  pthread_mutex_unlock(&mutex);
}

static int opening(int folder, const char *path, int flags, mode_t mode) {
  REAL(int, openat, int, const char *, int, ...);
  char place[PATH_MAX];
  const char *full = resolved(folder, path, place);
  int writes = (flags & O_ACCMODE) != O_RDONLY, properties = flags & O_CREAT ? SPACE : 0;
  if (full[0] && !(flags & O_DIRECTORY))
    JUDGED(writes ? "open for writing" : "open", full, properties, real(folder, path, flags, mode));
  int fresh = full[0] && kind == POWER && (flags & O_CREAT) && access(full, F_OK);
  int fd = real(folder, path, flags, mode);
  if (fd >= 0 && fresh) made(full, "");
  return fd;
}

#define MODE va_list list; va_start(list, flags); mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(list, mode_t) : 0; va_end(list)
int open(const char *path, int flags, ...) { MODE; return opening(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE; return opening(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE; return opening(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE; return opening(folder, path, flags, mode); }

ssize_t write(int fd, const void *bytes, size_t size) {
  REAL(ssize_t, write, int, const void *, size_t);
  char place[PATH_MAX];
  const char *path = fd > 2 ? path_of(fd, place) : "";
  if (path[0]) {
    wrote(fd, path);
    switch (judge("write", path, SPACE | WRITE)) {
      case FAIL: return failure(SPACE);
      case HALVE: (void)!real(fd, bytes, size / 2); return failure(SPACE);
      case DIE_AFTER: (void)!real(fd, bytes, size); kill(getpid(), SIGKILL); pause();
      default: break;
    }
  }
  return real(fd, bytes, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL(ssize_t, writev, int, const struct iovec *, int);
  char place[PATH_MAX];
  const char *path = fd > 2 ? path_of(fd, place) : "";
  wrote(fd, path);
  if (path[0]) JUDGED("write", path, SPACE, real(fd, parts, count));
  return real(fd, parts, count);
}

static int syncing(int fd, int (*real)(int)) {
  char place[PATH_MAX];
  const char *path = path_of(fd, place);
  if (path[0]) JUDGED("sync", path, 0, real(fd));
  int result = real(fd);
  if (!result) synced(fd, path);
  return result;
}
int fsync(int fd) { REAL(int, fsync, int); return syncing(fd, real); }
int fdatasync(int fd) { REAL(int, fdatasync, int); return syncing(fd, real); }

static int moving(int from, const char *old, int to, const char *new) {
  REAL(int, renameat, int, const char *, int, const char *);
  char place[PATH_MAX], other[PATH_MAX];
  const char *target = resolved(to, new, place), *source = resolved(from, old, other);
  if (target[0]) JUDGED("rename to", target, 0, real(from, old, to, new));
  int fresh = target[0] && kind == POWER && access(target, F_OK);
  int result = real(from, old, to, new);
  if (!result && fresh) made(target, source);
  return result;
}
int rename(const char *old, const char *new) { return moving(AT_FDCWD, old, AT_FDCWD, new); }
int renameat(int from, const char *old, int to, const char *new) { return moving(from, old, to, new); }

int mkdirat(int folder, const char *path, mode_t mode) {
  REAL(int, mkdirat, int, const char *, mode_t);
  char place[PATH_MAX];
  const char *full = resolved(folder, path, place);
  if (full[0]) JUDGED("mkdir", full, SPACE, real(folder, path, mode));
  int result = real(folder, path, mode);
  if (!result) made(full, "");
  return result;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int unlinkat(int folder, const char *path, int flags) {
  REAL(int, unlinkat, int, const char *, int);
  char place[PATH_MAX];
  const char *full = resolved(folder, path, place);
  if (full[0]) JUDGED(flags & AT_REMOVEDIR ? "rmdir" : "unlink", full, 0, real(folder, path, flags));
  return real(folder, path, flags);
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
