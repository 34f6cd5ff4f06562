/* SPDX-License-Identifier: Apache-2.0 */
/*
 * job.h - what a run has in the heap: one job with its map and a part for each worker. Offsets
 * only.
 */
#ifndef WORDINDEX_JOB_H
#define WORDINDEX_JOB_H

#include <acre.h>

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "map.h"

#define JOB_MAGIC 0x3158444944524f57ull /* "WORDIDX1" */

/* "Everything before `position` is counted, once `cell` holds `value`." (worker.c) */
struct line {
    _Atomic uint64_t position;
    _Atomic acre_off cell; /* 0: nothing to store */
    _Atomic uint64_t value;
};

/* Written by the worker that holds the part, read by its successor; the parent reads how far it
 * is. */
struct part {
    alignas(128) uint64_t begin; /* alone on its cache lines */
    uint64_t end;
    _Atomic uint64_t commits; /* line[commits % 2] holds */
    struct line line[2];
    _Atomic acre_off pending;   /* the map's note */
    _Atomic uint32_t killed_at; /* enum kill_point: for the report only */
};

struct job {
    uint64_t magic;
    uint32_t n_parts;
    _Atomic bool failed; /* some worker has said why */
    acre_client keeper;  /* the parent: owner of all */
    struct map_root map;
    struct part parts[];
};

/* The map as one sees it who only reads or frees it. */
static inline struct map job_map(struct acre_heap *heap, struct job *job)
{
    return (struct map){.heap = heap, .root = &job->map, .n_writers = job->n_parts};
}

/* Where a part's worker stands. */
static inline uint64_t part_position(const struct part *part)
{
    uint64_t commits = atomic_load_explicit(&part->commits, memory_order_acquire);
    return atomic_load_explicit(&part->line[commits % 2].position, memory_order_relaxed);
}

#endif
