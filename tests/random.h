/* SPDX-License-Identifier: Apache-2.0 */
/* random.h - seeded numbers, the same everywhere (Marsaglia's xorshift). */
#ifndef ACRE_TESTS_RANDOM_H
#define ACRE_TESTS_RANDOM_H

#include <stdint.h>

static inline uint64_t rnd(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* A state from a seed that may be any number: neighbours are as good as strangers. */
static inline uint64_t rnd_seeded(uint64_t seed)
{
    return seed * 0x9e3779b97f4a7c15ull + 1;
}

#endif
