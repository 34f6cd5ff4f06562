/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decay, theory. Punching at once made large blocks eight times slower (the pages come straight
 * back); never punching keeps a peak for ever. So a unit that was freed waits for the second tick.
 * While its pages are punched out (1 ms for 8 MiB, in a worker) the unit is out of the allocator:
 * nobody can be granted what is about to vanish. Who needs memory just then waits for the job
 * (dispatch.c). What is prepared for the next grants goes the same way if nobody came for it; what
 * the tenant is to have ready stays.
 */
#include "daemon/decay.h"

#include <fcntl.h>
#include <string.h>

#include "daemon/log.h"
#include "daemon/memory.h"
#include "daemon/prepare.h"

#define RUNS_MAX      64u
#define RUN_UNITS_MAX ((uint32_t)(MIB(64) / UNIT_BYTES))
#define JOB_UNITS_MAX ((uint32_t)(MIB(256) / UNIT_BYTES)) /* 30 ms */

struct punch_run {
    struct seg *seg;
    int fd;
    uint32_t unit, n;
};

struct punch_job {
    struct job job;
    struct tenant *tenant;
    int error;
    uint32_t n_runs, n_units;
    struct punch_run runs[RUNS_MAX];
};

static void punch_work(struct job *job)
{
    struct punch_job *j = (struct punch_job *)job;
    for (uint32_t i = 0; i < j->n_runs; i++) {
        const struct punch_run *r = &j->runs[i];
        if (fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)r->unit << UNIT_SHIFT, (off_t)r->n << UNIT_SHIFT) < 0)
            j->error = -errno;
    }
}

static void punch_done(struct core *core, struct job *job)
{
    struct punch_job *j = (struct punch_job *)job;
    struct tenant *t = j->tenant;
    (void)core;
    for (uint32_t i = 0; i < j->n_runs; i++)
        seg_give_clean(j->runs[i].seg, j->runs[i].unit, j->runs[i].n);
    if (j->error < 0)
        log_line(LOG_WARNING, "tenant %s: cannot give pages back: %s", t->name,
                 strerror(-j->error));
    t->n_jobs--;
    t->is_punching = false;
    t->n_changes++;
    free(j);
    memory_wake(t);
}

static void collect(struct tenant *t, struct punch_job *j)
{
    for (uint32_t slot = 0; slot < t->n_slots; slot++) {
        struct seg *seg = t->segs[slot];
        uint32_t unit, n;
        while (seg && j->n_runs < RUNS_MAX && j->n_units < JOB_UNITS_MAX &&
               seg_take_stale(seg, RUN_UNITS_MAX, &unit, &n)) {
            j->runs[j->n_runs++] = (struct punch_run){seg, seg->fd, unit, n};
            j->n_units += n;
        }
    }
}

void decay_tick(struct tenant *t)
{
    if (t->is_punching || !decay_is_due(t))
        return;
    struct punch_job *j = calloc(1, sizeof(*j));
    if (!j)
        return;
    j->job = (struct job){punch_work, punch_done};
    j->tenant = t;
    prepare_spare(t);
    collect(t, j);
    for (uint32_t slot = 0; slot < t->n_slots; slot++)
        if (t->segs[slot])
            seg_mark_stale(t->segs[slot]);
    if (j->n_runs == 0) {
        free(j);
        return;
    }
    t->is_punching = true;
    t->n_changes++;
    t->n_jobs++;
    core_submit(t->core, &j->job);
}

bool decay_is_due(const struct tenant *t)
{
    uint64_t n_dirty = 0;
    for (uint32_t slot = 0; t->is_open && slot < t->n_slots; slot++)
        n_dirty += t->segs[slot] ? t->segs[slot]->n_dirty : 0;
    return n_dirty > t->ready_units;
}
