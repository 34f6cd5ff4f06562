/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HOW A COUNT HAPPENS ONCE, though the worker may be killed between any two instructions. A part
 * has two lines; the number of commits says which one holds. For each word the worker
 *
 *   1. finds the word's entry, or makes it (map.c)
 *   2. writes the other line: the position behind the word, its own cell of the entry, the cell's
 *      new value
 *   3. commits: one store makes that line the one that holds
 *   4. stores the value into the cell
 *
 *   killed after             the successor finds              and does
 *   FOUND, HALF_LINE, LINE   the old line                     counts this word
 *   COMMITTED                the new line, the cell behind    stores the value
 *   COUNTED                  the new line, the cell right     stores the same value again
 *
 * A line says "the value is now 7", not "one more": a successor begins by storing it, whether it
 * was stored or not, and if it is killed itself the next one does the same. Only the holder of a
 * part writes its lines and its cells: no lock, no atomic read-modify-write. All are release
 * stores, so they happen in program order, and a kill cuts that order at one point.
 */
#include "worker.h"

#include <assert.h>
#include <errno.h>
#include <unistd.h>

#include "say.h"

struct worker {
    struct acre_heap *heap;
    struct job *job;
    struct part *part;
    struct map map;
    struct kill_plan plan;
};

static uint64_t load(const _Atomic uint64_t *at)
{
    return atomic_load_explicit(at, memory_order_relaxed);
}

static void store(_Atomic uint64_t *at, uint64_t value)
{
    atomic_store_explicit(at, value, memory_order_release);
}

static void commit(struct worker *w, uint64_t position, acre_off cell, uint64_t value)
{
    uint64_t commits = load(&w->part->commits) + 1;
    struct line *line = &w->part->line[commits % 2];
    store(&line->position, position);
    store(&line->cell, cell);
    kill_point(&w->plan, POINT_HALF_LINE);
    store(&line->value, value);
    kill_point(&w->plan, POINT_LINE);
    store(&w->part->commits, commits);
    kill_point(&w->plan, POINT_COMMITTED);
}

static void count(struct worker *w, struct map_entry *entry, uint64_t position)
{
    _Atomic uint64_t *cell = &entry->cells[w->map.writer - 1];
    uint64_t value = load(cell) + 1;
    commit(w, position, acre_offset(w->heap, cell), value);
    store(cell, value);
    kill_point(&w->plan, POINT_COUNTED);
}

/* What the predecessor has left, if there was one. */
static int take_over(struct worker *w)
{
    const struct line *line = &w->part->line[load(&w->part->commits) % 2];
    acre_off off = load(&line->cell);
    if (off) {
        _Atomic uint64_t *cell = acre_pointer(w->heap, off);
        if (!cell)
            return -errno;
        store(cell, load(&line->value));
    }
    kill_point(&w->plan, POINT_REPEATED);
    return map_recover(&w->map);
}

static void count_from(struct worker *w, uint64_t position)
{
    if (w->plan.countdown && position >= w->plan.from)
        w->plan.counting = true;
}

static int count_part(struct worker *w, const struct text *text)
{
    struct text_cursor cursor = text_cursor(text, part_position(w->part), w->part->end);
    struct word word;
    while (text_next(&cursor, &word)) {
        count_from(w, cursor.position);
        struct map_entry *entry;
        int r = map_get(&w->map, &word, &entry);
        if (r)
            return r;
        kill_point(&w->plan, POINT_FOUND);
        count(w, entry, cursor.position);
    }
    commit(w, w->part->end, 0, 0);
    return 0;
}

/* One sentence from the first worker that fails; the parent stops the others. */
static int fail(struct job *job, int r)
{
    if (job && atomic_exchange(&job->failed, true))
        return exit_code_of(r);
    return complain_acre(r, r == -ENOMEM ? "the heap is full" : "cannot go on");
}

int worker_run(struct acre_heap *heap, acre_off job_off, uint32_t part_idx, const struct text *text,
               struct kill_plan plan)
{
    struct job *job = acre_pointer(heap, job_off);
    if (!job)
        return fail(NULL, -errno);
    assert(job->magic == JOB_MAGIC && part_idx < job->n_parts);
    struct part *part = &job->parts[part_idx];
    struct worker w = {.heap = heap, .job = job, .part = part, .plan = plan};
    w.plan.ret_point = &part->killed_at;
    w.map = (struct map){.heap = heap,
                         .root = &job->map,
                         .n_writers = job->n_parts,
                         .writer = part_idx + 1,
                         .keeper = job->keeper,
                         .pending = &part->pending,
                         .kill = &w.plan};
    count_from(&w, part_position(part));
    int r = take_over(&w);
    if (!r)
        r = count_part(&w, text);
    if (r)
        return fail(job, r);
    if (plan.must)
        kill_here(&w.plan, POINT_END);
    while (plan.linger)
        pause();
    return EXIT_WELL;
}
