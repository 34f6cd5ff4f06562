/* SPDX-License-Identifier: Apache-2.0 */
/*
 * records.c - see records.h. Each reply is one picture of one turn of the loop; tenant->n_changes
 * in it says whether two replies belong together. A request costs at most SCAN_UNITS units (0.1 ms)
 * or a walk over the table of ids (as long), whatever the heap is like: who asks goes on where a
 * reply ends.
 */
#include "daemon/records.h"

#include "daemon/session.h"

#define SCAN_UNITS 16384u

static uint32_t out_or_nobody(const struct tenant *t, tag_t owner)
{
    return owner == OWNER_NONE && t->is_punching ? EXTENT_OUT : owner;
}

static uint32_t what_at(const struct tenant *t, const struct seg *seg, uint32_t unit)
{
    tag_t owner = tenant_owner(t, seg, unit);
    return buddy_is_free(seg->buddy, unit) ? owner | EXTENT_FREE : out_or_nobody(t, owner);
}

/* The run that begins at unit, which may go on at end. */
static struct msg_extent run_at(const struct tenant *t, const struct seg *seg, uint32_t unit,
                                uint32_t end)
{
    struct msg_extent run = {1, what_at(t, seg, unit)};
    while (unit + run.n_units < end && what_at(t, seg, unit + run.n_units) == run.what)
        run.n_units++;
    return run;
}

/* Over several slots: one block, and what it leaves of the segment. */
static struct msg_extent span_run_at(const struct tenant *t, const struct seg *seg, uint32_t unit)
{
    uint32_t end = seg->shape.n_meta + seg->span_units;
    if (unit < end)
        return (struct msg_extent){end - unit, out_or_nobody(t, tenant_owner(t, seg, unit))};
    return (struct msg_extent){seg->shape.n_units - unit, EXTENT_FREE};
}

static uint32_t n_free_of(const struct seg *seg)
{
    return seg->buddy ? buddy_n_free(seg->buddy) : seg_usable(seg) - seg->span_units;
}

void records_extents(struct core *core, struct session *s, const struct tenant *t,
                     const struct msg_request *req)
{
    struct msg_reply reply;
    const struct seg *seg = tenant_seg(t, req->extents.slot);
    if (!seg || seg->slot != req->extents.slot) {
        session_fail(core, s, -ENOENT, "no segment begins in slot %u", req->extents.slot);
        return;
    }
    uint32_t unit = MAX(req->extents.unit, seg->shape.n_meta), n_units = seg->shape.n_units;
    reply_of(&reply, MSG_EXTENTS);
    reply.extents.changes = t->n_changes;
    reply.extents.unit = unit;
    reply.extents.n_free = n_free_of(seg);
    reply.extents.n = 0;
    uint32_t end = unit < n_units ? unit + MIN(n_units - unit, SCAN_UNITS) : unit;
    while (unit < end && reply.extents.n < MSG_EXTENTS_MAX) {
        struct msg_extent run = seg->buddy ? run_at(t, seg, unit, end) : span_run_at(t, seg, unit);
        reply.extents.runs[reply.extents.n++] = run;
        unit += run.n_units;
    }
    session_reply(core, s, &reply, -1);
}

void records_holders(struct core *core, struct session *s, const struct tenant *t,
                     const struct msg_request *req)
{
    struct msg_reply reply;
    uint32_t id = req->holders.after + 1u, n = 0;
    reply_of(&reply, MSG_HOLDERS);
    for (; id < t->clients.next_fresh && n < MSG_HOLDERS_MAX; id++) {
        const struct client *c = t->clients.by_id[id];
        if (c)
            reply.holders.holders[n++] =
                (struct msg_holder){c->id, c->state == CLIENT_LIVES ? c->gen : 0, c->n_units};
    }
    reply.holders.n = n;
    reply.holders.more = id < t->clients.next_fresh;
    reply.holders.changes = t->n_changes;
    reply.holders.granted_units = t->granted_units;
    reply.holders.charged_bytes = t->budget.charged_bytes;
    session_reply(core, s, &reply, -1);
}
