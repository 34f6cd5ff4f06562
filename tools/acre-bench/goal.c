/* SPDX-License-Identifier: Apache-2.0 */
#include "goal.h"

#include <math.h>
#include <string.h>

#define MI PEER_MIMALLOC

/* clang-format off */
const struct goal goals[] = {
    {"pair", "64 B",   MI, 0.75, 0.60, NULL, true},
    {"pair", "16 B",   MI, 1.00, 0.80, NULL, true},
    {"pair", "256 B",  MI, 1.00, 0.80, NULL, true},
    {"pair", "1 KiB",  MI, 1.00, 0.80, NULL, true},
    {"pair", "4 KiB",  MI, 1.00, 0.80, NULL, true},
    {"pair", "16 KiB", MI, 1.00, 0.80, NULL, true},
    {"pair", "64 KiB", MI, 1.00, 0.70, NULL, true},
    {"pair", "1 MiB",  MI, 1.00, 0.70, NULL, true},
    {"batch", "in order", MI, 1.10, 0.90, NULL, true},
    {"batch", "reverse",  MI, 1.10, 0.90, NULL, true},
    {"batch", "random",   MI, 1.10, 0.90, NULL, true},
    {"handoff", "64 B, depth 1024",       MI, 0.40, 0.30, NULL, false},
    {"handoff", "64 B, depth 1024, give", MI, 0.40, 0.30, NULL, false},
    {"handoff", "64 B, depth 1024",       PEER_BOOST, 0.02, 0.0125, NULL, false},
    {"handoff", "64 B, depth 1024, give", PEER_BOOST, 0.02, 0.0125, NULL, false},
    {"handoff", "64 B, depth 32",         MI, 0.50, 0.35, NULL, false},
    {"handoff", "64 B, depth 32, give",   MI, 0.50, 0.35, NULL, false},
    {"churn-huge", "1 thread",  GOAL_BEST, 1.05, 0.90, NULL, true},
    {"churn-huge", "2 threads", GOAL_BEST, 1.05, 0.90, NULL, true},
    {"larson",  "2 threads", MI, 0.85, 0.75, NULL, true},
    {"xmalloc", "2 threads", MI, 0.60, 0.40, NULL, true},
    {"sh6", "1 thread",  MI, 1.15, 0.95, NULL, true},
    {"sh8", "2 threads", MI, 0.60, 0.40, NULL, true},
    {"sh8", "2 threads", PEER_TCMALLOC, 1.50, 1.00, NULL, false},
    {"fresh-page-huge", "page", PEER_KERNEL, 0.05, 0.03, NULL, false},
    {"fresh-page", "page", PEER_KERNEL, 0.35, 0.28, NULL, false},
    {"fresh-huge", "4,000,000 x 112 B", MI, 1.00, 0.50, NULL, false},
    {"grow", "round trip", PEER_KERNEL, 2.0, 1.4, NULL, false},
    {"tail", "free p99.99",  MI, 1.0, 0.7, NULL, false},
    {"tail", "malloc p99.9", MI, 1.0, 0.7, NULL, false},
    {"tail", "slow paths", GOAL_ABSOLUTE, 0, 0, NULL, false},
    {"space", "peak, 64 MiB", MI, 1.0, 0.9, NULL, false},
    {"space", "trimmed", GOAL_ABSOLUTE, 2.0, 1.3, NULL, false},
    {"space", "a client", GOAL_ABSOLUTE, 256, 96, NULL, false},
    {"flat", "pair, 4 GiB live",  GOAL_ROW, 1.2, 1.2, "pair, 64 MiB live", false},
    {"flat", "churn, 4 GiB live", GOAL_ROW, 1.2, 1.2, "churn, 64 MiB live", false},
    {"flat", "grow, 4 GiB live",  GOAL_ROW, 1.2, 1.2, "grow, 64 MiB live", false},
    {"crowd", "round trip, beside",      GOAL_ROW, 2.0, 1.2, "round trip, alone", false},
    {"crowd", "attach, detach, beside",  GOAL_ROW, 2.0, 1.2, "attach, detach, alone", false},
    {"crowd", "daemon memory, a client", GOAL_ABSOLUTE, 8, 4, NULL, false},
    {"crowd", "descriptors, a client",   GOAL_ABSOLUTE, 3, 3, NULL, false},
    {"soft", "1 GiB of 8 KiB",   GOAL_ABSOLUTE, 100, 50, NULL, false},
    {"soft", "1 GiB of 64 KiB",  GOAL_ABSOLUTE, 100, 50, NULL, false},
    {"soft", "1 GiB of 1 MiB",   GOAL_ABSOLUTE, 100, 50, NULL, false},
    {"soft", "1 GiB, another's", GOAL_ABSOLUTE, 100, 50, NULL, false},
    {"real", "Lua",    PEER_GLIBC, 1.00, 0.90, NULL, false},
    {"real", "SQLite", PEER_GLIBC, 1.00, 0.95, NULL, false},
};
/* clang-format on */
const unsigned n_goals = sizeof(goals) / sizeof(goals[0]);

const struct goal goal_of_mean = {"all of these", "geometric mean", GOAL_BEST, 1.10, 0.90, NULL,
                                  false};

static double ratio_to_best(const struct row *row)
{
    double best = NAN, ratio = NAN;
    for (unsigned peer = PEER_ACRE + 1; peer < PEERS; peer++) {
        double value = row_values(row, (enum peer_idx)peer).median;
        if (isnan(value) || value >= best)
            continue;
        best = value;
        ratio = row_ratios(row, (enum peer_idx)peer).median;
    }
    return ratio;
}

static const struct row *row_named(const struct bench *bench, const char *workload,
                                   const char *metric)
{
    for (unsigned i = 0; i < bench->n_rows; i++)
        if (strcmp(bench->rows[i].workload->name, workload) == 0 &&
            strcmp(bench->rows[i].metric, metric) == 0)
            return &bench->rows[i];
    return NULL;
}

static double ratio_of_rows(const struct row *row, const struct row *other)
{
    if (!other)
        return NAN;
    return row_values(row, PEER_ACRE).median / row_values(other, PEER_ACRE).median;
}

double goal_figure(const struct bench *bench, const struct goal *goal)
{
    const struct row *row = row_named(bench, goal->workload, goal->metric);
    if (!row)
        return NAN;
    switch (goal->peer) {
    case GOAL_BEST:
        return ratio_to_best(row);
    case GOAL_ABSOLUTE:
        return row_values(row, PEER_ACRE).median;
    case GOAL_ROW:
        return ratio_of_rows(row, row_named(bench, goal->workload, goal->other));
    default:
        return row_ratios(row, (enum peer_idx)goal->peer).median;
    }
}

bool goal_is_about(const struct goal *goal, const struct row *row)
{
    return strcmp(goal->workload, row->workload->name) == 0 &&
           strcmp(goal->metric, row->metric) == 0;
}

const char *goal_against(const struct goal *goal)
{
    return goal->peer == GOAL_BEST       ? "best peer"
           : goal->peer == GOAL_ABSOLUTE ? "Acre alone"
           : goal->peer == GOAL_ROW      ? goal->other
                                         : peers[goal->peer].name;
}

const char *goal_verdict(const struct goal *goal, double figure)
{
    return figure <= goal->aim ? "aim" : figure <= goal->must ? "must" : "missed";
}

static bool is_in_mean(const struct row *row)
{
    for (unsigned i = 0; i < n_goals; i++)
        if (goals[i].is_in_mean && goal_is_about(&goals[i], row))
            return true;
    return false;
}

double goal_mean(const struct bench *bench, unsigned *ret_n)
{
    double sum = 0;
    *ret_n = 0;
    for (unsigned i = 0; i < bench->n_rows; i++) {
        double ratio = is_in_mean(&bench->rows[i]) ? ratio_to_best(&bench->rows[i]) : NAN;
        if (isnan(ratio))
            continue;
        sum += log(ratio);
        ++*ret_n;
    }
    return *ret_n ? exp(sum / *ret_n) : NAN;
}
