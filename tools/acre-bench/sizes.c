/* SPDX-License-Identifier: Apache-2.0 */
#include "sizes.h"

#include <math.h>

#include "random.h"

#define SIZE_MIN     16.0
#define SIZE_TOP     32768.0
#define SIZE_MEDIAN  160.0
#define SIZE_SIGMA   1.4 /* of the logarithm: mean 430 bytes, 1 in 40 over 2,500 */
#define LARGE_MAX    (2.0 * 1024 * 1024)
#define LARGE_ONE_IN 5000u

static double uniform(uint64_t *seed)
{
    return (double)(random_next(seed) >> 11) / 9007199254740992.0;
}

static double normal(uint64_t *seed)
{
    double u = uniform(seed) + 1e-300, v = uniform(seed);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

/* The logarithm is even: as many between 32 and 256 KiB as between 256 KiB and 2 MiB. */
static double large(uint64_t *seed)
{
    return SIZE_TOP * pow(LARGE_MAX / SIZE_TOP, uniform(seed));
}

void sizes_draw(uint32_t sizes[SIZES_N], uint64_t seed, bool with_large)
{
    for (uint32_t i = 0; i < SIZES_N; i++) {
        double size = SIZE_MEDIAN * exp(SIZE_SIGMA * normal(&seed));
        size = fmin(fmax(size, SIZE_MIN), SIZE_TOP);
        if (with_large && random_below(&seed, LARGE_ONE_IN) == 0)
            size = large(&seed);
        sizes[i] = (uint32_t)size;
    }
}
