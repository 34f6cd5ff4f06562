/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctest-labels: valgrind
 *
 * The buddy allocator against a naive model: one bool a unit. After every step both must agree
 * about the result, the number of free units and the units themselves; the reference for "which
 * span is taken" is a plain search.
 *
 * Usage: model-buddy [SEED [STEPS]]. Prints the seed; the same seed does the same steps.
 */
#include "shm/buddy.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#define UNITS_MAX (1u << BUDDY_ORDER_MAX)

struct model {
    uint32_t n_units;
    bool *is_free;
    struct buddy *buddy;
};

static uint64_t rng_state;

/* splitmix64: any seed is a good one. */
static uint64_t rng(void)
{
    uint64_t z = rng_state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static uint32_t rng_below(uint32_t n)
{
    return (uint32_t)(rng() % n);
}

__attribute__((format(printf, 2, 3), noreturn)) static void fail(const struct model *m,
                                                                 const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fprintf(stderr, "model of %u units: ", m->n_units);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    abort();
}

/* ---- the model ---- */

static bool model_run_is(const struct model *m, uint32_t unit, uint32_t n, bool is_free)
{
    if (unit > m->n_units || n > m->n_units - unit)
        return false;
    for (uint32_t u = unit; u < unit + n; u++)
        if (m->is_free[u] != is_free)
            return false;
    return true;
}

static void model_mark(struct model *m, uint32_t unit, uint32_t n, bool is_free)
{
    for (uint32_t u = unit; u < unit + n; u++)
        m->is_free[u] = is_free;
}

static uint32_t model_n_free(const struct model *m)
{
    uint32_t n = 0;
    for (uint32_t u = 0; u < m->n_units; u++)
        n += m->is_free[u];
    return n;
}

/* Is [unit, unit + 2^order) free, and no larger aligned span around it? That is what a free span of
 * this order means. */
static bool model_is_span(const struct model *m, uint32_t unit, unsigned order)
{
    uint32_t around = unit & ~((2u << order) - 1);
    return model_run_is(m, unit, 1u << order, true) && !model_run_is(m, around, 2u << order, true);
}

/* The lowest of the smallest sufficient spans. */
static uint32_t model_find(const struct model *m, unsigned order)
{
    for (unsigned k = order; k <= BUDDY_ORDER_MAX; k++)
        for (uint32_t u = 0; u + (1u << k) <= m->n_units; u += 1u << k)
            if (m->is_free[u] && model_is_span(m, u, k))
                return u;
    return BUDDY_NONE;
}

/* The lowest run, looked for unit by unit. */
static uint32_t model_find_run(const struct model *m, uint32_t n, unsigned align_order)
{
    for (uint32_t u = 0; u < m->n_units && n <= m->n_units - u; u += 1u << align_order)
        if (m->is_free[u] && model_run_is(m, u, n, true))
            return u;
    return BUDDY_NONE;
}

static int model_largest_order(const struct model *m)
{
    for (int k = BUDDY_ORDER_MAX; k >= 0; k--)
        for (uint32_t u = 0; u + (1u << k) <= m->n_units; u += 1u << k)
            if (model_run_is(m, u, 1u << k, true))
                return k;
    return -1;
}

/* ---- both together ---- */

static void compare_runs(const struct model *m)
{
    uint32_t seen = 0, unit, n;

    for (uint32_t from = 0; buddy_next_free_run(m->buddy, from, &unit, &n); from = unit + n) {
        if (!model_run_is(m, unit, n, true))
            fail(m, "run [%u, +%u) is not free in the model", unit, n);
        if (!model_run_is(m, from, unit - from, false))
            fail(m, "free units before run [%u, +%u) were passed over", unit, n);
        if (unit + n < m->n_units && m->is_free[unit + n])
            fail(m, "run [%u, +%u) goes on in the model", unit, n);
        seen += n;
    }
    if (seen != model_n_free(m))
        fail(m, "runs hold %u units, the model %u", seen, model_n_free(m));
}

static void compare(const struct model *m)
{
    buddy_assert_valid(m->buddy);
    if (buddy_n_free(m->buddy) != model_n_free(m))
        fail(m, "%u units free, in the model %u", buddy_n_free(m->buddy), model_n_free(m));
    if (buddy_largest_order(m->buddy) != model_largest_order(m))
        fail(m, "largest order %d, in the model %d", buddy_largest_order(m->buddy),
             model_largest_order(m));
    for (uint32_t u = 0; u < m->n_units; u++)
        if (buddy_is_free(m->buddy, u) != m->is_free[u])
            fail(m, "unit %u: free %d, in the model %d", u, !m->is_free[u], m->is_free[u]);
    compare_runs(m);
}

static uint32_t step_take(struct model *m, unsigned order)
{
    uint32_t expected = model_find(m, order), unit = buddy_take(m->buddy, order);

    if (unit != expected)
        fail(m, "take(%u) gave %u, the model says %u", order, unit, expected);
    if (unit != BUDDY_NONE)
        model_mark(m, unit, 1u << order, false);
    return unit;
}

static uint32_t step_take_run(struct model *m, uint32_t n)
{
    uint32_t expected = model_find(m, log2_ceil_u64(n)), unit = buddy_take_run(m->buddy, n);

    if (unit != expected)
        fail(m, "take_run(%u) gave %u, the model says %u", n, unit, expected);
    if (unit != BUDDY_NONE)
        model_mark(m, unit, n, false);
    return unit;
}

/* Finds one exactly if there is one, and takes it. */
static void step_find_run(struct model *m, uint32_t n, unsigned align_order)
{
    uint32_t expected = model_find_run(m, n, align_order);
    uint32_t unit = buddy_find_run(m->buddy, n, align_order);

    if (unit != expected)
        fail(m, "find_run(%u, %u) gave %u, the model says %u", n, align_order, unit, expected);
    if (unit != BUDDY_NONE && !buddy_take_at(m->buddy, unit, n))
        fail(m, "find_run(%u, %u) gave %u, which cannot be taken", n, align_order, unit);
    if (unit != BUDDY_NONE)
        model_mark(m, unit, n, false);
}

static bool step_take_at(struct model *m, uint32_t unit, uint32_t n)
{
    bool expected = model_run_is(m, unit, n, true), taken = buddy_take_at(m->buddy, unit, n);

    if (taken != expected)
        fail(m, "take_at(%u, %u) said %d, the model %d", unit, n, taken, expected);
    if (taken)
        model_mark(m, unit, n, false);
    return taken;
}

static void step_give(struct model *m, uint32_t unit, uint32_t n)
{
    buddy_give(m->buddy, unit, n);
    model_mark(m, unit, n, true);
}

/* Gives a run of taken units that begins at or after a random unit: a part of what was taken, or
 * several at once. */
static void step_give_some(struct model *m)
{
    uint32_t unit = rng_below(m->n_units), n = 0, most = 1 + rng_below(1u << rng_below(9));

    while (unit < m->n_units && m->is_free[unit])
        unit++;
    while (n < most && unit + n < m->n_units && !m->is_free[unit + n])
        n++;
    if (n > 0)
        step_give(m, unit, n);
}

static void step_random(struct model *m)
{
    uint32_t unit = rng_below(m->n_units);
    unsigned log2_size = rng_below(log2_ceil_u64(m->n_units) + 1);

    switch (rng_below(10)) {
    case 0:
        step_take(m, rng_below(BUDDY_ORDER_MAX + 1));
        break;
    case 1:
        step_take(m, rng_below(4));
        break;
    case 2:
        step_take_run(m, 1 + rng_below(1u << log2_size));
        break;
    case 3:
        step_take_at(m, unit, 1 + rng_below(MIN(m->n_units - unit, 1u << log2_size)));
        break;
    case 4:
        step_find_run(m, 1 + rng_below(1u << log2_size), 0);
        break;
    case 5:
        step_find_run(m, 1 + rng_below(1u << log2_size), rng_below(log2_size + 1));
        break;
    default:
        step_give_some(m);
    }
}

/* ---- patterns ---- */

static void model_init(struct model *m, uint32_t n_units)
{
    *m = (struct model){.n_units = n_units, .is_free = calloc(n_units, sizeof(bool))};
    if (!m->is_free || buddy_new(&m->buddy, n_units) < 0)
        fail(m, "no memory");
    compare(m);
}

static void model_deinit(struct model *m)
{
    buddy_free(m->buddy);
    free(m->is_free);
}

static void run_random(uint32_t n_units, uint64_t n_steps)
{
    struct model m;

    model_init(&m, n_units);
    if (rng_below(2))
        step_give(&m, 0, n_units);
    for (uint64_t i = 0; i < n_steps; i++) {
        step_random(&m);
        compare(&m);
    }
    model_deinit(&m);
}

/* Pessimistic: single units until nothing is left, then every second one back: half is free and
 * nothing larger than a unit. */
static void run_pessimistic(uint32_t n_units)
{
    struct model m;

    model_init(&m, n_units);
    step_give(&m, 0, n_units);
    for (uint32_t u = 0; u < n_units; u++)
        if (step_take(&m, 0) == BUDDY_NONE)
            fail(&m, "unit %u cannot be taken", u);
    compare(&m);
    for (uint32_t u = 0; u < n_units; u += 2)
        step_give(&m, u, 1);
    compare(&m);
    if (n_units > 1 && step_take(&m, 1) != BUDDY_NONE)
        fail(&m, "a pair was found where every second unit is taken");
    if (n_units > 1 && buddy_find_run(m.buddy, 2, 0) != BUDDY_NONE)
        fail(&m, "a run of two was found where every second unit is taken");
    for (uint32_t u = 1; u < n_units; u += 2)
        step_give(&m, u, 1);
    compare(&m);
    model_deinit(&m);
}

/* Pathological: halves, quarters, ... one of each order; then back in the order that merges last
 * possible. */
static void run_pathological(uint32_t n_units)
{
    uint32_t unit[BUDDY_ORDER_MAX + 1];
    struct model m;

    model_init(&m, n_units);
    step_give(&m, 0, n_units);
    for (unsigned k = BUDDY_ORDER_MAX + 1; k-- > 0;)
        unit[k] = step_take(&m, k);
    compare(&m);
    for (unsigned k = BUDDY_ORDER_MAX + 1; k-- > 0;)
        if (unit[k] != BUDDY_NONE)
            step_give(&m, unit[k], 1u << k);
    compare(&m);
    if (!step_take_at(&m, 0, n_units))
        fail(&m, "all came back, and all at once cannot be taken");
    compare(&m);
    model_deinit(&m);
}

/* Optimistic: the largest order as long as there is one: what is left is what no power of two
 * covers. */
static void run_optimistic(uint32_t n_units)
{
    struct model m;

    model_init(&m, n_units);
    step_give(&m, 0, n_units);
    for (int k; (k = buddy_largest_order(m.buddy)) >= 0;)
        step_take(&m, (unsigned)k);
    compare(&m);
    step_give(&m, 0, n_units);
    compare(&m);
    model_deinit(&m);
}

int main(int argc, char **argv)
{
    static const uint32_t sizes[] = {1, 2, 3, 8, 63, 64, 65, 127, 509, 512, 777, 4095, 4097};
    static const uint32_t large[] = {UNITS_MAX, UNITS_MAX - 1, UNITS_MAX / 2 + 4097};
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
    uint64_t n_steps = argc > 2 ? strtoull(argv[2], NULL, 0) : 5000;

    printf("seed %" PRIu64 ", %" PRIu64 " steps\n", seed, n_steps);
    fflush(stdout);
    rng_state = seed;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        run_pessimistic(sizes[i]);
        run_pathological(sizes[i]);
        run_optimistic(sizes[i]);
        /* A comparison looks at every unit: fewer steps where there are many. */
        run_random(sizes[i], n_steps * 64 / MAX(sizes[i], 64u) + 10);
    }
    for (size_t i = 0; i < ARRAY_LEN(large); i++) {
        run_pathological(large[i]);
        run_random(large[i], n_steps / 50);
    }
    return 0;
}
