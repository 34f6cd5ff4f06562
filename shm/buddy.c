/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buddy allocator, theory.
 *
 * MODEL. A span of order k is 2^k units starting at a multiple of 2^k; its number is start >> k.
 * Only spans that lie wholly inside [0, n_units) exist, so that n_units need be no power of two:
 * the end is simply covered by smaller spans. The two halves of a span are buddies. The set of free
 * units is written as a set of disjoint free spans.
 *
 * INVARIANTS
 *   1. No free span lies inside another one.
 *   2. No two buddies are both free: they are one free span of the next order. So the same set of
 * free units is always written in the same way, whatever led to it.
 *   3. n_free is the number of units in all free spans.
 *   4. sum, top and orders are derived: a bit is set exactly if the word (or the order) below it
 * has a bit.
 *
 * BITMAPS. Each order has a bitmap of its free spans, with a summary of one bit to each word, and
 * one word `top` over the summary: 2^17 bits are 2^11 words, 2^5 summary words, one top word. The
 * lowest free span of an order is three bit scans. An aligned power-of-two range of spans is a part
 * of one word on one of the three levels, so that "is anything in here free" is one masked word for
 * each order.
 *
 * COST. take, and give of one span: at most 18 orders with three words each. give and take_at of
 * any run: that for each of the at most 2 * 18 spans it is made of. Memory: 2 bits a unit,
 * untouched words stay untouched. find_run: a run of n units holds an aligned span of half of that
 * or, rounding, a quarter; only runs around spans that large are looked at, so that small holes,
 * however many, cost nothing: n_units / (n / 4) steps at worst, mostly one.
 *
 * DEATH. Private memory: what is in it is derived from the books (daemon) and ends with the
 * process.
 */
#include "shm/buddy.h"

#include <inttypes.h>

#define N_ORDERS   (BUDDY_ORDER_MAX + 1u)
#define WORD_SHIFT 6u
#define BIT(i)     (1ull << ((i)&63u))

struct buddy {
    uint32_t n_units, n_free;
    uint32_t orders;                              /* bit k: order k has a free span */
    uint32_t leaf_at[N_ORDERS], sum_at[N_ORDERS]; /* where in words[] */
    uint64_t top[N_ORDERS];
    uint64_t words[];
};

_Static_assert(BUDDY_ORDER_MAX < 3 * WORD_SHIFT, "three levels of words cover the largest order");
_Static_assert(N_ORDERS <= 32, "orders is a 32 bit mask");

/* ---- bitmaps ---- */

static uint32_t n_spans(const struct buddy *b, unsigned k)
{
    return b->n_units >> k;
}

static uint32_t words_for(uint32_t n_bits)
{
    return (n_bits + 63) >> WORD_SHIFT;
}

static bool span_is_set(const struct buddy *b, unsigned k, uint32_t i)
{
    return i < n_spans(b, k) && (b->words[b->leaf_at[k] + (i >> WORD_SHIFT)] & BIT(i)) != 0;
}

static void span_set(struct buddy *b, unsigned k, uint32_t i)
{
    uint32_t w = i >> WORD_SHIFT, s = w >> WORD_SHIFT;

    b->words[b->leaf_at[k] + w] |= BIT(i);
    b->words[b->sum_at[k] + s] |= BIT(w);
    b->top[k] |= BIT(s);
    b->orders |= 1u << k;
}

static void span_clear(struct buddy *b, unsigned k, uint32_t i)
{
    uint32_t w = i >> WORD_SHIFT, s = w >> WORD_SHIFT;

    if ((b->words[b->leaf_at[k] + w] &= ~BIT(i)) != 0)
        return;
    if ((b->words[b->sum_at[k] + s] &= ~BIT(w)) != 0)
        return;
    if ((b->top[k] &= ~BIT(s)) == 0)
        b->orders &= ~(1u << k);
}

/* Lowest set bit at or above i (i < 64), or 64. */
static uint32_t bit_next(uint64_t word, uint32_t i)
{
    word &= ~0ull << i;
    return word == 0 ? 64 : (uint32_t)__builtin_ctzll(word);
}

/* Lowest free span of order k at or after number i; BUDDY_NONE. Climbs until a level has a later
 * bit, then descends. */
static uint32_t span_next(const struct buddy *b, unsigned k, uint32_t i)
{
    if (i >= n_spans(b, k))
        return BUDDY_NONE;
    const uint64_t *leaf = b->words + b->leaf_at[k], *sum = b->words + b->sum_at[k];
    uint32_t w = i >> WORD_SHIFT, s = w >> WORD_SHIFT;
    uint32_t bit = bit_next(leaf[w], i & 63);
    if (bit < 64)
        return w << WORD_SHIFT | bit;

    bit = (w & 63) == 63 ? 64 : bit_next(sum[s], (w & 63) + 1);
    if (bit == 64) {
        s = s == 63 ? 64 : bit_next(b->top[k], s + 1);
        if (s == 64)
            return BUDDY_NONE;
        bit = bit_next(sum[s], 0);
    }
    w = s << WORD_SHIFT | bit;
    return w << WORD_SHIFT | bit_next(leaf[w], 0);
}

/* Is a span of order k free among the 2^log2_n numbers from i on (i a multiple of 2^log2_n)? */
static bool any_in_range(const struct buddy *b, unsigned k, uint32_t i, unsigned log2_n)
{
    const uint64_t *word = &b->words[b->leaf_at[k] + (i >> WORD_SHIFT)];

    if (log2_n >= WORD_SHIFT) {
        i >>= WORD_SHIFT;
        log2_n -= WORD_SHIFT;
        word = &b->words[b->sum_at[k] + (i >> WORD_SHIFT)];
    }
    if (log2_n >= WORD_SHIFT) {
        i >>= WORD_SHIFT;
        log2_n -= WORD_SHIFT;
        word = &b->top[k];
    }
    uint64_t mask = (1ull << (1u << log2_n)) - 1; /* log2_n < 6: below 64 bits */
    return (*word >> (i & 63) & mask) != 0;
}

/* ---- spans ---- */

/* Order of the free span that holds the unit; -1: the unit is taken. */
static int order_at(const struct buddy *b, uint32_t unit)
{
    for (uint32_t left = b->orders; left != 0; left &= left - 1) {
        unsigned k = (unsigned)__builtin_ctz(left);
        if (span_is_set(b, k, unit >> k))
            return (int)k;
    }
    return -1;
}

/* Order of the largest span that starts at unit and ends at or before end. */
static unsigned order_fitting(uint32_t unit, uint32_t end)
{
    unsigned fits = 31u - (unsigned)__builtin_clz(end - unit);
    return unit == 0 ? fits : MIN(fits, (unsigned)__builtin_ctz(unit));
}

static bool span_is_taken(const struct buddy *b, unsigned k, uint32_t i)
{
    for (unsigned up = k; up < N_ORDERS; up++)
        if (span_is_set(b, up, i >> (up - k)))
            return false;
    for (unsigned down = 0; down < k; down++)
        if (any_in_range(b, down, i << (k - down), k - down))
            return false;
    return true;
}

/* Adds a span to the free ones; restores invariant 2. */
static void span_insert(struct buddy *b, unsigned k, uint32_t i)
{
    while (span_is_set(b, k, i ^ 1u)) {
        span_clear(b, k, i ^ 1u);
        i >>= 1;
        k++;
    }
    span_set(b, k, i);
}

static void run_insert(struct buddy *b, uint32_t unit, uint32_t end)
{
    while (unit < end) {
        unsigned k = order_fitting(unit, end);
        acre_assert(span_is_taken(b, k, unit >> k));
        span_insert(b, k, unit >> k);
        b->n_free += 1u << k;
        unit += 1u << k;
    }
}

/* ---- life ---- */

int buddy_new(struct buddy **ret_buddy, uint32_t n_units)
{
    uint32_t leaf_at[N_ORDERS], sum_at[N_ORDERS], n_words = 0;

    acre_assert(n_units >= 1 && n_units <= 1u << BUDDY_ORDER_MAX);
    for (unsigned k = 0; k < N_ORDERS; k++) {
        uint32_t n_leaf = words_for(n_units >> k);
        leaf_at[k] = n_words;
        sum_at[k] = n_words + n_leaf;
        n_words = sum_at[k] + words_for(n_leaf);
    }
    struct buddy *b = calloc(1, sizeof(*b) + n_words * sizeof(uint64_t));
    if (!b)
        return -ENOMEM;
    b->n_units = n_units;
    for (unsigned k = 0; k < N_ORDERS; k++) {
        b->leaf_at[k] = leaf_at[k];
        b->sum_at[k] = sum_at[k];
    }
    *ret_buddy = b;
    return 0;
}

void buddy_free(struct buddy *buddy)
{
    free(buddy);
}

/* ---- take and give ---- */

uint32_t buddy_take(struct buddy *b, unsigned order)
{
    acre_assert(order <= BUDDY_ORDER_MAX);
    uint32_t sufficient = b->orders >> order;
    if (sufficient == 0)
        return BUDDY_NONE;

    unsigned k = order + (unsigned)__builtin_ctz(sufficient);
    uint32_t i = span_next(b, k, 0);
    span_clear(b, k, i);
    while (k > order) {
        k--;
        i <<= 1;
        span_set(b, k, i + 1);
    }
    b->n_free -= 1u << order;
    return i << order;
}

uint32_t buddy_take_run(struct buddy *b, uint32_t n_units)
{
    acre_assert(n_units >= 1 && n_units <= 1u << BUDDY_ORDER_MAX);
    unsigned order = log2_ceil_u64(n_units);
    uint32_t unit = buddy_take(b, order);

    if (unit != BUDDY_NONE)
        run_insert(b, unit + n_units, unit + (1u << order));
    return unit;
}

bool buddy_take_at(struct buddy *b, uint32_t unit, uint32_t n_units)
{
    uint32_t end = unit + n_units;

    acre_assert(n_units >= 1 && unit < b->n_units && n_units <= b->n_units - unit);
    for (uint32_t u = unit; u < end;) {
        int k = order_at(b, u);
        if (k < 0)
            return false;
        u = ((u >> k) + 1) << k;
    }

    uint32_t first = unit, last = unit;
    for (uint32_t u = unit; u < end; u = last) {
        unsigned k = (unsigned)order_at(b, u);
        first = MIN(first, u >> k << k);
        last = ((u >> k) + 1) << k;
        span_clear(b, k, u >> k);
        b->n_free -= 1u << k;
    }
    run_insert(b, first, unit);
    run_insert(b, end, last);
    return true;
}

void buddy_give(struct buddy *b, uint32_t unit, uint32_t n_units)
{
    acre_assert(n_units >= 1 && unit < b->n_units && n_units <= b->n_units - unit);
    run_insert(b, unit, unit + n_units);
}

/* ---- look ---- */

uint32_t buddy_n_free(const struct buddy *b)
{
    return b->n_free;
}

int buddy_largest_order(const struct buddy *b)
{
    return b->orders == 0 ? -1 : 31 - __builtin_clz(b->orders);
}

bool buddy_is_free(const struct buddy *b, uint32_t unit)
{
    return unit < b->n_units && order_at(b, unit) >= 0;
}

/* First free unit at or after unit, or n_units. */
static uint32_t first_free(const struct buddy *b, uint32_t unit)
{
    uint32_t first = b->n_units;

    if (buddy_is_free(b, unit))
        return unit;
    for (uint32_t left = b->orders; left != 0; left &= left - 1) {
        unsigned k = (unsigned)__builtin_ctz(left);
        uint32_t i = span_next(b, k, (unit >> k) + 1);
        if (i != BUDDY_NONE)
            first = MIN(first, i << k);
    }
    return first;
}

/* Where the run of free units around a free unit begins and ends. */
static uint32_t run_start(const struct buddy *b, uint32_t unit)
{
    for (int k; unit > 0 && (k = order_at(b, unit - 1)) >= 0;)
        unit = (unit - 1) >> k << k;
    return unit;
}

static uint32_t run_end(const struct buddy *b, uint32_t unit)
{
    for (int k; unit < b->n_units && (k = order_at(b, unit)) >= 0;)
        unit = ((unit >> k) + 1) << k;
    return unit;
}

bool buddy_next_free_run(const struct buddy *b, uint32_t unit, uint32_t *ret_unit, uint32_t *ret_n)
{
    if (unit >= b->n_units)
        return false;
    uint32_t first = first_free(b, unit);
    if (first == b->n_units)
        return false;
    *ret_unit = first;
    *ret_n = run_end(b, first) - first;
    return true;
}

/* Lowest free span of at least this order at or after unit, where no free span goes across unit. */
static uint32_t first_large(const struct buddy *b, unsigned order, uint32_t unit)
{
    uint32_t first = BUDDY_NONE;

    for (uint32_t left = b->orders >> order << order; left != 0; left &= left - 1) {
        unsigned k = (unsigned)__builtin_ctz(left);
        uint32_t i = span_next(b, k, (unit >> k) + ((unit & ((1u << k) - 1)) != 0));
        if (i != BUDDY_NONE)
            first = MIN(first, i << k);
    }
    return first;
}

uint32_t buddy_find_run(const struct buddy *b, uint32_t n_units, unsigned align_order)
{
    unsigned order = 30u - (unsigned)__builtin_clz(n_units + 1);
    uint32_t end = 0, span;

    acre_assert(n_units >= 1 && n_units <= 1u << BUDDY_ORDER_MAX);
    while ((span = first_large(b, order, end)) != BUDDY_NONE) {
        uint32_t start = (uint32_t)round_up_u64(run_start(b, span), 1ull << align_order);
        end = run_end(b, span);
        if (start < end && n_units <= end - start)
            return start;
    }
    return BUDDY_NONE;
}

/* ---- check ---- */

static void check_equal(const char *what, uint64_t a, uint64_t b)
{
    if (a == b)
        return;
    fprintf(stderr, "buddy: %s: %" PRIu64 " != %" PRIu64 "\n", what, a, b);
    abort();
}

/* Are the bits [0, n_bits) of the upper level true about the words of the lower one, and the others
 * 0? */
static void check_level(const char *what, const uint64_t *upper, const uint64_t *lower,
                        uint32_t n_lower)
{
    for (uint32_t w = 0; w < (uint32_t)round_up_u64(n_lower, 64); w++)
        check_equal(what, (upper[w >> WORD_SHIFT] & BIT(w)) != 0, w < n_lower && lower[w] != 0);
}

static uint32_t check_order(const struct buddy *b, unsigned k)
{
    uint32_t n_leaf = words_for(n_spans(b, k)), n_units = 0;

    check_level("summary", b->words + b->sum_at[k], b->words + b->leaf_at[k], n_leaf);
    check_level("top", &b->top[k], b->words + b->sum_at[k], words_for(n_leaf));
    check_equal("orders", b->orders >> k & 1, b->top[k] != 0);
    for (uint32_t i = span_next(b, k, 0); i != BUDDY_NONE; i = span_next(b, k, i + 1)) {
        check_equal("end of a free span", MIN((i + 1) << k, b->n_units), (i + 1) << k);
        check_equal("two free buddies", span_is_set(b, k, i ^ 1u), 0);
        for (unsigned up = k + 1; up < N_ORDERS; up++)
            check_equal("a free span in another", span_is_set(b, up, i >> (up - k)), 0);
        n_units += 1u << k;
    }
    return n_units;
}

void buddy_assert_valid(const struct buddy *b)
{
    uint32_t n_free = 0;

    for (unsigned k = 0; k < N_ORDERS; k++)
        n_free += check_order(b, k);
    check_equal("free units, counted and kept", n_free, b->n_free);
    check_equal("orders beyond the last", b->orders >> N_ORDERS, 0);
}
