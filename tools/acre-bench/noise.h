/* SPDX-License-Identifier: Apache-2.0 */
/* noise.h - what other programs took of the machine during the measurement. */
#ifndef BENCH_NOISE_H
#define BENCH_NOISE_H

#include <stdint.h>

struct noise {
    uint64_t began_ns;
    double busy_s, own_s; /* processor time of all and of this program's processes until then */
};

void noise_begin(struct noise *noise);

/* The part of all processors' time that others had since, 0 to 1; NAN: the system does not say.
 * Processes of ours that still run count as others. */
double noise_of_others(const struct noise *noise);

#endif
