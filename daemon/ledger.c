/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walls and promises, theory.
 *
 * MODEL. A tree of budgets below one capacity; a tenant has one, and so has a group of tenants.
 * Every byte of a sealed segment is charged once, when the segment is made, to its tenant's budget,
 * to all above that, and to the capacity: a hostile client can touch all of a segment, so that its
 * whole size counts, not what was granted.
 *
 * MAX is a wall for a budget and all below it. HIGH is none, but who is above it is asked to give
 * (pressure.c); WEIGHT divides what is scarce (share.c). MIN is a promise. What was lent from it
 * could not be had back from a client that sleeps (it may map the segment for ever), so it is never
 * lent: what of a min is not used is held back from all others,
 *
 *     held = max(min - total - haunted, sum of the children's held), at most max - total,
 *
 * where haunted is what it had, has given up, and somebody may still have mapped (orphaned): that
 * is not free for others, and may not be promised a second time. Beyond max nobody could have it.
 *
 * INVARIANTS
 *   1. total of a budget = its own charge + its children's totals, haunted in the same way;
 *      ledger.charged = sum of the roots' totals + orphaned.
 *   2. held is as above; below = sum of the children's held; ledger.held = sum of the roots'.
 *   3. A charge leaves total + below <= max on the whole path up, and charged + held <= capacity.
 *      By induction: what is charged comes out of the own held first, and of what nobody holds
 *      then. Only limits that change at run time, and what an earlier daemon has charged, can break
 *      this. Then nothing is taken by force, and what is left, at a wall or of the capacity, is for
 *      those who were promised it and come first, each up to its promise: or what is held for all of
 *      them would be nobody's.
 *   4. orphaned: bytes of dropped heaps that somebody may still have mapped. They are nobody's, and
 *      not free.
 *
 * COST. Depth of the tree, for each segment that comes or goes.
 *
 * Private memory, derived from the books: nothing here survives, nothing needs to.
 */
#include "daemon/ledger.h"

#include <inttypes.h>

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

const char *limits_wrong(const struct limits *l, uint64_t ready_bytes)
{
    if (l->max_bytes < LIMIT_BYTES_MIN || l->max_bytes > HEAP_BYTES)
        return "a max that is not between 64K and 256G";
    if (l->min_bytes > l->max_bytes)
        return "more min than its max";
    if (ready_bytes > l->max_bytes)
        return "more ready than its max";
    if (l->high_bytes != HIGH_NONE &&
        (l->high_bytes < l->min_bytes || l->high_bytes > l->max_bytes))
        return "a high that is not between its min and its max";
    if (l->weight < 1 || l->weight > WEIGHT_MAX)
        return "a weight that is not between 1 and 10000";
    return NULL;
}

const char *limit_text(char ret[32], uint64_t bytes)
{
    if (bytes == HIGH_NONE)
        return "none";
    (void)snprintf(ret, 32, "%" PRIu64 " KiB", bytes >> 10);
    return ret;
}

void ledger_init(struct ledger *ledger, uint64_t capacity_bytes)
{
    *ledger = (struct ledger){.capacity_bytes = capacity_bytes};
    LIST_INIT(&ledger->roots);
}

void ledger_set_capacity(struct ledger *ledger, uint64_t capacity_bytes)
{
    ledger->capacity_bytes = capacity_bytes;
    ledger->n_limits++;
}

void ledger_deinit(struct ledger *ledger)
{
    ledger_assert_valid(ledger);
    acre_assert(LIST_EMPTY(&ledger->roots));
    acre_assert(ledger->charged_bytes == 0 && ledger->held_bytes == 0);
}

/* ---- promises ---- */

/* With so much used by it and all below it, and so much held below it. */
static uint64_t held_with(const struct budget *b, uint64_t total_bytes, uint64_t below_bytes)
{
    uint64_t missing_bytes = minus(b->limits.min_bytes, total_bytes + b->haunted_bytes);
    return MIN(MAX(missing_bytes, below_bytes), minus(b->limits.max_bytes, total_bytes));
}

static uint64_t held_of(const struct budget *b)
{
    return held_with(b, b->total_bytes, b->below_bytes);
}

static uint64_t *sum_held(struct budget *b)
{
    return b->parent ? &b->parent->below_bytes : &b->ledger->held_bytes;
}

static void hold(struct budget *b)
{
    for (; b; b = b->parent) {
        uint64_t *sum = sum_held(b);
        *sum -= b->held_bytes;
        b->held_bytes = held_of(b);
        *sum += b->held_bytes;
    }
}

/* What is held for others than this one, below what is above it. */
static uint64_t held_beside(const struct budget *b)
{
    return (b->parent ? b->parent->below_bytes : b->ledger->held_bytes) - b->held_bytes;
}

/* ---- budgets ---- */

static struct budget_list *siblings(struct budget *b)
{
    return b->parent ? &b->parent->children : &b->ledger->roots;
}

void budget_init(struct budget *budget, struct ledger *ledger, struct budget *parent)
{
    *budget = (struct budget){.ledger = ledger, .parent = parent};
    LIST_INIT(&budget->children);
    LIST_INSERT_HEAD(siblings(budget), budget, beside);
    budget_set(budget, &(struct limits){0});
}

void budget_deinit(struct budget *budget)
{
    acre_assert(budget->total_bytes == 0 && budget->haunted_bytes == 0);
    acre_assert(LIST_EMPTY(&budget->children));
    budget_set(budget, &(struct limits){0});
    LIST_REMOVE(budget, beside);
    budget->ledger->n_limits++;
}

void budget_set(struct budget *budget, const struct limits *limits)
{
    acre_assert(limits->weight <= WEIGHT_MAX);
    budget->limits = *limits;
    if (limits->high_bytes == 0)
        budget->limits.high_bytes = HIGH_NONE;
    if (limits->weight == 0)
        budget->limits.weight = WEIGHT_DEFAULT;
    budget->ledger->n_limits++;
    hold(budget);
}

static void count(struct budget *from, uint64_t n_bytes, bool comes)
{
    for (struct budget *b = from; b; b = b->parent)
        b->total_bytes = comes ? b->total_bytes + n_bytes : b->total_bytes - n_bytes;
    hold(from);
}

static void haunt(struct budget *from, uint64_t n_bytes, bool comes)
{
    for (struct budget *b = from; b; b = b->parent)
        b->haunted_bytes = comes ? b->haunted_bytes + n_bytes : b->haunted_bytes - n_bytes;
    hold(from);
}

void budget_move(struct budget *budget, struct budget *parent)
{
    if (budget->parent == parent)
        return;
    *sum_held(budget) -= budget->held_bytes; /* nothing on the way */
    budget->held_bytes = 0;
    count(budget->parent, budget->total_bytes, false);
    haunt(budget->parent, budget->haunted_bytes, false);
    LIST_REMOVE(budget, beside);
    budget->parent = parent;
    LIST_INSERT_HEAD(siblings(budget), budget, beside);
    budget->ledger->n_limits++;
    count(parent, budget->total_bytes, true);
    haunt(parent, budget->haunted_bytes, true);
    hold(budget);
}

uint64_t budget_left(const struct budget *budget)
{
    uint64_t left_bytes = UINT64_MAX, beside_bytes = budget->below_bytes, own_bytes = 0;
    for (const struct budget *b = budget; b; b = b->parent) {
        uint64_t wall_bytes = minus(b->limits.max_bytes, b->total_bytes);
        uint64_t promised_bytes = MIN(own_bytes, wall_bytes);
        left_bytes = MIN(left_bytes, MAX(minus(wall_bytes, beside_bytes), promised_bytes));
        own_bytes = minus(b->held_bytes, beside_bytes); /* held for it, here or above */
        beside_bytes += held_beside(b);
    }
    return left_bytes;
}

uint64_t ledger_left(const struct ledger *ledger)
{
    return minus(ledger->capacity_bytes, ledger->charged_bytes);
}

uint64_t budget_capacity_left(const struct budget *budget)
{
    uint64_t beside_bytes = budget->below_bytes, left_bytes = ledger_left(budget->ledger);
    const struct budget *b = budget;
    for (; b->parent; b = b->parent)
        beside_bytes += held_beside(b);
    uint64_t own_bytes = minus(b->held_bytes, beside_bytes); /* held for it, here or above */
    beside_bytes += held_beside(b);
    return MAX(minus(left_bytes, beside_bytes), MIN(own_bytes, left_bytes));
}

uint64_t budget_promise(const struct budget *budget)
{
    uint64_t below_bytes = 0;
    const struct budget *b;
    LIST_FOREACH (b, &budget->children, beside)
        below_bytes += budget_promise(b);
    return MAX(budget->limits.min_bytes, below_bytes);
}

uint64_t ledger_promised(const struct ledger *ledger)
{
    uint64_t sum_bytes = 0;
    const struct budget *b;
    LIST_FOREACH (b, &ledger->roots, beside)
        sum_bytes += budget_promise(b);
    return sum_bytes;
}

static uint64_t ceiling_of(struct budget *b)
{
    uint64_t above_bytes = b->parent ? ceiling_of(b->parent) : b->ledger->capacity_bytes;
    uint64_t beside_bytes = 0;
    const struct budget *c;
    LIST_FOREACH (c, siblings(b), beside)
        if (c != b)
            beside_bytes += budget_promise(c);
    uint64_t own_bytes = MIN(budget_promise(b), above_bytes);
    return MIN(b->limits.max_bytes, MAX(minus(above_bytes, beside_bytes), own_bytes));
}

/* A walk over all budgets for each of them: once for each change. */
uint64_t budget_ceiling(struct budget *budget)
{
    if (budget->ceiling_limits != budget->ledger->n_limits) {
        budget->ceiling_limits = budget->ledger->n_limits;
        budget->ceiling_bytes = ceiling_of(budget);
    }
    return budget->ceiling_bytes;
}

uint64_t budget_high_left(const struct budget *budget)
{
    uint64_t left_bytes = UINT64_MAX;
    for (const struct budget *b = budget; b; b = b->parent)
        left_bytes = MIN(left_bytes, minus(b->limits.high_bytes, b->total_bytes));
    return left_bytes;
}

static bool is_above(const struct budget *above, const struct budget *b)
{
    while (b && b != above)
        b = b->parent;
    return b != NULL;
}

uint64_t budget_spare(const struct budget *budget, const struct budget *other)
{
    uint64_t back_bytes = budget->total_bytes, more_bytes = 0; /* held then, and not yet now */
    if (is_above(budget, other))
        return UINT64_MAX;
    for (const struct budget *b = budget; b && !is_above(b, other); b = b->parent)
        more_bytes =
            held_with(b, b->total_bytes - back_bytes, b->below_bytes + more_bytes) - b->held_bytes;
    return back_bytes - more_bytes;
}

bool budget_shares_wall(const struct budget *budget, const struct budget *other)
{
    const struct budget *b = budget;
    while (b && !is_above(b, other))
        b = b->parent;
    return b != NULL;
}

/* ---- charges ---- */

static void take(struct budget *budget, uint64_t n_bytes)
{
    acre_assert(n_bytes <= budget->charged_bytes);
    budget->charged_bytes -= n_bytes;
    count(budget, n_bytes, false);
}

void budget_restore(struct budget *budget, uint64_t n_bytes)
{
    budget->ledger->charged_bytes += n_bytes;
    budget->charged_bytes += n_bytes;
    count(budget, n_bytes, true);
}

int budget_charge(struct budget *budget, uint64_t n_bytes)
{
    if (n_bytes > budget_left(budget) || n_bytes > budget_capacity_left(budget))
        return -ENOMEM;
    budget_restore(budget, n_bytes);
    return 0;
}

void budget_refund(struct budget *budget, uint64_t n_bytes)
{
    acre_assert(n_bytes <= budget->ledger->charged_bytes);
    budget->ledger->charged_bytes -= n_bytes;
    take(budget, n_bytes);
}

void budget_orphan(struct budget *budget, uint64_t n_bytes)
{
    budget->orphaned_bytes += n_bytes;
    haunt(budget, n_bytes, true);
    take(budget, n_bytes);
    budget->ledger->orphaned_bytes += n_bytes;
}

void budget_refund_orphaned(struct budget *budget, uint64_t n_bytes)
{
    acre_assert(n_bytes <= budget->orphaned_bytes);
    ledger_refund_orphaned(budget->ledger, n_bytes);
    budget->orphaned_bytes -= n_bytes;
    haunt(budget, n_bytes, false);
}

void ledger_restore_orphaned(struct ledger *ledger, uint64_t n_bytes)
{
    ledger->charged_bytes += n_bytes;
    ledger->orphaned_bytes += n_bytes;
}

void ledger_refund_orphaned(struct ledger *ledger, uint64_t n_bytes)
{
    acre_assert(n_bytes <= ledger->orphaned_bytes);
    ledger->orphaned_bytes -= n_bytes;
    ledger->charged_bytes -= n_bytes;
}

/* ---- is it right? ---- */

/* Returns what is charged to it and all below it. */
static uint64_t assert_budget(const struct budget *b)
{
    uint64_t sum_bytes = b->charged_bytes, total_bytes = b->charged_bytes, below_bytes = 0;
    uint64_t haunted_bytes = b->orphaned_bytes;
    const struct budget *c;
    LIST_FOREACH (c, &b->children, beside) {
        acre_assert(c->parent == b);
        sum_bytes += assert_budget(c);
        total_bytes += c->total_bytes;
        below_bytes += c->held_bytes;
        haunted_bytes += c->haunted_bytes;
    }
    acre_assert(total_bytes == b->total_bytes && below_bytes == b->below_bytes);
    acre_assert(b->held_bytes == held_of(b) && haunted_bytes == b->haunted_bytes);
    return sum_bytes;
}

void ledger_assert_valid(const struct ledger *ledger)
{
    uint64_t sum = ledger->orphaned_bytes, held_bytes = 0;
    const struct budget *b;
    LIST_FOREACH (b, &ledger->roots, beside) {
        sum += assert_budget(b);
        held_bytes += b->held_bytes;
    }
    if (sum != ledger->charged_bytes)
        fprintf(stderr, "ledger: budgets say %" PRIu64 ", the ledger %" PRIu64 "\n", sum,
                ledger->charged_bytes);
    acre_assert(sum == ledger->charged_bytes && held_bytes == ledger->held_bytes);
}
