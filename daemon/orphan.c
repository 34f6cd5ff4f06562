/* SPDX-License-Identifier: Apache-2.0 */
/* orphan.c - see orphan.h. */
#include "daemon/orphan.h"

#include "daemon/seg.h"
#include "daemon/tenant.h"

/* How many full slabs a request looks at before it takes fresh units: each is a pread of at most 64
 * KiB. */
#define GRANT_TRIES 8u

void orphans_deinit(struct orphans *orphans)
{
    for (size_t i = 0; i < ARRAY_LEN(orphans->list); i++)
        free(orphans->list[i].at);
    *orphans = (struct orphans){0};
}

static struct orphan_list *list_of(struct tenant *tenant, unsigned geo)
{
    return &tenant->orphans.list[geo == 0 ? ORPHANS_LARGE : geo_infos[geo].class_idx];
}

/* A seg's word for the orphan that begins at a unit: its list, and where there. */
#define PLACE_SHIFT 26u
static_assert(HEAP_UNITS <= 1u << PLACE_SHIFT && ORPHANS_LARGE < 1u << (32 - PLACE_SHIFT),
              "one word");

static void note_place(struct tenant *tenant, const struct orphan_list *list, uint32_t i)
{
    uint32_t list_idx = (uint32_t)(list - tenant->orphans.list);
    tenant->segs[list->at[i].slot]->orphans[list->at[i].unit] = list_idx << PLACE_SHIFT | i;
}

static void remove_at(struct tenant *tenant, struct orphan_list *list, uint32_t i)
{
    acre_assert(i < list->n && tenant->orphans.n > 0);
    seg_set_head(tenant->segs[list->at[i].slot], list->at[i].unit, false);
    list->at[i] = list->at[--list->n];
    if (i < list->n)
        note_place(tenant, list, i);
    tenant->orphans.n--;
}

/* false: no memory for the list. The run stays the daemon's, and is found again by a restart
 * only. */
static bool add(struct tenant *tenant, const struct orphan *o)
{
    struct orphan_list *list = list_of(tenant, o->geo);
    struct seg *seg = tenant->segs[o->slot];
    if (!seg->orphans)
        seg->orphans = calloc(seg->shape.n_table, sizeof(*seg->orphans));
    if (!seg->orphans)
        return false;
    if (list->n == list->room) {
        uint32_t room = list->room == 0 ? 16 : 2 * list->room;
        struct orphan *at = reallocarray(list->at, room, sizeof(*at));
        if (!at)
            return false;
        list->at = at;
        list->room = room;
    }
    list->at[list->n++] = *o;
    note_place(tenant, list, list->n - 1);
    seg_set_head(seg, o->unit, true);
    tenant->orphans.n++;
    return true;
}

/* The list with the orphan that begins there, or NULL. */
static struct orphan_list *find(struct tenant *tenant, const struct seg *seg, uint32_t unit,
                                uint32_t *ret_i)
{
    uint32_t place = seg->orphans ? seg->orphans[unit] : 0;
    struct orphan_list *list = &tenant->orphans.list[place >> PLACE_SHIFT];
    *ret_i = place & ((1u << PLACE_SHIFT) - 1);
    return *ret_i < list->n && list->at[*ret_i].slot == seg->slot && list->at[*ret_i].unit == unit
               ? list
               : NULL;
}

static void mark(struct tenant *tenant, struct seg *seg, uint32_t unit, uint32_t n_units,
                 unsigned geo)
{
    uint64_t soft = seg_entry(seg, unit) & LARGE_SOFT;
    if (geo != 0) {
        seg_store_slab(seg, unit, geo, U_PARKED, HOLDER_NOBODY);
        return;
    }
    seg_store_large(seg, unit, n_units, soft, 0);
    tenant->soft.is_used |= soft != 0;
}

void orphan_restore(struct tenant *tenant, struct seg *seg, uint32_t unit, uint32_t n_units,
                    unsigned geo)
{
    struct orphan o = {.slot = seg->slot, .unit = unit, .n_units = n_units, .geo = geo};
    mark(tenant, seg, unit, n_units, geo);
    seg_set_hint(seg, unit); /* who took it may have died before it looked */
    (void)add(tenant, &o);
}

void orphan_adopt(struct tenant *tenant, struct seg *seg, uint32_t unit, uint32_t n_units,
                  unsigned geo, tag_t from)
{
    struct orphan o = {.slot = seg->slot, .unit = unit, .n_units = n_units, .geo = geo};
    mark(tenant, seg, unit, n_units, geo);
    tenant_assign(tenant, seg, unit, n_units, from, OWNER_ORPHAN);
    (void)add(tenant, &o);
}

static bool slab_has_free(struct tenant *tenant, const struct seg *seg, const struct orphan *o)
{
    uint32_t n_live;
    return seg_read_tags(seg, o->unit, o->geo, tenant->core->tags, &n_live) == 0 &&
           n_live < geo_infos[o->geo].n_blocks;
}

bool orphan_grant(struct tenant *tenant, struct client *client, unsigned class_idx,
                  struct orphan *ret_orphan)
{
    struct orphan_list *list = &tenant->orphans.list[class_idx];
    for (uint32_t tries = MIN(list->n, GRANT_TRIES); tries > 0; tries--) {
        if (list->next >= list->n)
            list->next = 0;
        struct orphan o = list->at[list->next];
        struct seg *seg = tenant->segs[o.slot];
        if (!slab_has_free(tenant, seg, &o)) {
            list->next++;
            continue;
        }
        remove_at(tenant, list, list->next);
        tenant_assign(tenant, seg, o.unit, o.n_units, OWNER_ORPHAN, client->id);
        seg_store_slab(seg, o.unit, o.geo, U_PARKED, holder_token(client->id, 0));
        *ret_orphan = o;
        return true;
    }
    return false;
}

static bool is_empty(struct tenant *tenant, struct seg *seg, const struct orphan *o, bool all,
                     uint32_t *n_read)
{
    uint32_t n_live;
    if (o->geo == 0) /* soft ones may be pinned: soft.c */
        return seg_large_tag(seg, o->unit, 0) == TAG_FREE &&
               !unit_entry_is_soft(seg_entry(seg, o->unit));
    if (!seg_take_hint(seg, o->unit) && !all)
        return false;
    (*n_read)++;
    return seg_read_tags(seg, o->unit, o->geo, tenant->core->tags, &n_live) == 0 && n_live == 0;
}

/* One list from place->i on. */
static void collect_list(struct tenant *tenant, struct orphan_list *list,
                         struct orphan_place *place, bool all, uint32_t max, uint32_t *n_read)
{
    while (place->i < list->n && *n_read < max) {
        struct orphan o = list->at[place->i];
        if (!is_empty(tenant, tenant->segs[o.slot], &o, all, n_read)) {
            place->i++;
            continue;
        }
        remove_at(tenant, list, place->i);
        tenant_take_back(tenant, tenant->segs[o.slot], o.unit, o.n_units, OWNER_ORPHAN);
    }
}

uint32_t orphans_collect(struct tenant *tenant, struct orphan_place *place, bool all, uint32_t max)
{
    uint32_t n_read = 0;
    acre_assert(!tenant->is_sweeping);
    for (; place->list < ARRAY_LEN(tenant->orphans.list); place->list++, place->i = 0) {
        collect_list(tenant, &tenant->orphans.list[place->list], place, all, max, &n_read);
        if (n_read >= max)
            break;
    }
    return n_read;
}

bool orphan_is_run(const struct tenant *tenant, const struct seg *seg, uint32_t unit, uint32_t n)
{
    bool is_last = !seg->buddy || unit + n == seg->shape.n_units ||
                   tenant_owner(tenant, seg, unit + n) != OWNER_ORPHAN ||
                   seg_is_headed(seg, unit + n, 1);
    return is_last && seg_is_headed(seg, unit, n);
}

bool orphan_is_large(struct tenant *tenant, const struct seg *seg, uint32_t unit, uint32_t n)
{
    uint32_t i;
    const struct orphan_list *list = find(tenant, seg, unit, &i);
    return list == &tenant->orphans.list[ORPHANS_LARGE] && list->at[i].n_units == n;
}

void orphan_forget(struct tenant *tenant, const struct seg *seg, uint32_t unit)
{
    uint32_t i;
    struct orphan_list *list = find(tenant, seg, unit, &i);
    if (list)
        remove_at(tenant, list, i);
}
