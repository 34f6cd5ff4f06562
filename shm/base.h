/* SPDX-License-Identifier: Apache-2.0 */
/* base.h - the few macros and helpers that every folder uses. Depends on nothing but libc. */
#ifndef ACRE_SHM_BASE_H
#define ACRE_SHM_BASE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)

#define LIKELY(x)    __builtin_expect(!!(x), 1)
#define UNLIKELY(x)  __builtin_expect(!!(x), 0)
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#ifndef MIN /* <sys/param.h>, which <uv.h> includes, has the same */
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#endif

/* Own state is asserted in every build: a broken invariant must not go on. Foreign state is checked
 * instead. */
#define acre_assert(cond)                                                                          \
    do {                                                                                           \
        if (UNLIKELY(!(cond)))                                                                     \
            acre_assert_failed(__FILE__, __LINE__, #cond);                                         \
    } while (0)

__attribute__((noreturn, cold)) static inline void acre_assert_failed(const char *file, int line,
                                                                      const char *cond)
{
    fprintf(stderr, "acre: %s:%d: assertion failed: %s\n", file, line, cond);
    abort();
}

static inline uint64_t round_up_u64(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

static inline bool is_pow2_u64(uint64_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

/* Smallest k with 2^k >= n; n in [1, 2^63]. */
static inline unsigned log2_ceil_u64(uint64_t n)
{
    return n <= 1 ? 0 : 64u - (unsigned)__builtin_clzll(n - 1);
}

static inline void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}
#define CLEANUP_FD __attribute__((cleanup(close_fd)))

#endif
