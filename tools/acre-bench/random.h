/* SPDX-License-Identifier: Apache-2.0 */
/* random.h - the same numbers for everybody (xorshift64). A seed is not 0. */
#ifndef BENCH_RANDOM_H
#define BENCH_RANDOM_H

#include <stdint.h>

static inline uint64_t random_next(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static inline uint32_t random_below(uint64_t *seed, uint32_t n)
{
    return (uint32_t)((random_next(seed) >> 32) * n >> 32);
}

#endif
