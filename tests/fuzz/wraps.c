/* SPDX-License-Identifier: Apache-2.0 */
/* wraps.c - see fuzz.h. What the linker puts in the place of calls by their names. */
#include <dirent.h>
#include <stdarg.h>
#include <sys/mman.h>

#include "daemon/log.h"
#include "daemon/restore.h"
#include "tests/fuzz/fuzz.h"

static uint64_t n_randoms, mapped_bytes, n_preads;
static int restored;

uint64_t __wrap_machine_random(void);
void __wrap_log_line(enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void *__real_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off);
int __real_munmap(void *at, size_t n);
int __wrap_munmap(void *at, size_t n);
int __real_restore_all(struct core *core, struct store_items *items);
int __wrap_restore_all(struct core *core, struct store_items *items);
ssize_t __real_pread(int fd, void *buf, size_t n, off_t off);
ssize_t __wrap_pread(int fd, void *buf, size_t n, off_t off);

void wraps_begin(void)
{
    n_randoms = 0;
}

/* splitmix64 */
uint64_t __wrap_machine_random(void)
{
    uint64_t z = ++n_randoms * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) | 1;
}

/* Said to nobody, but made: its arguments are read. */
void __wrap_log_line(enum log_level level, const char *fmt, ...)
{
    char line[1024];
    va_list args;
    (void)level;
    va_start(args, fmt);
    acre_assert(vsnprintf(line, sizeof(line), fmt, args) > 0);
    va_end(args);
}

void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
    void *p = __real_mmap(at, n, prot, flags, fd, off);
    if (p != MAP_FAILED && !(flags & MAP_FIXED))
        mapped_bytes += n;
    return p;
}

int __wrap_munmap(void *at, size_t n)
{
    mapped_bytes -= n;
    return __real_munmap(at, n);
}

ssize_t __wrap_pread(int fd, void *buf, size_t n, off_t off)
{
    n_preads++;
    return __real_pread(fd, buf, n, off);
}

int __wrap_restore_all(struct core *core, struct store_items *items)
{
    restored = __real_restore_all(core, items);
    return restored;
}

int wraps_restored(void)
{
    return restored;
}

uint64_t wraps_mapped_bytes(void)
{
    return mapped_bytes;
}

uint64_t wraps_n_preads(void)
{
    return n_preads;
}

unsigned wraps_count_fds(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

int fuzz_file(const void *bytes, size_t n)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    acre_assert(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    return fd;
}
