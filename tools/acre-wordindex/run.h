/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.h - the parent: it cuts the text into parts, starts a worker for each, and replaces those
 * that are killed.
 */
#ifndef WORDINDEX_RUN_H
#define WORDINDEX_RUN_H

#include <acre.h>

#include <stdbool.h>
#include <stdint.h>

#include "job.h"
#include "text.h"

#define WORKERS_MAX 256u
#define KILLS_MAX   8u

struct run_options {
    unsigned n_workers;
    bool kill_one; /* one worker, at a random instant chosen by seed */
    uint64_t seed;
    uint64_t kill_at[KILLS_MAX]; /* the first part's worker dies at its so manieth step, and its
                                    successors */
    unsigned n_kills;
};

/* Counts the text into a new index, which belongs to the caller's client. Says what goes wrong on
 * stderr; an exit code. */
int run_count(struct acre_heap *heap, const struct text *text, const struct run_options *options,
              struct job **ret_job);

#endif
