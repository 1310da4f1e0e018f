/* Preloaded before the C library's: a disk that refuses, or a kill, at a chosen write below a folder.

   arm(n, kind, error, below): of the calls that write below the folder, number n (from 0)
     kind 0  fails with `error`, this once
     kind 1  and every one after it: a full disk
     kind 2  is the process's end: SIGKILL before it
     kind 3  SIGKILL after half of the bytes
   count(): how many such calls there were since.  */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long at = -1, seen;
static int kind, error;
static char below[PATH_MAX];

void arm(long number, int how, int code, const char *folder) {
    at = number, seen = 0, kind = how, error = code;
    strncpy(below, folder, sizeof below - 1);
}
long count(void) { return seen; }

static int ours(const char *path) { return below[0] && path && !strncmp(path, below, strlen(below)); }

static int ours_fd(int fd) {
    char link[64], path[PATH_MAX];
    if (!below[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return ours(path);
}

/* 0: go on; 1: refuse; 2: half of it, then the end */
static int now(void) {
    long number = seen++;
    if (at < 0 || (kind == 1 ? number < at : number != at)) return 0;
    if (kind == 2) raise(SIGKILL);
    if (kind == 3) return 2;
    errno = error;
    return 1;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define WRITE(name, rest_declared, rest)                                         \
    ssize_t name(int fd, const void *data, size_t size rest_declared) {          \
        REAL(name);                                                              \
        int what = ours_fd(fd) ? now() : 0;                                      \
        if (what == 1) return -1;                                                \
        if (what == 2) { real(fd, data, size / 2 rest); raise(SIGKILL); }        \
        return real(fd, data, size rest);                                        \
    }
#define COMMA ,
WRITE(write, , )
WRITE(pwrite, COMMA off_t offset, COMMA offset)
WRITE(pwrite64, COMMA off64_t offset, COMMA offset)

#define GATHERED(name, rest_declared, rest)                                      \
    ssize_t name(int fd, const struct iovec *parts, int n rest_declared) {       \
        REAL(name);                                                              \
        int what = ours_fd(fd) ? now() : 0;                                      \
        if (what == 1) return -1;                                                \
        if (what == 2) { real(fd, parts, n / 2 rest); raise(SIGKILL); }          \
        return real(fd, parts, n rest);                                          \
    }
GATHERED(writev, , )
GATHERED(pwritev, COMMA off_t offset, COMMA offset)

#define ON_HANDLE(name, rest_declared, rest)                                     \
    int name(int fd rest_declared) {                                             \
        REAL(name);                                                              \
        int what = ours_fd(fd) ? now() : 0;                                      \
        if (what == 1) return -1;                                                \
        if (what == 2) raise(SIGKILL);                                           \
        return real(fd rest);                                                    \
    }
ON_HANDLE(fsync, , )
ON_HANDLE(fdatasync, , )
ON_HANDLE(ftruncate, COMMA off_t size, COMMA size)
ON_HANDLE(ftruncate64, COMMA off64_t size, COMMA size)

int rename(const char *from, const char *to) {
    REAL(rename);
    int what = ours(to) ? now() : 0;
    if (what == 1) return -1;
    if (what == 2) raise(SIGKILL);
    return real(from, to);
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    int what = ours(path) ? now() : 0;
    if (what == 1) return -1;
    if (what == 2) raise(SIGKILL);
    return real(path, mode);
}

#define OPEN(name)                                                               \
    int name(const char *path, int flags, ...) {                                 \
        REAL(name);                                                              \
        mode_t mode = 0;                                                         \
        if (flags & O_CREAT) {                                                   \
            va_list more;                                                        \
            va_start(more, flags), mode = va_arg(more, int), va_end(more);       \
            int what = ours(path) ? now() : 0;                                   \
            if (what == 1) return -1;                                            \
            if (what == 2) raise(SIGKILL);                                       \
        }                                                                        \
        return real(path, flags, mode);                                          \
    }
OPEN(open)
OPEN(open64)
