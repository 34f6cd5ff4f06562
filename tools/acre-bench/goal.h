/* SPDX-License-Identifier: Apache-2.0 */
/* goal.h - what Acre must reach and aims at, and how far it is. */
#ifndef BENCH_GOAL_H
#define BENCH_GOAL_H

#include "run.h"

#define GOAL_BEST     (-1) /* against the fastest peer of that row */
#define GOAL_ABSOLUTE (-2) /* Acre's own figure, in the row's unit */
#define GOAL_ROW      (-3) /* Acre's figure in another row of the same workload */

struct goal {
    const char *workload, *metric;
    int peer; /* enum peer_idx, or one of the above */
    double must, aim;
    const char *other; /* GOAL_ROW: that row */
    bool is_in_mean;   /* one of those that the geometric mean is taken over */
};

extern const struct goal goals[];
extern const unsigned n_goals;

/* The figure that a goal is about; NAN if it was not measured. */
double goal_figure(const struct bench *bench, const struct goal *goal);
bool goal_is_about(const struct goal *goal, const struct row *row);

/* "mimalloc", "best peer", "Acre alone", the other row's name. */
const char *goal_against(const struct goal *goal);

/* "aim", "must" or "missed": what the figure has reached. */
const char *goal_verdict(const struct goal *goal, double figure);

/* The geometric mean over the rows of the goals marked so, each against the best peer of its row;
 * *ret_n is how many there were. */
double goal_mean(const struct bench *bench, unsigned *ret_n);
extern const struct goal goal_of_mean;

#endif
