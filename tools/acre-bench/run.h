/* SPDX-License-Identifier: Apache-2.0 */
/* run.h - the parent: children, alternation, medians. */
#ifndef BENCH_RUN_H
#define BENCH_RUN_H

#include <stdbool.h>

#include "daemon.h"
#include "peers.h"
#include "workload.h"

#define RUNS_MAX 99u
#define ROWS_MAX 512u

/* One figure of one participant; NAN where a run gave none. */
struct series {
    unsigned n; /* runs that gave one */
    double values[RUNS_MAX];
    double instructions[RUNS_MAX];
};

/* One figure of all participants. */
struct row {
    const struct workload *workload;
    char metric[48], unit[16];
    unsigned n_runs;
    struct series by_peer[PEERS];
};

struct spread {
    double median, low, high; /* low and high: the quartiles; NAN: nothing was measured */
};

struct bench {
    struct daemon daemon;
    struct peer_found found[PEERS];
    unsigned wanted; /* PEER_BIT()s */
    unsigned n_runs;
    bool is_quick, has_counter;
    unsigned n_failed; /* children */
    double others;     /* the part of the machine that other programs had meanwhile; may be NAN */
    unsigned n_rows;
    struct row *rows;
};

/* All cases of a workload; appends to the rows. An exit code: failing children are counted, not an
 * error. */
int run_workload(struct bench *bench, const struct workload *workload);

struct spread row_values(const struct row *row, enum peer_idx peer);
/* Acre / peer, run by run. */
struct spread row_ratios(const struct row *row, enum peer_idx peer);
double row_instructions(const struct row *row, enum peer_idx peer); /* < 0: not counted */

/* Whether a signal asked to end. */
bool run_is_interrupted(void);
void run_catch_signals(void);

/* A child of the peer's that only says where its calls go; false if it cannot start. */
bool child_probe(enum peer_idx peer, char ret_library[PATH_MAX]);

/* What a child does, given the arguments that its parent has made. */
int child_main(char **argv);
#define CHILD_ARGUMENT "--child"

#endif
