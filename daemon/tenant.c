/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tenant and its heap, theory.
 *
 * MODEL. A heap is a row of slots, which segments take and leave (segments.c). Every unit outside of
 * the tables is in exactly one state: free (in the segment's buddy allocator, or out of it while its
 * pages are punched), a client's, or an orphan. The books say which.
 *
 * INVARIANTS
 *   1. owner != 0 in the books  <=>  the unit counts in granted_units, and in its client's holdings
 *      or as an orphan.
 *   2. budget.charged = sum of segment sizes = control's sealed_bytes.
 *   3. A client's units in a segment lie in [lo, hi) of its holding there: so a death walks what it
 *      held, not the heap.
 */
#include "daemon/tenant.h"

#include <string.h>
#include <sys/mman.h>

#include "daemon/deposit.h"
#include "daemon/event.h"
#include "daemon/kept.h"
#include "daemon/log.h"
#include "daemon/machine.h"
#include "daemon/own.h"
#include "daemon/room.h"
#include "daemon/segments.h"
#include "daemon/zombie.h"

bool tenant_group_name(const char *name, char ret_group[TENANT_NAME_BYTES])
{
    const char *slash = strrchr(name, '/');
    if (slash)
        (void)snprintf(ret_group, TENANT_NAME_BYTES, "%.*s", (int)(slash - name), name);
    return slash != NULL;
}

/* The budget above. */
static struct budget *find_group(const struct core *core, const char *name)
{
    char group[TENANT_NAME_BYTES];
    struct tenant *t = tenant_group_name(name, group) ? core_find_tenant(core, group) : NULL;
    return t ? &t->budget : NULL;
}

int tenant_new(struct tenant **ret_tenant, struct core *core, const char *name,
               const struct tenant_wish *wish, struct access_list *access)
{
    struct tenant *t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    acre_assert(strlen(name) < sizeof(t->name));
    strcpy(t->name, name);
    t->core = core;
    t->owner_uid = NOBODY_UID;
    t->access.of[ACCESS_ATTACH] = *access;
    *access = (struct access_list){0};
    t->ready_units = wish->ready_bytes / UNIT_BYTES;
    t->pages_wanted = wish->pages;
    budget_init(&t->budget, &core->ledger, find_group(core, name));
    budget_set(&t->budget, &wish->limits);
    TAILQ_INIT(&t->rang);
    t->rang_due_ns = UINT64_MAX;
    TAILQ_INIT(&t->dying);
    TAILQ_INIT(&t->attaches);
    TAILQ_INIT(&t->waiters);
    ticket_init(&t->tickets);
    TAILQ_INIT(&t->watchers);
    TAILQ_INIT(&t->populates);
    t->control_fd = t->control_ro_fd = t->books_fd = -1;
    *ret_tenant = t;
    return 0;
}

void tenant_free(struct tenant *tenant)
{
    acre_assert(!tenant->is_open);
    budget_deinit(&tenant->budget);
    access_deinit(&tenant->access);
    free(tenant);
}

/* ---- the heap ---- */

static void release_heap(struct tenant *t)
{
    if (t->control)
        (void)munmap(t->control, sizeof(*t->control));
    if (t->books)
        books_unmap(t->books);
    t->control = NULL;
    t->books = NULL;
    close_fd(&t->control_fd);
    close_fd(&t->control_ro_fd);
    close_fd(&t->books_fd);
    client_table_deinit(&t->clients);
    orphans_deinit(&t->orphans);
    soft_deinit(&t->soft);
    t->n_slots = 0;
    t->is_open = false;
}

/* For all of the heap's life: its clients go by it. */
static void choose_pages(struct tenant *t)
{
    char setting[32];
    struct control_header *h = &t->control->header;
    bool possible = machine_has_shared_huge_pages(setting);
    t->pages = possible ? t->pages_wanted : PAGES_4K;
    h->pages = t->pages;
    h->pages_wanted = t->pages_wanted;
    h->pages_possible = possible ? PAGES_THP : PAGES_4K;
    if (t->pages != t->pages_wanted)
        log_line(LOG_WARNING,
                 "tenant %s gets 4k pages: huge ones need \"advise\" in " MACHINE_SHMEM_ENABLED
                 ", which is \"%s\"",
                 t->name, setting);
}

void tenant_tell_limits(struct tenant *t)
{
    if (!t->is_open)
        return;
    struct control_header *h = &t->control->header;
    bool is_new =
        h->high_bytes != t->budget.limits.high_bytes || h->max_bytes != t->budget.limits.max_bytes;
    h->min_bytes = t->budget.limits.min_bytes;
    h->high_bytes = t->budget.limits.high_bytes;
    h->max_bytes = t->budget.limits.max_bytes;
    h->weight = t->budget.limits.weight;
    h->capacity_bytes = t->core->ledger.capacity_bytes;
    h->ready_bytes = t->ready_units * UNIT_BYTES;
    if (is_new)
        event_ring(t);
}

/* Half a word is none: the weight says that there are others. */
static void keep_limits(struct tenant *t, const struct limits *limits)
{
    struct books_header *h = &t->books->header;
    __atomic_store_n(&h->set_weight, 0, __ATOMIC_RELEASE);
    if (!limits)
        return;
    h->set_min_bytes = limits->min_bytes;
    h->set_high_bytes = limits->high_bytes;
    h->set_max_bytes = limits->max_bytes;
    __atomic_store_n(&h->set_weight, limits->weight, __ATOMIC_RELEASE);
}

static void change_limits(struct tenant *t, const struct limits *limits)
{
    budget_set(&t->budget, limits);
    if (t->is_open || t->is_group)
        room_look_at(t->core, t->core->now_ns);
    tenant_tell_limits(t);
}

void tenant_set(struct tenant *t, const struct tenant_wish *wish)
{
    budget_move(&t->budget, find_group(t->core, t->name));
    t->ready_units = wish->ready_bytes / UNIT_BYTES;
    t->pages_wanted = wish->pages;
    t->has_set_limits = false;
    if (t->is_open)
        keep_limits(t, NULL);
    change_limits(t, &wish->limits);
}

void tenant_set_limits(struct tenant *t, const struct limits *limits)
{
    t->has_set_limits = true;
    if (t->is_open)
        keep_limits(t, limits);
    change_limits(t, limits);
}

/* Of an earlier daemon, whose configuration has been read again by this one. */
static void restore_limits(struct tenant *t)
{
    const struct books_header *h = &t->books->header;
    struct limits limits = {.min_bytes = h->set_min_bytes,
                            .high_bytes = h->set_high_bytes,
                            .max_bytes = h->set_max_bytes,
                            .weight = h->set_weight};
    t->has_set_limits = limits.weight != 0 && limits.weight <= WEIGHT_MAX;
    if (t->has_set_limits)
        budget_set(&t->budget, &limits);
}

void tenant_let_in(struct tenant *t, struct access *access)
{
    access_deinit(&t->access);
    t->access = *access;
    *access = (struct access){0};
}

void tenant_set_owner(struct tenant *t, uid_t uid)
{
    t->owner_uid = uid;
    if (t->is_open)
        t->books->header.owner_plus_1 = uid + 1;
}

static bool allows(const struct tenant *t, const struct creds *creds, enum access_right right)
{
    const struct own *own = t->core->own;
    if (t->owner_uid == NOBODY_UID)
        return access_allows(&t->access, right, creds);
    if (t->owner_uid == creds->uid && right <= ACCESS_ATTACH)
        return true;
    return own && !t->is_forgotten && access_allows(&own->access, right, creds);
}

bool tenant_allows(const struct tenant *t, const struct creds *creds, enum access_right right)
{
    char group[TENANT_NAME_BYTES];
    const struct tenant *above = t;
    while (above && !allows(above, creds, right))
        above = tenant_group_name(above->name, group) ? core_find_tenant(t->core, group) : NULL;
    return above || core_is_admin(t->core, creds);
}

static void begin(struct tenant *t)
{
    struct control_header *h = &t->control->header;
    h->heap_id = t->heap_id;
    h->sealed_bytes = 0; /* the segments of another daemon's that are in no books are no more */
    h->n_slots = 0;
    strcpy(h->tenant, t->name);
    t->granted_units = 0;
    t->n_ticks = 0;
    t->is_kept = false;
    t->n_unkept = 0;
    t->deposit_error = 0;
    t->search = (struct search){0};
    t->prepare = (struct prepare){0};
    t->n_retiring = 0;
    t->room = (struct room){0};
    t->pressure = (struct pressure){0};
    memset(t->is_limbo, 0, sizeof(t->is_limbo));
    t->tick_place = (struct orphan_place){0};
    t->is_open = true;
    if (t->has_set_limits)
        keep_limits(t, &t->budget.limits);
    tenant_tell_limits(t);
    tenant_set_owner(t, t->owner_uid);
}

int tenant_open(struct tenant *t)
{
    if (t->is_open)
        return 0;
    t->heap_id = machine_random();
    t->heap_no = t->core->next_heap_no++;
    int r = client_table_init(&t->clients);
    if (r == 0)
        r = control_create("acre-control", &t->control_fd, &t->control);
    if (r == 0)
        r = segment_reopen_readonly(t->control_fd, &t->control_ro_fd);
    if (r == 0) {
        choose_pages(t);
        r = books_create(t->name, t->heap_id, t->heap_no, t->pages, &t->books_fd, &t->books);
    }
    if (r < 0) {
        release_heap(t);
        return r;
    }
    begin(t);
    return 0;
}

int tenant_open_kept(struct tenant *t, struct books *books, int books_fd, int control_fd)
{
    acre_assert(!t->is_open);
    t->heap_id = books->header.heap_id;
    t->heap_no = books->header.heap_no;
    t->pages = books->header.pages == PAGES_THP ? PAGES_THP : PAGES_4K;
    int r = client_table_init(&t->clients);
    if (r == 0)
        r = control_open(control_fd, &t->control);
    if (r == 0)
        r = segment_reopen_readonly(control_fd, &t->control_ro_fd);
    if (r < 0) {
        release_heap(t);
        return r;
    }
    t->books = books;
    t->books_fd = books_fd;
    t->control_fd = control_fd;
    restore_limits(t);
    begin(t);
    t->is_kept = true;
    t->pressure.heard_level = t->control->header.pressure; /* and limits may be others now */
    room_look_at(t->core, t->core->now_ns);
    return 0;
}

uint64_t tenant_close(struct tenant *t)
{
    uint64_t freed_bytes = 0;
    acre_assert(t->is_open && t->n_jobs == 0 && t->clients.n == 0);
    acre_assert(TAILQ_EMPTY(&t->waiters) && TAILQ_EMPTY(&t->attaches));
    /* What is left of the heap are zombies. */
    kept_drop(t->core, (struct kept){KEPT_BOOKS, t->heap_no, 0});
    kept_drop(t->core, (struct kept){KEPT_CONTROL, t->heap_no, 0});
    for (uint32_t slot = 0; slot < t->n_slots; slot++) {
        struct seg *seg = t->segs[slot];
        int fd;
        if (t->is_limbo[slot]) /* its zombie is nobody's now */
            budget_orphan(&t->budget, t->books->segment[slot].size_bytes);
        if (!seg)
            continue;
        uint64_t size_bytes = seg->shape.size_bytes;
        t->core->retiring_bytes -= seg->is_retiring && !seg->is_late ? size_bytes : 0;
        seg_free(seg, &fd);
        t->segs[slot] = NULL;
        budget_orphan(&t->budget, size_bytes);
        zombie_bury(t->core, &t->budget, (struct kept){KEPT_SEGMENT, t->heap_no, slot}, fd,
                    size_bytes);
        freed_bytes += size_bytes;
    }
    release_heap(t);
    return freed_bytes;
}

struct seg *tenant_seg(const struct tenant *t, uint32_t slot)
{
    if (slot >= t->n_slots)
        return NULL;
    uint32_t head = slot;
    while (head > 0 && !t->segs[head])
        head--;
    struct seg *seg = t->segs[head];
    return seg && slot < head + seg->n_slots ? seg : NULL;
}

struct seg *tenant_locate(const struct tenant *t, uint64_t off, bool any, uint32_t *ret_unit)
{
    if (off >= HEAP_BYTES || (!any && off % UNIT_BYTES != 0))
        return NULL;
    struct seg *seg = tenant_seg(t, (uint32_t)(off >> SLOT_SHIFT));
    if (!seg)
        return NULL;
    uint64_t unit = (off - ((uint64_t)seg->slot << SLOT_SHIFT)) >> UNIT_SHIFT;
    if (unit < seg->shape.n_meta || unit >= seg->shape.n_units)
        return NULL;
    *ret_unit = (uint32_t)unit;
    return seg;
}

/* ---- units ---- */

tag_t tenant_owner(const struct tenant *t, const struct seg *seg, uint32_t unit)
{
    return books_owner(t->books, seg->slot, seg->buddy ? unit : seg->shape.n_meta);
}

bool tenant_all_owned(const struct tenant *t, const struct seg *seg, uint32_t unit, uint32_t n,
                      tag_t owner)
{
    if (seg->buddy)
        return books_all_owner(t->books, seg->slot, unit, n, owner);
    return unit == seg->shape.n_meta && n == seg->span_units && tenant_owner(t, seg, unit) == owner;
}

static void count_owner(struct tenant *t, const struct seg *seg, uint32_t unit, uint32_t n,
                        tag_t owner, bool gets)
{
    struct client *c = owner == OWNER_ORPHAN ? NULL : t->clients.by_id[owner];
    if (owner == OWNER_NONE)
        return;
    t->granted_units = gets ? t->granted_units + n : t->granted_units - n;
    if (owner == OWNER_ORPHAN)
        return;
    acre_assert(c != NULL);
    if (gets)
        client_hold(c, seg->slot, unit, n);
    else
        client_unhold(c, seg->slot, n);
    t->control->client[owner].granted_bytes = c->n_units * UNIT_BYTES;
}

void tenant_assign(struct tenant *t, struct seg *seg, uint32_t unit, uint32_t n, tag_t from,
                   tag_t to)
{
    acre_assert(seg_contains(seg, unit, n) && from != to);
    segments_tell(t, seg);
    if (seg->buddy) {
        acre_assert(books_all_owner(t->books, seg->slot, unit, n, from));
        books_set_owner(t->books, seg->slot, unit, n, to);
    } else {
        acre_assert(tenant_owner(t, seg, unit) == from);
        t->books->segment[seg->slot].span_units = to == OWNER_NONE ? 0 : n;
        books_set_owner(t->books, seg->slot, seg->shape.n_meta, 1, to);
    }
    tenant_changed(t);
    count_owner(t, seg, unit, n, from, false);
    count_owner(t, seg, unit, n, to, true);
    t->n_changes++;
    t->control->header.granted_bytes = t->granted_units * UNIT_BYTES;
}

void tenant_restore_units(struct tenant *t, struct seg *seg, uint32_t unit, uint32_t n, tag_t owner)
{
    if (owner == OWNER_NONE)
        seg_give(seg, unit, n);
    count_owner(t, seg, unit, n, owner, true);
    t->control->header.granted_bytes = t->granted_units * UNIT_BYTES;
}

void tenant_take_back(struct tenant *t, struct seg *seg, uint32_t unit, uint32_t n, tag_t from)
{
    seg_store_plain(seg, unit, n, U_FREE, 0);
    tenant_assign(t, seg, unit, n, from, OWNER_NONE);
    seg_give(seg, unit, n);
    if (t->pressure.level != PRESSURE_NONE && seg_n_free(seg) == seg_usable(seg))
        room_look_at(t->core, t->core->now_ns);
}

/* ---- recount ---- */

struct recount {
    uint64_t n_owned, n_orphan;
    uint64_t *by_id; /* up to next_fresh */
};

static void recount_seg(const struct tenant *t, const struct seg *seg, struct recount *sum)
{
    uint32_t n = seg->buddy ? seg->shape.n_units : seg->shape.n_meta + 1;
    for (uint32_t u = seg->shape.n_meta; u < n; u++) {
        tag_t owner = tenant_owner(t, seg, u);
        uint32_t n_units = seg->buddy ? 1 : seg->span_units;
        if (owner == OWNER_NONE)
            continue;
        acre_assert(!seg->buddy || !buddy_is_free(seg->buddy, u));
        acre_assert(owner == OWNER_ORPHAN || owner < t->clients.next_fresh);
        sum->n_owned += n_units;
        if (owner == OWNER_ORPHAN)
            sum->n_orphan += n_units;
        else
            sum->by_id[owner] += n_units;
    }
}

void tenant_assert_valid(const struct tenant *t)
{
    struct recount sum = {0};
    uint64_t sealed_bytes = 0, n_held = 0;
    if (t->is_open)
        sum.by_id = calloc(t->clients.next_fresh, sizeof(uint64_t));
    if (!sum.by_id)
        return;
    for (uint32_t slot = 0; slot < t->n_slots; slot++) {
        if (t->is_limbo[slot])
            sealed_bytes += t->books->segment[slot].size_bytes; /* 0 inside of it */
        if (!t->segs[slot])
            continue;
        seg_assert_valid(t->segs[slot]);
        recount_seg(t, t->segs[slot], &sum);
        sealed_bytes += t->segs[slot]->shape.size_bytes;
    }
    acre_assert(sealed_bytes == t->budget.charged_bytes);
    acre_assert(sealed_bytes == t->control->header.sealed_bytes);
    if (sum.n_owned != t->granted_units)
        fprintf(stderr, "tenant %s: the books own %llu units, counted %llu\n", t->name,
                (unsigned long long)sum.n_owned, (unsigned long long)t->granted_units);
    acre_assert(sum.n_owned == t->granted_units);
    for (uint32_t id = 1; id < t->clients.next_fresh; id++) {
        const struct client *c = t->clients.by_id[id];
        acre_assert(sum.by_id[id] == (c ? c->n_units : 0));
        n_held += sum.by_id[id];
    }
    acre_assert(n_held + sum.n_orphan == t->granted_units);
    free(sum.by_id);
}
