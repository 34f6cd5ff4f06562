/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sweep, theory.
 *
 * A walk over private copies of all owner maps; where a copy names an id with an action, the tag
 * itself is changed by compare-and-swap (id -> 0 or id -> heap): whoever else may write that tag at
 * that moment wins or loses, nothing is torn. Runs in a worker while all clients go on.
 *
 * What makes it safe to write into memory that others use:
 *   1. While it runs, control.sweep_seq is odd, and nothing that was a slab becomes anything else:
 *      a holder that wants to take an empty slab apart writes U_RELEASING, fences, looks at
 *      sweep_seq, and steps back if it is odd; the sweep makes it odd, fences, reads the entry, and
 *      leaves U_RELEASING alone. The daemon frees no orphan meanwhile.
 *   2. The tags of large blocks lie in the unit tables, never under user data.
 *   3. Geometry comes from a copy that census_walk() has checked against the segment's size. A
 *      hostile client can make the sweep change 16-bit words that equal a dead id: in its own
 *      tenant, where it can do so itself.
 *
 * The dead client's generation went to 0 before (loop), and a membarrier follows: who gives a block
 * to it sees that, or its tag is seen here, or it had looked before and stores after: then the next
 * sweep frees it, which looks for all ids at rest (reaper.c).
 */
#include "daemon/sweep.h"

#include <linux/membarrier.h>
#include <string.h>
#include <sys/syscall.h>

#include "daemon/links.h"
#include "daemon/log.h"
#include "shm/census.h"

#define GROUP_TAGS   4u /* of a slab, whose map is aligned, in one word */
#define GROUP_OF_ONE 0x0001000100010001ull
static_assert(GROUP_TAGS * sizeof(tag_t) == sizeof(uint64_t), "one compare-and-swap");

struct sweep_seg {
    int fd;
    uint32_t slot;
    char *base;
    uint64_t mapped_bytes;
    struct segment_shape shape;
};

struct sweep {
    struct job job;
    struct tenant *tenant;
    struct control *control;
    struct sweep_plan *plan;
    struct links links;
    void (*done)(struct tenant *tenant, const struct sweep_found *found);
    struct sweep_found found;
    uint64_t n_bad;
    uint32_t n_segs;
    const struct sweep_seg *seg; /* being walked */
    struct sweep_seg segs[];
};

static void barrier(void)
{
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) < 0)
        (void)syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static bool change(tag_t *tag, tag_t id, uint8_t action)
{
    return __atomic_compare_exchange_n(tag, &id, action == SWEEP_FREE ? TAG_FREE : TAG_HEAP, false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* Without memory for the list it is found when somebody needs memory (grant.c). */
static void note_large(struct sweep *s, uint32_t unit)
{
    struct sweep_found *f = &s->found;
    if (f->n == f->room) {
        uint32_t room = f->room == 0 ? 16 : 2 * f->room;
        uint64_t *offs = reallocarray(f->large_offs, room, sizeof(*offs));
        if (!offs)
            return;
        f->large_offs = offs;
        f->room = room;
    }
    f->large_offs[f->n++] = (uint64_t)s->seg->slot << SLOT_SHIFT | (uint64_t)unit << UNIT_SHIFT;
}

static bool read_slot(void *ctx, uint64_t off, uint64_t *ret_value)
{
    struct sweep *s = ctx;
    for (uint32_t i = 0; i < s->n_segs; i++) {
        const struct sweep_seg *seg = &s->segs[i];
        uint64_t start = (uint64_t)seg->slot << SLOT_SHIFT;
        if (off >= start && off - start < seg->shape.size_bytes)
            return pread(seg->fd, ret_value, sizeof(*ret_value), (off_t)(off - start)) ==
                   sizeof(*ret_value);
    }
    return false;
}

/* Without it no tag of the dead may be changed. */
static int read_links(struct sweep *s)
{
    int r = 0;
    for (uint32_t i = 0; i < s->plan->n_lives && r == 0; i++)
        r = links_add(&s->links, s->plan->lives[i].id, s->plan->lives[i].fd, read_slot, s);
    links_sort(&s->links);
    return r;
}

static uint64_t block_off(const struct sweep_seg *seg, const struct census_item *item, uint32_t idx)
{
    return ((uint64_t)seg->slot << SLOT_SHIFT) + ((uint64_t)item->unit << UNIT_SHIFT) +
           geo_table[item->geo].first + idx * item->block_bytes;
}

/* True if it is free now. */
static bool sweep_tag(struct sweep *s, const struct census_item *item, uint32_t i, tag_t *tag)
{
    tag_t id = item->tags[i];
    uint8_t action = s->plan->action[id];
    if (LIKELY(action == SWEEP_KEEP))
        return false;
    if (action == SWEEP_FREE && links_have(&s->links, id, block_off(s->seg, item, i)))
        action = SWEEP_PUBLISH;
    return change(tag, id, action) && action == SWEEP_FREE;
}

/* Four equal tags at once, as most are; a quarter of the compare-and-swaps, which are all of the
 * cost where the dead owned much. Their number; 0: each for itself. */
static uint32_t sweep_group(struct sweep *s, const struct census_item *item, uint32_t i, tag_t *tag,
                            bool *freed)
{
    uint64_t group;
    tag_t id = item->tags[i];
    if (i % GROUP_TAGS != 0 || i + GROUP_TAGS > item->n_tags || item->state == U_LARGE)
        return 0;
    memcpy(&group, &item->tags[i], sizeof(group));
    if (group != id * GROUP_OF_ONE)
        return 0;
    uint8_t action = s->plan->action[id];
    if (action == SWEEP_KEEP)
        return GROUP_TAGS;
    if (action != SWEEP_FREE || s->links.n > 0 ||
        !__atomic_compare_exchange_n((uint64_t *)(void *)tag, &group, 0, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED))
        return 0;
    *freed = true;
    return GROUP_TAGS;
}

static int sweep_item(void *ctx, const struct census_item *item)
{
    struct sweep *s = ctx;
    const struct sweep_seg *seg = s->seg;
    bool freed = false;
    if (item->state == U_RELEASING ||
        item->tags_off + item->n_tags * sizeof(tag_t) > seg->mapped_bytes)
        return 0;
    tag_t *tags = (tag_t *)(void *)(seg->base + item->tags_off);
    for (uint32_t i = 0, step; i < item->n_tags; i += step) {
        step = sweep_group(s, item, i, &tags[i], &freed);
        if (step == 0) {
            freed |= sweep_tag(s, item, i, &tags[i]);
            step = 1;
        }
    }
    /* One that was free already: perhaps who freed it has died before it could tell. */
    if (item->state == U_LARGE && (freed || item->tags[0] == TAG_FREE))
        note_large(s, item->unit);
    else if (freed) /* after the tags: the holder clears, fences, scans */
        __atomic_store_n(segment_hints(seg->base, &seg->shape) + item->unit, 1, __ATOMIC_RELEASE);
    return 0;
}

static void sweep_work(struct job *job)
{
    struct sweep *s = (struct sweep *)job;
    uint32_t *seq = &s->control->header.sweep_seq;
    uint32_t odd = __atomic_load_n(seq, __ATOMIC_RELAXED) | 1;
    __atomic_store_n(seq, odd, __ATOMIC_SEQ_CST); /* pairs with a holder that releases a slab */
    barrier();
    s->found.error = read_links(s);
    for (uint32_t i = 0; i < s->n_segs && s->found.error == 0; i++) {
        uint64_t n_bad = 0;
        s->seg = &s->segs[i];
        s->found.error = census_walk(s->seg->fd, &s->seg->shape, sweep_item, s, &n_bad);
        s->n_bad += n_bad;
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(seq, odd + 1, __ATOMIC_SEQ_CST);
}

static void sweep_done(struct core *core, struct job *job)
{
    struct sweep *s = (struct sweep *)job;
    struct tenant *t = s->tenant;
    (void)core;
    if (s->found.error < 0)
        log_line(LOG_ERROR, "tenant %s: a sweep could not read a segment: %s", t->name,
                 strerror(-s->found.error));
    t->n_jobs--;
    s->done(t, &s->found);
    free(s->found.large_offs);
    links_deinit(&s->links);
    free(s->plan);
    free(s);
}

int sweep_start(struct tenant *t, struct sweep_plan *plan,
                void (*done)(struct tenant *tenant, const struct sweep_found *found))
{
    struct sweep *s = calloc(1, sizeof(*s) + t->n_slots * sizeof(s->segs[0]));
    if (!s)
        return -ENOMEM;
    s->job = (struct job){sweep_work, sweep_done};
    s->tenant = t;
    s->control = t->control;
    s->plan = plan;
    s->done = done;
    for (uint32_t slot = 0; slot < t->n_slots; slot++)
        if (t->segs[slot] && t->segs[slot]->is_known) /* the others may go meanwhile (yield.c) */
            s->segs[s->n_segs++] =
                (struct sweep_seg){t->segs[slot]->fd, slot, t->segs[slot]->base,
                                   t->segs[slot]->mapped_bytes, t->segs[slot]->shape};
    t->n_jobs++;
    core_submit(t->core, &s->job);
    return 0;
}
