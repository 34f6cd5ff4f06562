/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decay, theory. Punching at once made large blocks eight times slower (the pages come straight
 * back); never punching keeps a peak for ever. So a unit that was freed waits for the second tick.
 * While its pages are punched out (1 ms for 8 MiB, in a worker) the unit is out of the allocator:
 * nobody can be granted what is about to vanish. Who needs memory just then waits for the job
 * (dispatch.c). What is prepared for the next grants goes the same way if nobody came for it; what
 * the tenant is to have ready stays: those units first, and never fewer.
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
    for (uint32_t i = 0; i < j->n_runs; i++)
        seg_give_clean(j->runs[i].seg, j->runs[i].unit, j->runs[i].n);
    if (j->error < 0)
        log_line(LOG_WARNING, "tenant %s: cannot give pages back: %s", t->name,
                 strerror(-j->error));
    t->n_jobs--;
    t->is_punching = false;
    t->n_changes++;
    free(j);
    tenant_changed(t);
    memory_wake_all(core);
    prepare_pump(t);
}

/* Free units with pages; of segments over several slots, which are never ready, apart. */
static uint64_t count_dirty(const struct tenant *t, bool of_one_slot)
{
    uint64_t n = 0;
    for (uint32_t slot = 0; slot < t->n_slots; slot++)
        if (t->segs[slot] && (t->segs[slot]->buddy != NULL) == of_one_slot)
            n += t->segs[slot]->n_dirty;
    return n;
}

static void collect(struct tenant *t, struct punch_job *j)
{
    uint64_t n_dirty = count_dirty(t, true), n_left = n_dirty - MIN(n_dirty, t->ready_units);
    for (uint32_t slot = 0; slot < t->n_slots; slot++) {
        struct seg *seg = t->segs[slot];
        uint32_t unit, n;
        while (seg && j->n_runs < RUNS_MAX && j->n_units < JOB_UNITS_MAX &&
               seg_take_stale(seg, (uint32_t)MIN(n_left, RUN_UNITS_MAX), &unit, &n)) {
            j->runs[j->n_runs++] = (struct punch_run){seg, seg->fd, unit, n};
            j->n_units += n;
            n_left -= seg->buddy ? n : 0;
        }
    }
}

void decay_tick(struct tenant *t)
{
    if (t->is_punching || count_dirty(t, true) + count_dirty(t, false) == 0)
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
