/* SPDX-License-Identifier: Apache-2.0 */
/* fair_twin.c - weighted max-min fairness, as naive as can be: a level of bytes for each unit of
 * weight rises until all is given away, first among groups and those without one, then in each
 * group. */
#include "tests/system/fair.h"

#define ROUNDS 100u

static double max_of(double a, double b)
{
    return a > b ? a : b;
}

static double min_of(double a, double b)
{
    return a < b ? a : b;
}

static uint32_t n_nodes(void)
{
    return fair.n_groups + fair.n_tenants;
}

static void tidy(struct fair_node *n)
{
    n->promised = max_of(n->promised, (double)n->min_bytes);
    n->floor = max_of(n->floor, n->promised);
    n->demand = max_of(min_of(n->demand, (double)n->max_bytes), n->floor);
}

static void sum_up(void)
{
    for (uint32_t i = 0; i < fair.n_groups; i++) {
        struct fair_node *g = &fair.nodes[i];
        g->has = g->floor = g->demand = g->promised = 0;
    }
    for (uint32_t i = fair.n_groups; i < n_nodes(); i++) {
        struct fair_node *n = &fair.nodes[i], *g = n->group;
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
    for (uint32_t i = 0; i < fair.n_groups; i++)
        tidy(&fair.nodes[i]);
}

static double at_level(const struct fair_node *n, double level)
{
    return min_of(max_of(n->promised + level * n->weight, n->floor), n->demand);
}

static double sum_at_level(const struct fair_node *group, double level)
{
    double sum = 0;
    for (uint32_t i = 0; i < n_nodes(); i++)
        if (fair.nodes[i].group == group)
            sum += at_level(&fair.nodes[i], level);
    return sum;
}

/* group NULL: those without one. */
static void spread(const struct fair_node *group, double have)
{
    double low = 0, high = (double)fair.capacity_bytes;
    for (unsigned i = 0; i < ROUNDS; i++) {
        double mid = (low + high) / 2;
        *(sum_at_level(group, mid) <= have ? &low : &high) = mid;
    }
    for (uint32_t i = 0; i < n_nodes(); i++)
        if (fair.nodes[i].group == group)
            fair.nodes[i].share = at_level(&fair.nodes[i], low);
}

/* Below a max that was lowered, promises do not help where others' sleepers are. */
static void leave_what_is_there(struct fair_node *n)
{
    double room = (double)n->group->max_bytes;
    for (uint32_t i = fair.n_groups; i < n_nodes(); i++)
        if (&fair.nodes[i] != n && fair.nodes[i].group == n->group)
            room -= fair.nodes[i].asleep;
    n->share = min_of(n->share, max_of(room, n->asleep));
}

void fair_twin(void)
{
    sum_up();
    spread(NULL, (double)fair.capacity_bytes);
    for (uint32_t i = 0; i < fair.n_groups; i++)
        spread(&fair.nodes[i], fair.nodes[i].share);
    for (uint32_t i = fair.n_groups; i < n_nodes(); i++)
        if (fair.nodes[i].group)
            leave_what_is_there(&fair.nodes[i]);
}
