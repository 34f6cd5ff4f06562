/* SPDX-License-Identifier: Apache-2.0 */
#include "table.h"

#include <acre.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "goal.h"

/* JSON knows no NAN. */
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *json_spread(struct spread s)
{
    return json_pack("{s:o, s:o, s:o}", "median", number(s.median), "low", number(s.low), "high",
                     number(s.high));
}

static json_t *json_series(const struct row *row, unsigned peer)
{
    json_t *values = json_array();
    for (unsigned run = 0; run < row->n_runs; run++)
        json_array_append_new(values, number(row->by_peer[peer].values[run]));
    json_t *o = json_pack("{s:o, s:o}", "value", json_spread(row_values(row, (enum peer_idx)peer)),
                          "values", values);
    double instructions = row_instructions(row, (enum peer_idx)peer);
    json_object_set_new(o, "instructions", number(instructions < 0 ? NAN : instructions));
    if (peer != PEER_ACRE)
        json_object_set_new(o, "ratio", json_spread(row_ratios(row, (enum peer_idx)peer)));
    return o;
}

static json_t *json_goal(const struct goal *goal, double figure)
{
    return json_pack("{s:s, s:s, s:s, s:o, s:f, s:f, s:s}", "workload", goal->workload, "metric",
                     goal->metric, "against", goal_against(goal), "figure", number(figure), "must",
                     goal->must, "aim", goal->aim, "reached",
                     isnan(figure) ? "not measured" : goal_verdict(goal, figure));
}

static json_t *json_row(const struct row *row)
{
    json_t *all = json_object();
    for (unsigned peer = 0; peer < PEERS; peer++)
        if (row->by_peer[peer].n)
            json_object_set_new(all, peers[peer].name, json_series(row, peer));
    return json_pack("{s:s, s:s, s:s, s:o}", "workload", row->workload->name, "metric", row->metric,
                     "unit", row->unit, "by_peer", all);
}

static json_t *json_goals(const struct bench *bench)
{
    json_t *all = json_array();
    for (unsigned i = 0; i < bench->n_rows; i++)
        for (unsigned k = 0; k < n_goals; k++)
            if (goal_is_about(&goals[k], &bench->rows[i]))
                json_array_append_new(all, json_goal(&goals[k], goal_figure(bench, &goals[k])));
    unsigned n;
    double mean = goal_mean(bench, &n);
    json_array_append_new(all, json_goal(&goal_of_mean, mean));
    return all;
}

static json_t *json_peers(const struct bench *bench)
{
    json_t *all = json_object();
    for (unsigned peer = 0; peer < PEERS; peer++)
        json_object_set_new(all, peers[peer].name,
                            json_pack("{s:b, s:b, s:s}", "found", bench->found[peer].is_there,
                                      "wanted", (bench->wanted & PEER_BIT(peer)) != 0, "library",
                                      bench->found[peer].library));
    return all;
}

/* What the figures depend on, and how busy it was. */
static json_t *json_machine(const struct bench *bench)
{
    struct utsname name = {0};
    (void)uname(&name);
    return json_pack("{s:s, s:s, s:I, s:o}", "kernel", name.release, "architecture", name.machine,
                     "processors", (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "others",
                     number(bench->others));
}

bool json_print(const struct bench *bench)
{
    json_t *rows = json_array();
    for (unsigned i = 0; i < bench->n_rows; i++)
        json_array_append_new(rows, json_row(&bench->rows[i]));
    json_t *root = json_pack("{s:s, s:o, s:i, s:b, s:b, s:i, s:o, s:o, s:o}", "version",
                             acre_version(), "machine", json_machine(bench), "runs",
                             (int)bench->n_runs, "quick", bench->is_quick, "counts_instructions",
                             bench->has_counter, "failed", (int)bench->n_failed, "peers",
                             json_peers(bench), "rows", rows, "goals", json_goals(bench));
    bool ok = root && json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) == 0;
    printf("\n");
    json_decref(root);
    return ok;
}
