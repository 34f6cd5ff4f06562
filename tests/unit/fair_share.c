/* SPDX-License-Identifier: Apache-2.0 */
/* The level of bytes for each unit of weight rises until all is given away, first among groups and
 * those without one, then in each group. */
#include "tests/unit/fair_share.h"

#include <stddef.h>

#define ROUNDS    100u
#define DEVIATION 0.05

static double max_of(double a, double b)
{
    return a > b ? a : b;
}

static double min_of(double a, double b)
{
    return a < b ? a : b;
}

static void tidy(struct fair_node *n)
{
    n->promised = max_of(n->promised, (double)n->min_bytes);
    n->floor = max_of(n->floor, n->promised);
    n->demand = max_of(min_of(n->demand, (double)n->max_bytes), n->floor);
}

static void sum_up(const struct fair_world *w)
{
    for (uint32_t i = 0; i < w->n_groups; i++) {
        struct fair_node *g = &w->nodes[i];
        g->has = g->floor = g->demand = g->promised = 0;
    }
    for (uint32_t i = w->n_groups; i < w->n_nodes; i++) {
        struct fair_node *n = &w->nodes[i], *g = n->group;
        n->promised = 0;
        n->floor = n->asleep;
        tidy(n);
        if (!g)
            continue;
        g->has += n->has;
        g->floor += n->floor;
        g->demand += n->demand;
        g->promised += n->promised;
    }
    for (uint32_t i = 0; i < w->n_groups; i++)
        tidy(&w->nodes[i]);
}

static double at_level(const struct fair_node *n, double level)
{
    return min_of(max_of(n->promised + level * n->weight, n->floor), n->demand);
}

static double sum_at_level(const struct fair_world *w, const struct fair_node *group, double level)
{
    double sum = 0;
    for (uint32_t i = 0; i < w->n_nodes; i++)
        if (w->nodes[i].group == group)
            sum += at_level(&w->nodes[i], level);
    return sum;
}

/* group NULL: those without one. */
static void spread(const struct fair_world *w, const struct fair_node *group, double have)
{
    double low = 0, high = w->capacity_bytes;
    for (unsigned i = 0; i < ROUNDS; i++) {
        double mid = (low + high) / 2;
        *(sum_at_level(w, group, mid) <= have ? &low : &high) = mid;
    }
    for (uint32_t i = 0; i < w->n_nodes; i++)
        if (w->nodes[i].group == group)
            w->nodes[i].share = at_level(&w->nodes[i], low);
}

/* Below a max that was lowered, promises do not help where others' sleepers are. */
static void leave_what_is_there(const struct fair_world *w, struct fair_node *n)
{
    double room = (double)n->group->max_bytes;
    for (uint32_t i = w->n_groups; i < w->n_nodes; i++)
        if (&w->nodes[i] != n && w->nodes[i].group == n->group)
            room -= w->nodes[i].asleep;
    n->share = min_of(n->share, max_of(room, n->asleep));
}

void fair_share(const struct fair_world *w)
{
    sum_up(w);
    spread(w, NULL, w->capacity_bytes);
    for (uint32_t i = 0; i < w->n_groups; i++)
        spread(w, &w->nodes[i], w->nodes[i].share);
    for (uint32_t i = w->n_groups; i < w->n_nodes; i++)
        if (w->nodes[i].group)
            leave_what_is_there(w, &w->nodes[i]);
}

double fair_deviation(const struct fair_node *n, double slack_bytes)
{
    bool is_below = n->wants && n->has + slack_bytes < n->share;
    bool is_above = n->has > n->share + slack_bytes;
    return is_below || is_above ? (n->has - n->share) / max_of(n->share, 1) : 0;
}

bool fair_is_missed(double part)
{
    return part < -DEVIATION || part > DEVIATION;
}
