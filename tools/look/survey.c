/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/look/inside.h"

#include <fcntl.h>
#include <string.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* A census of a running heap may meet a slab that is just being cut. What is wrong stays wrong. */
#define CENSUS_TRIES 3

/* ---- the control segment ---- */

static int control_read(const struct look *l, void *buf, size_t n, size_t off)
{
    ssize_t got = pread(l->control_fd, buf, n, (off_t)off);

    if (got == (ssize_t)n)
        return 0;
    return peer_fail(l->peer, got < 0 ? -errno : -EPROTO, "the control segment cannot be read");
}

static int read_header(struct look *l)
{
    const struct control *control;
    struct control_header h;
    const char *why;
    int r = control_map(l->control_fd, &control, &why);

    if (r < 0)
        return peer_fail(l->peer, r, "%s", why);
    munmap((void *)(uintptr_t)control, sizeof(*control));
    r = control_read(l, &h, sizeof(h), 0);
    if (r < 0)
        return r;
    l->n_slots = MIN(h.n_slots, HEAP_SLOTS);
    l->retire_seq = h.retire_seq;
    l->tenant->min_bytes = h.min_bytes;
    l->tenant->high_bytes = h.high_bytes;
    l->tenant->max_bytes = h.max_bytes;
    l->tenant->weight = h.weight;
    l->tenant->pressure = h.pressure;
    l->tenant->over_bytes = h.over_bytes;
    l->tenant->granted_bytes = h.granted_bytes;
    l->tenant->sealed_bytes = h.sealed_bytes;
    l->tenant->ready_bytes = h.ready_bytes;
    l->tenant->prepared_bytes = h.prepared_bytes;
    l->tenant->pages = h.pages;
    l->tenant->pages_wanted = h.pages_wanted;
    l->tenant->pages_possible = h.pages_possible;
    return 0;
}

static int add_client(const struct look *l, tag_t id, const struct control_client *c)
{
    struct survey_tenant *t = l->tenant;

    if (is_pow2_u64(t->n_clients) || t->n_clients == 0) {
        size_t room = MAX(2 * t->n_clients, 1u);
        struct survey_client *more = reallocarray(t->clients, room, sizeof(*more));
        if (!more)
            return peer_fail(l->peer, -ENOMEM, "out of memory");
        t->clients = more;
    }
    struct survey_client *to = &t->clients[t->n_clients++];
    *to = (struct survey_client){
        .id = id, .gen = c->gen, .pid = c->pid, .granted_bytes = c->granted_bytes};
    memcpy(to->name, c->name, sizeof(to->name) - 1);
    return 0;
}

/* The table of 65,536 clients is sparse: only its written pages are read. */
static int read_clients(const struct look *l)
{
    struct control_client page[4096 / sizeof(struct control_client)];
    const off_t first = offsetof(struct control, client), end = sizeof(struct control);
    int r = 0;

    for (off_t off = first; r == 0 && off < end; off += (off_t)sizeof(page)) {
        off_t data = lseek(l->control_fd, off, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break;
        if (data > off)
            off = data - data % (off_t)sizeof(page);
        r = control_read(l, page, sizeof(page), (size_t)off);
        tag_t id = (tag_t)((size_t)(off - first) / sizeof(page[0]));
        for (size_t i = 0; r == 0 && i < ARRAY_LEN(page); i++)
            if (page[i].gen != 0)
                r = add_client(l, (tag_t)(id + i), &page[i]);
    }
    return r;
}

/* ---- segments ---- */

static int count_item(void *ctx, const struct census_item *item)
{
    struct look *l = ctx;
    struct census *census = &l->tenant->census;
    uint64_t before = census->live_bytes;

    census_add_item(census, item);
    l->live_in_held[holder_client(item->holder)] += census->live_bytes - before;
    for (uint32_t i = 0; l->focus_id != 0 && i < item->n_tags; i++)
        l->tenant->focus_blocks[item->geo ? geo_class(item->geo) : N_CLASSES] +=
            item->tags[i] == l->focus_id;
    return 0;
}

#define ENTRIES_AT_ONCE 4096u

/* The longest run of units that the daemon's allocator has; of a segment over several slots all or
 * nothing. */
static int longest_free_run(int fd, const struct segment_shape *shape, uint64_t *ret_units)
{
    uint64_t entries[ENTRIES_AT_ONCE], run = 0, longest = 0;

    for (uint32_t from = shape->n_meta, n; from < shape->n_table; from += n) {
        n = MIN(shape->n_table - from, ENTRIES_AT_ONCE);
        off_t off = (off_t)(shape->entries_off + (uint64_t)from * sizeof(*entries));
        ssize_t got = pread(fd, entries, n * sizeof(*entries), off);
        if (got != (ssize_t)(n * sizeof(*entries)))
            return got < 0 ? -errno : -EPROTO;
        for (uint32_t i = 0; i < n; i++) {
            run = unit_entry_state(entries[i]) == U_FREE ? run + 1 : 0;
            longest = MAX(longest, run);
        }
    }
    bool is_span = shape->n_units > SLOT_UNITS;
    *ret_units = is_span && longest > 0 ? shape->n_units - shape->n_meta : longest;
    return 0;
}

/* Its pages go before its descriptor is of no use. */
static bool has_gone(const struct look *l, uint32_t slot)
{
    struct control_segment s;
    size_t off = offsetof(struct control, segment) + slot * sizeof(s);

    return control_read(l, &s, sizeof(s), off) == 0 &&
           (s.size_bytes == 0 || s.retire == SEGMENT_RETIRED);
}

/* The daemon gives segments of the tenant that the connection looked at last. */
static int look_again(const struct look *l)
{
    struct msg_request req = {.op = MSG_LOOK};
    struct msg_reply reply;
    CLEANUP_FD int fd = -1;

    memcpy(req.look.tenant, l->tenant->name, sizeof(req.look.tenant));
    return peer_call(l->peer, &req, &reply, &fd);
}

/* 0; 1: it has gone meanwhile; or negative errno. */
static int ask_segment(const struct look *l, uint32_t slot, struct open_segment *ret_segment)
{
    struct msg_request req = {.op = MSG_MAP_SEGMENT, .map_segment = {.slot = slot}};
    struct msg_reply reply;
    const char *why;
    CLEANUP_FD int fd = -1;

    if (l->cache && (l->cache->is_stale || look_again(l) < 0))
        return 1; /* no worse than one that is not there yet */
    int r = peer_call(l->peer, &req, &reply, &fd);
    if (r < 0)
        return r == -ENOENT ? 1 : r; /* it was only ready */
    r = segment_check(fd, slot, l->heap_id, &ret_segment->shape, &why);
    if (r < 0)
        return has_gone(l, slot) ? 1 : peer_fail(l->peer, r, "segment %u: %s", slot, why);
    ret_segment->fd = fd;
    fd = -1;
    return 0;
}

/* The same as ask_segment(); *ret_is_kept: the descriptor is the cache's. */
static int find_segment(const struct look *l, uint32_t slot, uint64_t size_bytes,
                        struct open_segment *ret_segment, bool *ret_is_kept)
{
    struct open_segment *kept = l->known ? &l->known->segments[slot] : NULL;

    *ret_is_kept = kept && kept->fd >= 0 && kept->shape.size_bytes == size_bytes;
    if (*ret_is_kept) {
        *ret_segment = *kept;
        return 0;
    }
    int r = ask_segment(l, slot, ret_segment);
    if (r == 0 && kept && kept->fd < 0 && l->cache->n_fds < l->cache->n_fds_max) {
        *kept = *ret_segment;
        l->cache->n_fds++;
        *ret_is_kept = true;
    }
    return r;
}

static int count_segment(struct look *l, uint32_t slot, uint64_t size_bytes)
{
    struct open_segment s = {.fd = -1};
    struct stat st;
    bool is_kept;
    uint64_t n_bad = 0, longest = 0;
    int r = find_segment(l, slot, size_bytes, &s, &is_kept);

    if (r != 0)
        return MIN(r, 0);
    r = census_walk(s.fd, &s.shape, count_item, l, &n_bad);
    if (r == 0)
        r = longest_free_run(s.fd, &s.shape, &longest);
    l->tenant->largest_free_bytes = MAX(l->tenant->largest_free_bytes, longest * UNIT_BYTES);
    if (r < 0 || fstat(s.fd, &st) < 0)
        r = peer_fail(l->peer, r < 0 ? r : -errno, "segment %u cannot be read", slot);
    if (!is_kept)
        close_fd(&s.fd);
    if (r < 0)
        return r;
    l->tenant->census.n_bad += n_bad;
    l->tenant->resident_bytes += (uint64_t)st.st_blocks * 512;
    return 0;
}

static int count_segments(struct look *l)
{
    struct control_segment segments[HEAP_SLOTS];
    int r = control_read(l, segments, sizeof(segments), offsetof(struct control, segment));

    l->tenant->resident_bytes = 0;
    l->tenant->largest_free_bytes = 0;
    for (uint32_t slot = 0; r == 0 && slot < HEAP_SLOTS; slot++)
        if (segments[slot].size_bytes != 0 && segments[slot].head_slot == slot)
            r = count_segment(l, slot, segments[slot].size_bytes);
    return r;
}

static int take_census(struct look *l)
{
    int r = 0;

    for (int i = 0; i < CENSUS_TRIES && r == 0; i++) {
        census_deinit(&l->tenant->census);
        memset(l->live_in_held, 0, CLIENT_IDS * sizeof(*l->live_in_held));
        if (l->tenant->focus_blocks)
            memset(l->tenant->focus_blocks, 0, N_FOCUS * sizeof(*l->tenant->focus_blocks));
        if (census_init(&l->tenant->census) < 0)
            return peer_fail(l->peer, -ENOMEM, "out of memory");
        r = count_segments(l);
        if (l->tenant->census.n_bad == 0)
            break;
    }
    return r;
}

static void fill_clients(const struct look *l)
{
    for (size_t i = 0; i < l->tenant->n_clients; i++) {
        struct survey_client *c = &l->tenant->clients[i];
        const struct census_owner *owner = &l->tenant->census.by_id[c->id];
        uint64_t live_in_held = l->live_in_held[c->id];
        c->live_bytes = owner->live_bytes;
        c->live_blocks = owner->live_blocks;
        c->free_bytes = c->granted_bytes - MIN(c->granted_bytes, live_in_held);
    }
}

/* ---- room ---- */

/* The largest block that a segment of at most so many bytes holds, in the slots that are free
 * behind the others. */
static uint64_t new_block(uint64_t bytes, uint32_t n_slots)
{
    uint64_t slots_units = (uint64_t)n_slots * SLOT_UNITS, n = MIN(bytes / UNIT_BYTES, slots_units);

    if (n > SLOT_UNITS + SEGMENT_SPAN_META)
        return (n - SEGMENT_SPAN_META) * UNIT_BYTES;
    n = MIN(n, SLOT_UNITS);
    return n < 8 ? 0 : (n - segment_shape((uint32_t)n).n_meta) * UNIT_BYTES;
}

/* Of the tenant that was looked at last. */
int look_room(struct peer *peer, uint32_t n_slots, uint32_t *ret_n_waiters, uint64_t *ret_new_block)
{
    struct msg_request req = {.op = MSG_WAITERS};
    struct msg_reply reply;
    int r = peer_call(peer, &req, &reply, NULL);

    if (r < 0)
        return r;
    *ret_n_waiters = reply.waiters.n_all;
    *ret_new_block = new_block(reply.waiters.left_bytes, HEAP_SLOTS - n_slots);
    return 0;
}

/* ---- tenants ---- */

int look_control(struct peer *peer, const char *tenant, int *ret_fd, uint64_t *ret_heap_id)
{
    struct msg_request req = {.op = MSG_LOOK};
    struct msg_reply reply;

    (void)snprintf(req.look.tenant, sizeof(req.look.tenant), "%s", tenant);
    int r = peer_call(peer, &req, &reply, ret_fd);
    if (r == 0)
        *ret_heap_id = reply.look.heap_id;
    return r;
}

int look_read(struct look *l, enum survey_depth depth)
{
    int r = read_header(l);

    if (r == 0 && l->known && l->known->retire_seq != l->retire_seq) {
        cache_forget_segments(l->cache, l->known); /* some slot may have another one by now */
        l->known->retire_seq = l->retire_seq;
    }
    if (r == 0 && depth != SURVEY_BRIEF)
        r = read_clients(l);
    if (r < 0 || depth != SURVEY_BLOCKS)
        return r;
    r = take_census(l);
    if (r == 0 && !l->cache)
        r = look_room(l->peer, l->n_slots, &l->tenant->n_waiters, &l->tenant->new_block_bytes);
    if (r == 0)
        fill_clients(l);
    return r;
}

void survey_fail(struct survey_tenant *tenant, int error, const char *why)
{
    tenant->error = error;
    (void)snprintf(tenant->why, sizeof(tenant->why), "%.*s", (int)sizeof(tenant->why) - 1, why);
}

static int survey_tenant(struct survey_tenant *tenant, struct peer *peer, enum survey_depth depth)
{
    struct look l = {.peer = peer, .tenant = tenant, .control_fd = -1};

    l.live_in_held = malloc(CLIENT_IDS * sizeof(*l.live_in_held));
    if (!l.live_in_held)
        return peer_fail(peer, -ENOMEM, "out of memory");
    int r = look_control(peer, tenant->name, &l.control_fd, &l.heap_id);
    if (r == 0)
        r = look_read(&l, depth);
    close_fd(&l.control_fd);
    free(l.live_in_held);
    if (r == 0 || r == -ENOMEM || peer->is_broken)
        return r;
    survey_fail(tenant, r, peer->why);
    return 0;
}

struct survey_tenant *survey_add(struct survey *survey, const char *name)
{
    struct survey_tenant *more =
        reallocarray(survey->tenants, survey->n_tenants + 1, sizeof(*more));

    if (!more)
        return NULL;
    survey->tenants = more;
    more += survey->n_tenants++;
    *more = (struct survey_tenant){.n_clients = 0};
    (void)snprintf(more->name, sizeof(more->name), "%s", name);
    return more;
}

static int add_tenant(struct survey *survey, struct peer *peer, const char *name)
{
    struct survey_tenant *t = survey_add(survey, name);

    return t ? survey_tenant(t, peer, survey->depth) : peer_fail(peer, -ENOMEM, "out of memory");
}

/* Groups have limits and no heap: a matter of the brief picture. */
int survey_add_group(struct survey *survey, struct peer *peer, const struct msg_tenant *what)
{
    bool is_wanted = survey->depth == SURVEY_BRIEF;
    struct survey_tenant *t = is_wanted ? survey_add(survey, what->name) : NULL;

    if (is_wanted && !t)
        return peer_fail(peer, -ENOMEM, "out of memory");
    if (t) {
        t->is_group = true;
        t->min_bytes = what->min_bytes;
        t->high_bytes = what->high_bytes;
        t->max_bytes = what->max_bytes;
        t->weight = what->weight;
        t->sealed_bytes = what->total_bytes;
    }
    return 0;
}

int look_tenants(struct peer *peer, look_told_fn fn, void *ctx)
{
    struct msg_request req = {.op = MSG_TENANTS};
    struct msg_reply reply;
    int r;

    do {
        r = peer_call(peer, &req, &reply, NULL);
        if (r < 0 || reply.tenants.n == 0)
            return r;
        for (uint32_t i = 0; r == 0 && i < reply.tenants.n; i++)
            r = fn(ctx, peer, &reply.tenants.all[i]);
        memcpy(req.tenants.after, reply.tenants.all[reply.tenants.n - 1].name,
               sizeof(req.tenants.after));
    } while (r == 0 && reply.tenants.more);
    return r;
}

static int add_told(void *ctx, struct peer *peer, const struct msg_tenant *what)
{
    struct survey *survey = ctx;

    return what->is_group ? survey_add_group(survey, peer, what)
                          : add_tenant(survey, peer, what->name);
}

int survey_take(struct survey *ret_survey, struct peer *peer, const char *only,
                enum survey_depth depth)
{
    struct msg_request req = {.op = MSG_STATUS};
    struct msg_reply reply;

    *ret_survey = (struct survey){.depth = depth};
    int r = peer_call(peer, &req, &reply, NULL);
    if (r < 0)
        return r;
    ret_survey->capacity_bytes = reply.status.capacity_bytes;
    if (!only)
        return look_tenants(peer, add_told, ret_survey);
    if (strlen(only) >= TENANT_NAME_BYTES)
        return peer_fail(peer, -ENOENT, "there is no tenant \"%s\"", only);
    return add_tenant(ret_survey, peer, only);
}

void survey_deinit(struct survey *survey)
{
    for (size_t i = 0; i < survey->n_tenants; i++) {
        census_deinit(&survey->tenants[i].census);
        free(survey->tenants[i].clients);
        free(survey->tenants[i].focus_blocks);
    }
    free(survey->tenants);
}

const char *survey_pages(uint32_t kind)
{
    return kind == PAGES_4K ? "4k" : kind == PAGES_THP ? "thp" : "?";
}

const char *survey_pressure(uint32_t level)
{
    static const char *const names[] = {"none", "high", "share", "max"};

    return level < ARRAY_LEN(names) ? names[level] : "of another kind";
}

uint64_t survey_published_bytes(const struct survey_tenant *tenant)
{
    return tenant->census.by_id ? tenant->census.by_id[TAG_HEAP].live_bytes : 0;
}

uint64_t survey_largest_bytes(const struct survey_tenant *tenant)
{
    return MAX(tenant->largest_free_bytes, tenant->new_block_bytes);
}

uint64_t survey_free_bytes(const struct survey_tenant *tenant)
{
    return tenant->granted_bytes - MIN(tenant->granted_bytes, tenant->census.live_bytes);
}
