/* A library to load before libc (LD_PRELOAD): file calls below a folder fail, write less than they were told, or end the process.

   fault_arm(folder, kind, at): the `at`-th call from now on below `folder` is struck. Kinds: 0 none, 1 the process is killed, 2 ENOSPC
   (that call and all later ones that write), 3 EIO (that call alone), 4 half of the bytes are written (that call alone).
   fault_calls(): how many calls there were since. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char root[PATH_MAX];
static int kind, at, calls;

void fault_arm(const char *folder, int what, int when) {
    strncpy(root, folder, sizeof root - 1);
    kind = what, at = when, calls = 0;
}

int fault_calls(void) { return calls; }

static int below(const char *path) { return root[0] && path && strncmp(path, root, strlen(root)) == 0; }

static int descriptor_below(int fd) {
    char link[64], path[PATH_MAX];
    if (!root[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

/* Whether this call is struck; `writes` says whether it needs room on the disk. */
static int struck(int writes) {
    int number = ++calls;
    if (kind == 2 && number >= at && writes) return errno = ENOSPC, 1;
    if (number != at) return 0;
    if (kind == 1) kill(getpid(), SIGKILL);
    if (kind == 3) return errno = EIO, 1;
    return kind == 4 && writes;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                          \
    int name(const char *path, int flags, ...) {                            \
        va_list rest;                                                       \
        va_start(rest, flags);                                              \
        int mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, int) : 0; \
        va_end(rest);                                                       \
        int writes = flags & O_CREAT;                                       \
        if (below(path) && struck(writes) && kind != 4) return -1;          \
        return REAL(name)(path, flags, mode);                               \
    }
OPEN(open)
OPEN(open64)

#define WRITE(name, parameters, call)                                                             \
    ssize_t name parameters {                                                                     \
        if (descriptor_below(fd) && struck(1)) {                                                  \
            if (kind != 4 || size < 2) return kind == 4 ? REAL(name) call : -1;                   \
            size /= 2;                                                                            \
        }                                                                                         \
        return REAL(name) call;                                                                   \
    }
WRITE(write, (int fd, const void *data, size_t size), (fd, data, size))
WRITE(pwrite, (int fd, const void *data, size_t size, off_t offset), (fd, data, size, offset))
WRITE(pwrite64, (int fd, const void *data, size_t size, off64_t offset), (fd, data, size, offset))

int fsync(int fd) {
    if (descriptor_below(fd) && struck(1) && kind != 4) return -1;
    return REAL(fsync)(fd);
}

int rename(const char *old, const char *new) {
    if ((below(old) || below(new)) && struck(0)) return -1;
    return REAL(rename)(old, new);
}

int mkdir(const char *path, mode_t mode) {
    if (below(path) && struck(1) && kind != 4) return -1;
    return REAL(mkdir)(path, mode);
}

int unlink(const char *path) {
    if (below(path) && struck(0)) return -1;
    return REAL(unlink)(path);
}

int ftruncate(int fd, off_t length) {
    if (descriptor_below(fd) && struck(1) && kind != 4) return -1;
    return REAL(ftruncate)(fd, length);
}

int ftruncate64(int fd, off64_t length) {
    if (descriptor_below(fd) && struck(1) && kind != 4) return -1;
    return REAL(ftruncate64)(fd, length);
}
