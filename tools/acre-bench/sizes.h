/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sizes.h - a server's mixture of sizes: log-normal between 16 bytes and 32 KiB with a median of
 * 160 bytes, and, if wanted, 1 in 5,000 from there up to 2 MiB. Drawn before the measurement.
 */
#ifndef BENCH_SIZES_H
#define BENCH_SIZES_H

#include <stdbool.h>
#include <stdint.h>

#define SIZES_N    65536u
#define SIZES_MASK (SIZES_N - 1)

void sizes_draw(uint32_t sizes[SIZES_N], uint64_t seed, bool with_large);

#endif
