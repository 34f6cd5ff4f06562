/* SPDX-License-Identifier: Apache-2.0 */
#include "table.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "goal.h"

#define COLUMN     18
#define OTHERS_MAX 0.05

static bool takes_part(const struct bench *bench, unsigned peer)
{
    for (unsigned i = 0; i < bench->n_rows; i++)
        if (bench->rows[i].by_peer[peer].n)
            return true;
    return false;
}

static void print_head(const struct bench *bench)
{
    printf("Acre / peer: median of %u alternations (quartiles)%s\n", bench->n_runs,
           bench->is_quick ? "; --quick: too short to conclude from" : "");
    printf("%-34s %16s %7s", "", "Acre", bench->has_counter ? "instr." : "");
    for (unsigned peer = PEER_ACRE + 1; peer < PEERS; peer++)
        if (takes_part(bench, peer))
            printf(" %*s", COLUMN, peers[peer].name);
    printf("\n");
}

static void print_ratio(const struct row *row, unsigned peer)
{
    char text[64] = "";
    struct spread ratio = row_ratios(row, (enum peer_idx)peer);
    int digits = ratio.median < 0.1 ? 4 : 2;
    if (!isnan(ratio.median))
        snprintf(text, sizeof(text), "%.*f (%.*f-%.*f)", digits, ratio.median, digits, ratio.low,
                 digits, ratio.high);
    printf(" %*s", COLUMN, text);
}

static void print_row(const struct bench *bench, const struct row *row)
{
    char name[80], value[40] = "", instructions[16] = "";
    double median = row_values(row, PEER_ACRE).median, count = row_instructions(row, PEER_ACRE);
    snprintf(name, sizeof(name), "%s, %s", row->workload->name, row->metric);
    if (!isnan(median))
        snprintf(value, sizeof(value), "%.4g %s", median, row->unit);
    if (count >= 0)
        snprintf(instructions, sizeof(instructions), "%.0f", count);
    printf("%-34s %16s %7s", name, value, instructions);
    for (unsigned peer = PEER_ACRE + 1; peer < PEERS; peer++)
        if (takes_part(bench, peer))
            print_ratio(row, peer);
    if (row->n_runs < bench->n_runs)
        printf("  (of %u)", row->n_runs);
    printf("\n");
}

static void print_goal(const struct goal *goal, double figure)
{
    char name[80], text[24] = "not measured";
    snprintf(name, sizeof(name), "%s, %s", goal->workload, goal->metric);
    if (!isnan(figure))
        snprintf(text, sizeof(text), "%.*f", figure < 0.1 ? 4 : 2, figure);
    printf("%-34s %-18s %12s %8g %8g  %s\n", name, goal_against(goal), text, goal->must, goal->aim,
           isnan(figure) ? "" : goal_verdict(goal, figure));
}

static void print_goals(const struct bench *bench)
{
    printf("\n%-34s %-18s %12s %8s %8s  %s\n", "goal", "against", "figure", "must", "aim",
           "reached");
    for (unsigned i = 0; i < bench->n_rows; i++)
        for (unsigned k = 0; k < n_goals; k++)
            if (goal_is_about(&goals[k], &bench->rows[i]))
                print_goal(&goals[k], goal_figure(bench, &goals[k]));
    unsigned n;
    double mean = goal_mean(bench, &n);
    print_goal(&goal_of_mean, mean);
}

void table_print(const struct bench *bench)
{
    print_head(bench);
    for (unsigned i = 0; i < bench->n_rows; i++)
        print_row(bench, &bench->rows[i]);
    print_goals(bench);
    if (!isnan(bench->others))
        printf("\nOther programs had %.0f %% of this machine meanwhile%s.\n", bench->others * 100,
               bench->others > OTHERS_MAX ? ": too much to conclude from small differences" : "");
    if (!bench->has_counter)
        printf("This machine lets nobody count instructions (perf_event_open).\n");
    for (unsigned peer = PEER_ACRE + 1; peer < PEERS; peer++)
        if ((bench->wanted & PEER_BIT(peer)) && !bench->found[peer].is_there)
            printf("%s was not measured: %s is missing\n", peers[peer].name, peers[peer].package);
}
