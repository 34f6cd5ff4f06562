/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shares of random trees of budgets against a naive twin, which hands out one byte after the other
 * to whoever has least for its weight.
 *
 * model-shares [SEED [WORLDS]]
 */
#include <inttypes.h>
#include <stdlib.h>

#include "daemon/share.h"
#include "tests/random.h"

#define BUDGETS   12u
#define SLACK     12u /* bytes that rounding may cost, at three levels */
#define NO_PARENT UINT32_MAX

enum { FAIR, STUCK, REACH };

/* The twin's own idea of a budget. */
struct twin {
    uint32_t parent;
    uint64_t promised, kept, floor, demand, all, fair, reach;
    bool wants, is_too_large, is_short;
};

static struct {
    uint64_t rng, have;
    uint32_t n;
    struct ledger ledger;
    struct budget budgets[BUDGETS];
    struct twin twins[BUDGETS];
    uint64_t n_short, n_too_large, n_next, n_stuck, n_compared;
} m;

static uint64_t below(uint64_t n)
{
    return rnd(&m.rng) % n;
}

static void must(bool cond, const char *what, uint32_t i)
{
    if (cond)
        return;
    const struct budget *b = &m.budgets[i];
    const struct twin *t = &m.twins[i];
    fprintf(stderr,
            "budget %u: %s: fair %" PRIu64 ", twin's %" PRIu64 "; reach %" PRIu64
            ", twin's %" PRIu64 " (use %" PRIu64 ", want %" PRIu64 ", need %" PRIu64
            ", min %" PRIu64 ", max %" PRIu64 ", weight %u)\n",
            i, what, b->share.fair_bytes, t->fair, b->share.reach_bytes, t->reach,
            b->share.use_bytes, b->share.want_bytes, b->share.need_bytes, b->limits.min_bytes,
            b->limits.max_bytes, b->limits.weight);
    abort();
}

/* ---- the twin ---- */

static uint64_t twin_least(const struct twin *t, int kind)
{
    return kind == FAIR ? t->promised : kind == STUCK ? t->kept : t->floor;
}

static void twin_sum(int kind)
{
    for (uint32_t i = 0; i < m.n; i++) {
        const struct share *s = &m.budgets[i].share;
        struct twin *t = &m.twins[i];
        t->wants = s->want_bytes > 0 && !t->is_too_large;
        t->promised = 0;
        t->floor = t->all = s->use_bytes;
        t->kept = s->stuck_bytes;
        t->demand = s->use_bytes + (t->wants ? s->want_bytes : 0);
    }
    for (uint32_t i = m.n; i-- > 0;) { /* children come after their parents */
        const struct limits *l = &m.budgets[i].limits;
        struct twin *t = &m.twins[i];
        t->promised = MAX(t->promised, l->min_bytes);
        t->demand = MAX(MIN(t->demand, l->max_bytes), t->promised);
        t->floor = MAX(t->floor, t->promised);
        t->kept = MAX(t->kept, t->promised);
        if (t->parent == NO_PARENT)
            continue;
        struct twin *p = &m.twins[t->parent];
        p->promised += t->promised;
        p->floor += t->floor;
        p->kept += t->kept;
        p->demand += MAX(t->demand, twin_least(t, kind));
        p->all += t->all;
        p->wants |= t->wants;
    }
}

static uint64_t *twin_value(uint32_t i, int kind)
{
    return kind == REACH ? &m.twins[i].reach : &m.twins[i].fair;
}

/* (value + 1 - promised) / weight: who is lowest after one byte more. */
static double twin_level(uint32_t i, int kind)
{
    double more = (double)*twin_value(i, kind) + 1 - (double)m.twins[i].promised;
    return more / m.budgets[i].limits.weight;
}

static void twin_spread(uint32_t parent, uint64_t have, int kind, bool is_short)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < m.n; i++)
        if (m.twins[i].parent == parent) {
            *twin_value(i, kind) = twin_least(&m.twins[i], kind);
            sum += *twin_value(i, kind);
        }
    bool any_short = sum > have; /* what is used and promised alone */
    for (; sum < have; sum++) {
        uint32_t next = NO_PARENT;
        for (uint32_t i = 0; i < m.n; i++)
            if (m.twins[i].parent == parent && *twin_value(i, kind) < m.twins[i].demand &&
                (next == NO_PARENT || twin_level(i, kind) < twin_level(next, kind)))
                next = i;
        if (next == NO_PARENT)
            break;
        (*twin_value(next, kind))++;
    }
    for (uint32_t i = 0; i < m.n; i++)
        any_short |= m.twins[i].parent == parent && *twin_value(i, kind) < m.twins[i].demand;
    for (uint32_t i = 0; i < m.n; i++) {
        if (m.twins[i].parent != parent)
            continue;
        uint64_t value = *twin_value(i, kind), use = m.budgets[i].share.use_bytes;
        m.twins[i].is_short = is_short || any_short;
        twin_spread(i, value - MIN(value, use), kind, is_short || any_short);
    }
}

/* False: rounding decides. */
static bool twin_find_too_large(void)
{
    for (uint32_t i = 0; i < m.n; i++) {
        const struct share *s = &m.budgets[i].share;
        uint64_t piece = s->use_bytes + s->need_bytes;
        uint64_t fair = m.twins[i].fair + m.twins[i].fair / SHARE_SLACK;
        if (s->need_bytes > 0 && piece + SLACK >= fair && fair + SLACK >= piece)
            return false;
        m.twins[i].is_too_large = s->need_bytes > 0 && piece > fair;
    }
    return true;
}

static bool twin_is_next(uint32_t i)
{
    const struct twin *t = &m.twins[i];
    double mine = (double)(t->all - MIN(t->all, t->promised)) / m.budgets[i].limits.weight;
    for (uint32_t k = 0; k < m.n; k++) {
        const struct twin *o = &m.twins[k];
        double other = (double)(o->all - MIN(o->all, o->promised)) / m.budgets[k].limits.weight;
        if (o->parent == t->parent && o->wants && other < mine)
            return false;
    }
    return t->wants && (t->parent == NO_PARENT || twin_is_next(t->parent));
}

static bool twin_find_fair(int kind)
{
    twin_sum(kind);
    twin_spread(NO_PARENT, m.have, kind, false);
    if (!twin_find_too_large())
        return false;
    twin_sum(kind);
    twin_spread(NO_PARENT, m.have, kind, false);
    return true;
}

static bool twin_all(void)
{
    bool any = false;
    for (uint32_t i = 0; i < m.n; i++) {
        m.twins[i].is_too_large = false;
        any |= m.budgets[i].share.stuck_bytes > 0;
    }
    if (!twin_find_fair(FAIR) || (any && !twin_find_fair(STUCK)))
        return false;
    m.n_stuck += any;
    twin_sum(REACH);
    twin_spread(NO_PARENT, m.have, REACH, false);
    return true;
}

/* ---- worlds ---- */

static void make_budget(uint32_t i)
{
    struct budget *b = &m.budgets[i];
    uint32_t parent = i > 2 && below(2) ? (uint32_t)below(MIN(i, 5)) : NO_PARENT;
    struct limits limits = {.max_bytes = below(2) ? 100 + below(1000) : 100000,
                            .min_bytes = below(3) ? 0 : below(80),
                            .weight = 1 + (uint32_t)below(below(2) ? 5 : 1000)};
    m.twins[i] = (struct twin){.parent = parent};
    budget_init(b, &m.ledger, parent == NO_PARENT ? NULL : &m.budgets[parent]);
    budget_set(b, &limits);
    if (below(5) == 0)
        return;
    b->share.use_bytes = below(3) ? below(400) : 0;
    b->share.stuck_bytes = below(8) ? 0 : b->share.use_bytes;
    b->share.want_bytes = below(3) ? 1 + below(600) : 0;
    b->share.need_bytes = b->share.want_bytes > 0 && below(2) ? 1 + below(b->share.want_bytes) : 0;
}

static bool is_near(uint64_t a, uint64_t b)
{
    uint64_t slack = SLACK + m.have / 1024;
    return a <= b + slack && b <= a + slack;
}

static void compare(uint32_t i)
{
    const struct share *s = &m.budgets[i].share;
    const struct twin *t = &m.twins[i];
    bool is_next = s->want_bytes > 0 && !t->is_too_large && twin_is_next(i);
    uint64_t reach = is_next ? MAX(t->reach, s->use_bytes + s->need_bytes) : t->reach;
    must(is_near(s->fair_bytes, t->fair), "another share", i);
    must(s->is_too_large == t->is_too_large, "another one's piece is too large", i);
    if (t->is_short || !t->is_too_large)
        must(t->is_short ? is_near(s->reach_bytes, reach) : s->reach_bytes == UINT64_MAX,
             "another reach", i);
    m.n_short += t->is_short;
    m.n_too_large += t->is_too_large;
    m.n_next += is_next;
}

static void run_world(void)
{
    m.have = 100 + below(3000);
    m.n = 1 + (uint32_t)below(BUDGETS);
    ledger_init(&m.ledger, m.have);
    for (uint32_t i = 0; i < m.n; i++)
        make_budget(i);
    share_all(&m.ledger);
    if (twin_all()) {
        for (uint32_t i = 0; i < m.n; i++)
            compare(i);
        m.n_compared++;
    }
    for (uint32_t i = m.n; i-- > 0;)
        budget_deinit(&m.budgets[i]);
    ledger_deinit(&m.ledger);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint32_t n_worlds = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 20000;
    printf("seed %" PRIu64 "\n", seed);
    m.rng = rnd_seeded(seed);
    for (uint32_t i = 0; i < n_worlds; i++)
        run_world();
    printf("%" PRIu64 " of %u worlds compared: %" PRIu64 " budgets short, %" PRIu64
           " with too large a piece, %" PRIu64 " next in line; %" PRIu64
           " worlds with who does not give\n",
           m.n_compared, n_worlds, m.n_short, m.n_too_large, m.n_next, m.n_stuck);
    acre_assert(m.n_compared > n_worlds / 2 && m.n_short > 0 && m.n_too_large > 0 && m.n_next > 0 &&
                m.n_stuck > 0);
    return 0;
}
