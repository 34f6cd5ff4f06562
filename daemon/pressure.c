/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pressure, theory. Three limits say that a tenant has too much, the gravest first:
 *
 *   MAX     a wall that was moved below what it has, or its group has;
 *   SHARE   others want memory, and it uses more than its share (share.c);
 *   HIGH    it, or its group, has more than its high.
 *
 * The level and the bytes that its clients should give stand in the control page, always as of the
 * last look: the bytes less those of segments that are free as a whole, which are the daemon's
 * business. Of what a group has too much, each below it has a part: as large as its part of what
 * the group has.
 *
 * SHARES are not pursued to the last byte: segments are given back as a whole, and would go to and
 * fro. While anybody wants and has less than its share, those who have a SHARE_SLACKth too much
 * give; all who have too much do only if that does not suffice for those who have so much too little,
 * and who would give a whole segment for next to nothing does not.
 *
 * WHO HEARS, AND WHEN: at once, when the level rises, or when there is a quarter more to give than
 * was said; else once in AGAIN_NS at most, as long as something happens there, and when it is over.
 * So a tenant that does what it is told hears once, and one that cannot is not kept awake; nor by a
 * level that comes and goes with each request of another's.
 *
 * DEAF is who was told, and has given nothing for DEAF_NS. What it uses is not counted on (share.c),
 * until it gives again, however long nobody wants anything of it meanwhile; so others wait for it no
 * longer than that, once.
 *
 * COST. A look at each open tenant, and at the groups above it.
 */
#include "daemon/pressure.h"

#include "daemon/event.h"
#include "daemon/retire.h"
#include "daemon/room.h"
#include "daemon/share.h"
#include "daemon/yield.h"

#define AGAIN_NS 1000000000ull
#define DEAF_NS  200000000ull /* what a loop takes to come round, several times over */

#define PIECE_SLACK 64u /* of a segment: 1.6 % */

/* Of those above their shares: none, who is deaf, who is far above, or all. */
enum givers { GIVERS_NONE, GIVERS_DEAF, GIVERS_LARGE, GIVERS_ALL };

struct excess {
    enum pressure_level level;
    uint64_t limit_bytes; /* of segments, above its own limits */
    uint64_t over_bytes;  /* above what the level is of, but for segments that are free already */
};

/* The tenant's part of what it and the groups above it have beyond a limit. */
static uint64_t part_above(const struct budget *budget, bool is_max)
{
    uint64_t part_bytes = 0;
    for (const struct budget *b = budget; b; b = b->parent) {
        uint64_t limit_bytes = is_max ? b->limits.max_bytes : b->limits.high_bytes;
        if (b->total_bytes <= limit_bytes)
            continue;
        double part = (double)budget->charged_bytes / (double)b->total_bytes;
        part_bytes =
            MAX(part_bytes, (uint64_t)(part * (double)(b->total_bytes - limit_bytes) + 0.5));
    }
    return part_bytes;
}

static bool is_far_above(const struct share *s)
{
    return s->use_bytes > s->fair_bytes + s->fair_bytes / SHARE_SLACK;
}

static enum givers find_givers(const struct core *core, uint64_t *ret_missing_bytes)
{
    uint64_t missing_bytes = 0, much_missing_bytes = 0, far_above_bytes = 0;
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        const struct share *s = &core->tenants[i]->budget.share;
        uint64_t less_bytes = s->fair_bytes - MIN(s->fair_bytes, s->use_bytes);
        if (s->want_bytes > 0)
            missing_bytes += less_bytes;
        if (s->want_bytes > 0 && less_bytes > s->fair_bytes / SHARE_SLACK)
            much_missing_bytes += less_bytes;
        if (is_far_above(s))
            far_above_bytes += s->use_bytes - s->fair_bytes;
    }
    *ret_missing_bytes = missing_bytes;
    if (missing_bytes == 0)
        return GIVERS_DEAF; /* what they have is not counted on: nobody misses it */
    return far_above_bytes >= much_missing_bytes ? GIVERS_LARGE : GIVERS_ALL;
}

static bool is_giver(const struct share *s, enum givers givers)
{
    if (s->stuck_bytes > 0)
        return givers != GIVERS_NONE && s->use_bytes > s->due_bytes;
    return givers == GIVERS_ALL ? s->use_bytes > s->fair_bytes
                                : givers == GIVERS_LARGE && is_far_above(s);
}

/* What it has more is nothing beside the smallest segment that it would have to give for it. */
static bool is_in_one_piece(const struct tenant *t)
{
    const struct share *s = &t->budget.share;
    uint64_t smallest_bytes = UINT64_MAX;
    for (uint32_t slot = 0; slot < t->n_slots; slot++)
        if (t->segs[slot] && !retire_could(t->segs[slot]))
            smallest_bytes = MIN(smallest_bytes, t->segs[slot]->shape.size_bytes);
    return s->stuck_bytes == 0 && smallest_bytes / PIECE_SLACK > s->use_bytes - s->fair_bytes;
}

/* On the footing of what is above a limit: with the segments that are free. */
static uint64_t above_share(const struct tenant *t, enum givers givers, uint64_t free_bytes)
{
    const struct share *s = &t->budget.share;
    bool gives = is_giver(s, givers) && (is_far_above(s) || !is_in_one_piece(t));
    return gives ? s->use_bytes - MIN(s->fair_bytes, s->due_bytes) + free_bytes : 0;
}

static struct excess find_excess(const struct tenant *t, enum givers givers)
{
    uint64_t free_bytes = yield_bytes(t, retire_could);
    uint64_t max_bytes = part_above(&t->budget, true), high_bytes = part_above(&t->budget, false);
    uint64_t share_bytes = above_share(t, givers, free_bytes);
    struct excess e = {PRESSURE_NONE, max_bytes > 0 ? max_bytes : high_bytes, 0};
    if (max_bytes > 0)
        e.level = PRESSURE_MAX;
    else if (share_bytes > 0)
        e.level = PRESSURE_SHARE;
    else if (high_bytes > 0)
        e.level = PRESSURE_HIGH;
    e.over_bytes = e.level == PRESSURE_HIGH ? high_bytes : MAX(max_bytes, share_bytes);
    e.over_bytes -= MIN(e.over_bytes, free_bytes);
    return e;
}

static bool is_news(const struct tenant *t, const struct excess *e)
{
    const struct pressure *p = &t->pressure;
    bool is_again = t->core->now_ns >= p->heard_ns + AGAIN_NS;
    if (e->level == PRESSURE_NONE)
        return p->heard_level != PRESSURE_NONE && is_again;
    return e->level > p->heard_level || e->over_bytes > p->heard_bytes + p->heard_bytes / 4 ||
           is_again;
}

static void note_giving(struct tenant *t, const struct excess *e)
{
    struct pressure *p = &t->pressure;
    uint64_t granted_bytes = t->control->header.granted_bytes, now_ns = t->core->now_ns;
    bool is_told = p->level >= PRESSURE_SHARE && e->level >= PRESSURE_SHARE;
    bool gives = granted_bytes < p->least_bytes;
    if (gives)
        p->is_deaf = false;
    if (gives || (!is_told && !p->is_deaf))
        p->gave_ns = now_ns;
    if (gives || !is_told)
        p->least_bytes = granted_bytes;
    p->is_deaf |= now_ns >= p->gave_ns + DEAF_NS;
}

static void tell(struct tenant *t, const struct excess *e)
{
    struct control_header *h = &t->control->header;
    note_giving(t, e);
    t->pressure.level = e->level;
    t->pressure.limit_bytes = e->limit_bytes;
    __atomic_store_n(&h->over_bytes, e->over_bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&h->pressure, e->level, __ATOMIC_RELEASE);
    t->pressure.is_news = is_news(t, e);
    if (!t->pressure.is_news && e->level != t->pressure.heard_level)
        room_look_at(t->core, t->pressure.heard_ns + AGAIN_NS);
    if (!t->pressure.is_news)
        return;
    t->pressure.heard_level = e->level;
    t->pressure.heard_bytes = e->over_bytes;
    t->pressure.heard_ns = t->core->now_ns;
    event_ring(t);
}

uint64_t pressure_tell(struct core *core, bool is_scarce)
{
    uint64_t missing_bytes = 0;
    enum givers givers = is_scarce ? find_givers(core, &missing_bytes) : GIVERS_NONE;
    for (uint32_t i = 0; i < core->n_tenants; i++) {
        struct tenant *t = core->tenants[i];
        if (!t->is_open)
            continue;
        struct excess e = find_excess(t, givers);
        tell(t, &e);
    }
    return missing_bytes;
}
