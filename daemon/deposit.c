/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deposits, theory.
 *
 * ORDER. The keeper has acknowledged the descriptor, then the books know of it, then a client. A
 * segment is granted from only when the first two are done; its pages may be prepared before. A
 * heap's own two descriptors are kept together with the life page of its first client (reaper.c).
 *
 * WAITING is a worker's: a keeper that does not answer (it is stopped, or a service manager is busy
 * with itself for seconds) delays who needs a new segment, and nobody else. Who needs one while
 * another is being kept waits for that first: it may do.
 *
 * FAILURE (no answer, or no descriptor left there): all who wait are told, the segment stays as it
 * is, and is tried again for who asks next.
 *
 * KILLS. Kept and not in the books: nobody knows it, the next worker closes it (restore.c).
 */
#include "daemon/deposit.h"

#include "daemon/kept.h"
#include "daemon/memory.h"
#include "daemon/prepare.h"
#include "daemon/segments.h"

struct deposit_job {
    struct job job;
    struct tenant *tenant;
    struct seg *seg;
    struct kept kept;
    int fd, error;
};

int deposit_heap(const struct tenant *t)
{
    struct kept control = {KEPT_CONTROL, t->heap_no, 0}, books = {KEPT_BOOKS, t->heap_no, 0};
    int r = kept_put(t->core, control, t->control_fd);
    if (r < 0)
        return r;
    r = kept_put(t->core, books, t->books_fd); /* last: a control segment alone is nobody's yet */
    if (r < 0)
        kept_drop(t->core, control); /* the next try would keep it twice */
    return r;
}

static void deposit_work(struct job *job)
{
    struct deposit_job *j = (struct deposit_job *)job;
    j->error = kept_put(j->tenant->core, j->kept, j->fd);
}

static void deposit_done(struct core *core, struct job *job)
{
    struct deposit_job *j = (struct deposit_job *)job;
    struct tenant *t = j->tenant;
    t->n_jobs--;
    t->n_depositing--;
    if (j->error == 0)
        segments_enter(t, j->seg);
    else
        t->deposit_error = j->error;
    free(j);
    memory_wake(t);        /* for one of whom it was made, perhaps */
    memory_wake_all(core); /* if not, it may yield */
    prepare_pump(t);
}

void deposit_seg(struct tenant *t, struct seg *seg)
{
    struct deposit_job *j = calloc(1, sizeof(*j));
    if (!j) {
        t->deposit_error = -ENOMEM;
        return;
    }
    *j = (struct deposit_job){.job = {deposit_work, deposit_done},
                              .tenant = t,
                              .seg = seg,
                              .kept = {KEPT_SEGMENT, t->heap_no, seg->slot},
                              .fd = seg->fd};
    t->n_jobs++;
    t->n_depositing++;
    core_submit(t->core, &j->job);
}

void deposit_again(struct tenant *t)
{
    if (t->n_depositing > 0)
        return;
    t->deposit_error = 0;
    for (uint32_t slot = 0; slot < t->n_slots; slot++)
        if (t->segs[slot] && !t->segs[slot]->is_kept)
            deposit_seg(t, t->segs[slot]);
}
