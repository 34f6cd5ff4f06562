/* SPDX-License-Identifier: Apache-2.0 */
/* fair_share.h - weighted max-min fairness, as naive as can be: a twin for what the daemon finds. */
#ifndef ACRE_TESTS_FAIR_SHARE_H
#define ACRE_TESTS_FAIR_SHARE_H

#include <stdbool.h>
#include <stdint.h>

/* A tenant, or a group. */
struct fair_node {
    char name[40];
    struct fair_node *group; /* NULL: none */
    uint64_t min_bytes, max_bytes;
    uint32_t weight;
    /* What there is at one moment: for the twin. */
    double has, demand, asleep; /* asleep: what it cannot give back */
    bool wants;
    /* What is found. */
    double promised, floor, share;
};

struct fair_world {
    double capacity_bytes;
    struct fair_node *nodes; /* groups first */
    uint32_t n_groups, n_nodes;
};

/* All shares, from what all have and want. */
void fair_share(const struct fair_world *world);

/* What it has beyond its share (below: < 0), as a part of that; 0: it is right, or less than
 * slack_bytes off, or below and wants no more. */
double fair_deviation(const struct fair_node *node, double slack_bytes);
/* By more than a 20th? */
bool fair_is_missed(double part);

#endif
