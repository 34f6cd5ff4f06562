/* SPDX-License-Identifier: Apache-2.0 */
/* world.c - see world.h. */
#include "tests/crash/world.h"

#include <inttypes.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "proto/wire.h"
#include "shm/census.h"

#define WAIT_MS      20000u
#define BURST        12u
#define SOIL         40u
#define SOIL_LARGE   4u
#define SOIL_BYTES   7000u
#define LARGE_BYTES  (100u << 10)
#define SHADOW_BYTES 512ull /* of an owner map: 256 blocks */

static __attribute__((format(printf, 2, 3))) bool bad(struct world *w, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(w->why, sizeof(w->why), format, args);
    va_end(args);
    return false;
}

/* Sleeps a little longer each time; false when the time is over. */
static bool wait_more(unsigned *waited_us)
{
    unsigned us = MIN(*waited_us / 8 + 30, 20000u);

    usleep(us);
    *waited_us += us;
    return *waited_us < WAIT_MS * 1000;
}

/* ---- the observer ---- */

static bool ask(struct world *w, struct msg_request *req, struct msg_reply *ret, int *ret_fd)
{
    struct wire_call call = {.sock = w->sock, .deadline_ns = wire_now_ns() + 10000000000ull};

    req->serial = ++w->serial;
    int r = wire_call(&call, req, -1, ret, ret_fd);
    if (r < 0 || ret->error != 0)
        return bad(w, "the daemon refuses to be looked at: %d, %s", r, ret->text);
    return true;
}

static bool look_segment(struct world *w, uint32_t slot)
{
    struct msg_request req = {.op = MSG_MAP_SEGMENT, .map_segment = {.slot = slot}};
    struct msg_reply reply;
    struct world_seg *seg = &w->segs[w->n_segs];
    const char *why = "too many";

    seg->fd = -1;
    seg->slot = slot;
    if (!ask(w, &req, &reply, &seg->fd))
        return false;
    if (w->n_segs == WORLD_SEGS_MAX ||
        segment_check(seg->fd, slot, w->heap_id, &seg->shape, &why) < 0)
        return bad(w, "segment %u is not valid: %s", slot, why);
    void *base = mmap(NULL, seg->shape.size_bytes, PROT_READ, MAP_SHARED, seg->fd, 0);
    if (base == MAP_FAILED)
        return bad(w, "segment %u cannot be mapped", slot);
    seg->base = base;
    w->n_segs++;
    return true;
}

/* Those that came since the last look. */
static bool look_segments(struct world *w)
{
    for (uint32_t slot = 0; slot < w->control->header.n_slots; slot++) {
        const struct control_segment *s = &w->control->segment[slot];
        bool known = s->size_bytes == 0 || s->head_slot != slot;
        for (unsigned i = 0; i < w->n_segs && !known; i++)
            known = w->segs[i].slot == slot;
        if (!known && !look_segment(w, slot))
            return false;
    }
    return true;
}

static bool look(struct world *w)
{
    struct msg_request req = {.op = MSG_LOOK, .look = {.tenant = WORLD_TENANT}};
    struct msg_reply reply;
    const char *why;
    int fd = -1;

    if (wire_hello(w->daemon.socket, wire_now_ns() + 10000000000ull, &w->sock, NULL) < 0)
        return bad(w, "the observer cannot connect");
    if (!ask(w, &req, &reply, &fd))
        return false;
    w->heap_id = reply.look.heap_id;
    int r = control_map(fd, &w->control, &why);
    close(fd);
    return r == 0 || bad(w, "the control page is not valid: %s", why);
}

static int see_item(void *ctx, const struct census_item *item)
{
    struct world *w = ctx;
    const struct world_seg *seg = &w->segs[w->n_segs]; /* being walked: see see_all() */
    acre_off head = ((acre_off)seg->slot << SLOT_SHIFT) + ((acre_off)item->unit << UNIT_SHIFT);

    for (uint32_t i = 0; i < item->n_tags; i++) {
        if (item->tags[i] == TAG_FREE)
            continue;
        if (w->n_seen == WORLD_SEEN_MAX)
            return -E2BIG;
        acre_off in_slab = item->geo ? geo_table[item->geo].first + i * item->block_bytes : 0;
        w->seen[w->n_seen++] =
            (struct seen){head + in_slab, item->block_bytes, item->tags[i], false};
    }
    return 0;
}

/* All blocks with an owner. */
static bool see_all(struct world *w)
{
    unsigned n = w->n_segs;
    uint64_t n_bad = 0;
    int r = 0;

    w->n_seen = 0;
    for (w->n_segs = 0; r == 0 && n_bad == 0 && w->n_segs < n; w->n_segs++)
        r = census_walk(w->segs[w->n_segs].fd, &w->segs[w->n_segs].shape, see_item, w, &n_bad);
    w->n_segs = n;
    return (r == 0 && n_bad == 0) ||
           bad(w, "the census fails: %d, %" PRIu64 " entries make no sense", r, n_bad);
}

size_t world_shadow_bytes(const struct world *w)
{
    size_t bytes = 0;

    for (unsigned i = 0; i < w->n_segs; i++)
        bytes += w->segs[i].shape.n_meta * UNIT_BYTES + w->segs[i].shape.n_units * SHADOW_BYTES;
    return bytes;
}

static bool differs(const char *now, char *then, size_t bytes)
{
    if (memcmp(now, then, bytes) == 0)
        return false;
    memcpy(then, now, bytes);
    return true;
}

bool world_has_changed(const struct world *w, char *shadow)
{
    bool any = false;

    for (unsigned i = 0; i < w->n_segs; i++) {
        const struct world_seg *seg = &w->segs[i];
        size_t n_meta = seg->shape.n_meta * UNIT_BYTES;
        const uint64_t *entries = (const void *)(seg->base + seg->shape.entries_off);
        any |= differs(seg->base, shadow, n_meta);
        shadow += n_meta;
        for (uint32_t u = seg->shape.n_meta; u < seg->shape.n_units; u++, shadow += SHADOW_BYTES)
            if (unit_entry_state(entries[u]) == U_SLAB && unit_entry_back(entries[u]) == 0)
                any |= differs(seg->base + (u << UNIT_SHIFT), shadow, SHADOW_BYTES);
    }
    return any;
}

/* ---- what there must be ---- */

static enum whose whose(const struct world *w, const struct seen *s)
{
    if (!s)
        return GONE;
    if (s->owner == TAG_HEAP)
        return HEAP;
    return s->owner == client_handle_id(w->self) ? SURVIVOR : 0;
}

static struct seen *find_seen(struct world *w, acre_off off)
{
    for (size_t i = 0; i < w->n_seen; i++)
        if (w->seen[i].off == off)
            return &w->seen[i];
    return NULL;
}

static bool compare_one(struct world *w, const struct tracked *t, enum progress progress,
                        const char *what, unsigned *ret_n_published)
{
    struct seen *s = find_seen(w, t->off);
    enum whose who = whose(w, s);
    unsigned may = (progress & WAS_BEFORE ? t->before : 0) | (progress & WAS_AFTER ? t->after : 0);

    if (!(who & may))
        return bad(w, "%s block 0x%" PRIx64 " is %s %u, allowed 0x%x", what, t->off,
                   s ? "owned by" : "gone, owner", s ? s->owner : 0, may);
    if (!s)
        return true;
    s->known = true;
    *ret_n_published += who == HEAP;
    const char *block = acre_pointer(w->heap, t->off);
    if (!block || !pattern_is_whole(block, t->bytes))
        return bad(w, "%s block 0x%" PRIx64 " has lost its contents", what, t->off);
    return true;
}

static bool is_alive(const struct world *w, uint16_t id)
{
    return __atomic_load_n(&w->control->client[id].gen, __ATOMIC_ACQUIRE) != 0;
}

/* What nobody told us of: published by somebody who died before he could say so. */
static bool compare_rest(struct world *w, unsigned n_strays, unsigned *n_published)
{
    for (size_t i = 0; i < w->n_seen; i++) {
        const struct seen *s = &w->seen[i];
        if (s->known)
            continue;
        if (s->owner == TAG_HEAP && n_strays > 0) {
            n_strays--;
            ++*n_published;
        } else if (whose(w, s) == SURVIVOR || !is_alive(w, s->owner)) {
            return bad(
                w, "block 0x%" PRIx64 " of %" PRIu64 " bytes belongs to %u, and nobody knows it",
                s->off, s->bytes, s->owner);
        }
    }
    return true;
}

bool world_compare(struct world *w, const struct tracked *tracked, unsigned n,
                   enum progress progress, unsigned n_strays, unsigned n_published)
{
    unsigned n_ballast = 0, n_found = 0;

    if (!look_segments(w) || !see_all(w))
        return false;
    for (unsigned i = 0; i < w->n_ballast; i++)
        if (!compare_one(w, &w->ballast[i], WAS_BEFORE, "ballast", &n_ballast))
            return false;
    for (unsigned i = 0; i < n; i++)
        if (!compare_one(w, &tracked[i], progress, "tracked", &n_found))
            return false;
    if (!compare_rest(w, n_strays, &n_found))
        return false;
    return n_found >= n_published ||
           bad(w, "%u published blocks are left, expected at least %u", n_found, n_published);
}

bool world_rest_is_published(struct world *w, unsigned *ret_n)
{
    unsigned n_ballast = 0;

    *ret_n = 0;
    if (!look_segments(w) || !see_all(w))
        return false;
    for (unsigned i = 0; i < w->n_ballast; i++)
        if (!compare_one(w, &w->ballast[i], WAS_BEFORE, "ballast", &n_ballast))
            return false;
    for (size_t i = 0; i < w->n_seen; i++) {
        const struct seen *s = &w->seen[i];
        if (s->known)
            continue;
        ++*ret_n;
        if (s->owner != TAG_HEAP)
            return bad(w, "block 0x%" PRIx64 " belongs to %u, who is gone", s->off, s->owner);
        if (!pattern_is_whole(acre_pointer(w->heap, s->off), s->bytes))
            return bad(w, "published block 0x%" PRIx64 " has lost its contents", s->off);
    }
    return true;
}

static bool is_ballast(const struct world *w, acre_off off)
{
    for (unsigned i = 0; i < w->n_ballast; i++)
        if (w->ballast[i].off == off)
            return true;
    return false;
}

/* A soft one by who has it pinned. */
static void dispose(struct world *w, void *block)
{
    acre_soft soft = acre_soft_of(w->heap, block);

    if (soft == 0 || acre_pin(w->heap, soft))
        acre_free(w->heap, block);
}

bool world_dispose(struct world *w)
{
    if (!look_segments(w) || !see_all(w))
        return false;
    for (size_t i = 0; i < w->n_seen; i++)
        if (whose(w, &w->seen[i]) != 0 && !is_ballast(w, w->seen[i].off))
            dispose(w, acre_pointer(w->heap, w->seen[i].off));
    return true;
}

/* ---- the survivor ---- */

static bool lay(struct world *w, size_t size, bool published)
{
    void *block = acre_alloc(w->heap, size);

    if (!block || w->n_ballast == WORLD_BALLAST_MAX)
        return bad(w, "no ballast of %zu bytes: %s", size, acre_last_error());
    struct tracked *t = &w->ballast[w->n_ballast++];
    *t = (struct tracked){.off = acre_offset(w->heap, block),
                          .bytes = (uint32_t)size,
                          .before = published ? HEAP : SURVIVOR};
    pattern_fill(block, size, t->off);
    return !published || acre_publish(w->heap, block) == 0 || bad(w, "publishing fails");
}

static bool lay_ballast(struct world *w)
{
    static const size_t sizes[] = {48, 48, 48, 512, 512, 4096, 20000, 70000};

    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++)
        if (!lay(w, sizes[i], false) || !lay(w, sizes[i], true))
            return false;
    return true;
}

bool world_burst(struct world *w, size_t size)
{
    void *blocks[BURST + 1];

    for (unsigned i = 0; i <= BURST; i++) {
        size_t bytes = i < BURST ? size : LARGE_BYTES;
        if (!(blocks[i] = acre_alloc(w->heap, bytes)))
            return bad(w, "the survivor gets no %zu bytes: %s", bytes, acre_last_error());
        pattern_fill(blocks[i], bytes, (uint64_t)(uintptr_t)blocks[i]);
    }
    for (unsigned i = 0; i <= BURST; i++) {
        size_t bytes = i < BURST ? size : LARGE_BYTES;
        if (*(uint64_t *)blocks[i] != (uint64_t)(uintptr_t)blocks[i] ||
            !pattern_is_whole(blocks[i], bytes))
            return bad(w, "two blocks of %zu bytes overlap", bytes);
        acre_free(w->heap, blocks[i]);
    }
    return true;
}

/* Large ones for stale tags in the tables, small ones for the holes that large ones do not fit. */
bool world_soil(struct world *w)
{
    void *blocks[SOIL];

    for (unsigned i = 0; i < SOIL; i++) {
        size_t bytes = i < SOIL_LARGE ? LARGE_BYTES : SOIL_BYTES;
        if (!(blocks[i] = acre_alloc(w->heap, bytes)))
            return bad(w, "the survivor gets no %zu bytes: %s", bytes, acre_last_error());
        pattern_fill(blocks[i], bytes, (uint64_t)(uintptr_t)blocks[i] * PATTERN);
    }
    for (unsigned i = 0; i < SOIL; i++)
        acre_free(w->heap, blocks[i]);
    return acre_trim(w->heap) == 0 || bad(w, "trimming fails: %s", acre_last_error());
}

/* Allocates until nothing is left, smaller and smaller; then frees all. Who takes the memory next
 * finds no zeroes in it. */
static bool fill(struct world *w, long long *ret_granted_bytes)
{
    static const size_t sizes[] = {1 << 20, 128 << 10, 72 << 10, 1000};
    void **chain = NULL, **block;

    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        while ((block = acre_alloc(w->heap, sizes[i]))) {
            pattern_fill(block, sizes[i], (uint64_t)(uintptr_t)block);
            *block = chain;
            chain = block;
        }
        if (errno != ENOMEM)
            return bad(w, "filling the heap ends with %s", acre_last_error());
    }
    *ret_granted_bytes = (long long)w->control->header.granted_bytes;
    while ((block = chain)) {
        chain = *block;
        acre_free(w->heap, block);
    }
    return acre_trim(w->heap) == 0 || bad(w, "trimming fails: %s", acre_last_error());
}

static bool floor_is_back(struct world *w)
{
    unsigned waited_us = 0;

    do {
        if (acre_trim(w->heap) < 0)
            return bad(w, "trimming fails: %s", acre_last_error());
        if ((long long)w->control->header.granted_bytes == w->floor_bytes)
            return true;
    } while (wait_more(&waited_us));
    return bad(w, "%" PRIu64 " bytes are granted, %lld before the first death",
               w->control->header.granted_bytes, w->floor_bytes);
}

bool world_is_full_size(struct world *w)
{
    long long bytes;

    if (!fill(w, &bytes))
        return false;
    if (bytes != w->full_bytes)
        return bad(w, "%lld bytes of the budget can be granted, %lld before the first death", bytes,
                   w->full_bytes);
    return floor_is_back(w);
}

/* ---- the whole ---- */

bool world_settle(struct world *w)
{
    unsigned waited_us = 0;

    do {
        if (w->control->header.n_clients == 1)
            return true;
    } while (wait_more(&waited_us));
    return bad(w, "%u clients are attached, expected the survivor alone",
               w->control->header.n_clients);
}

bool world_check(struct world *w)
{
    if (!floor_is_back(w) || !world_settle(w) || !world_compare(w, NULL, 0, WAS_BEFORE, 0, 0))
        return false;
    uint64_t live_bytes = 0;
    for (size_t i = 0; i < w->n_seen; i++)
        live_bytes += w->seen[i].bytes;
    struct tenant_stats s = tenant_stats(&w->daemon, WORLD_TENANT);
    if ((uint64_t)s.live_bytes != live_bytes || s.n_clients != 1 ||
        s.granted_bytes != w->floor_bytes)
        return bad(
            w, "acrectl says %lld live, %lld granted, %u clients; expected %" PRIu64 ", %lld, 1",
            s.live_bytes, s.granted_bytes, s.n_clients, live_bytes, w->floor_bytes);
    expect_checked(&w->daemon);
    return true;
}

/* The fewest of some looks: what has just hung up is still being closed. */
void world_note_daemon(struct world *w)
{
    w->n_fds = w->n_maps = UINT_MAX;
    for (unsigned i = 0; i < 8; i++) {
        w->n_fds = MIN(w->n_fds, daemon_fds(&w->daemon));
        w->n_maps = MIN(w->n_maps, daemon_maps(&w->daemon));
        usleep(2000);
    }
}

bool world_daemon_is_lean(struct world *w)
{
    unsigned waited_us = 0, n_fds, n_maps;

    do {
        n_fds = daemon_fds(&w->daemon);
        n_maps = daemon_maps(&w->daemon);
        if (n_fds <= w->n_fds && n_maps <= w->n_maps)
            return true;
    } while (wait_more(&waited_us));
    return bad(w, "the daemon has %u descriptors and %u mappings, %u and %u before the deaths",
               n_fds, n_maps, w->n_fds, w->n_maps);
}

bool world_up(struct world *w, unsigned max_mib, const char *pages)
{
    char config[128];

    memset(w, 0, sizeof(*w));
    w->sock = -1;
    sizeclass_init();
    snprintf(config, sizeof(config),
             "capacity = \"%uM\"\ntenant \"" WORLD_TENANT "\" { max = \"%uM\" pages = \"%s\" }\n",
             2 * max_mib, max_mib, pages);
    daemon_up(&w->daemon, config);
    w->heap = heap_open(&w->daemon, WORLD_TENANT);
    w->self = acre_self(w->heap);
    if (!look(w) || !lay_ballast(w) || !fill(w, &w->full_bytes) || !look_segments(w))
        return false;
    w->floor_bytes = (long long)w->control->header.granted_bytes;
    return world_check(w);
}

static void close_all(struct world *w)
{
    for (unsigned i = 0; i < w->n_segs; i++) {
        munmap((void *)(uintptr_t)w->segs[i].base, w->segs[i].shape.size_bytes);
        close(w->segs[i].fd);
    }
    if (w->control)
        munmap((void *)(uintptr_t)w->control, sizeof(*w->control));
    if (w->sock >= 0)
        close(w->sock);
    acre_close(w->heap);
}

bool world_down(struct world *w)
{
    for (unsigned i = 0; i < w->n_ballast; i++)
        acre_free(w->heap, acre_pointer(w->heap, w->ballast[i].off));
    w->n_ballast = 0;
    if (!world_compare(w, NULL, 0, WAS_BEFORE, 0, 0))
        return false;
    close_all(w);
    expect_settled(&w->daemon, WORLD_TENANT, 0, 0);
    daemon_down(&w->daemon);
    return true;
}

void world_abandon(struct world *w)
{
    close_all(w);
    kill(w->daemon.pid, SIGKILL);
    waitpid(w->daemon.pid, NULL, 0);
    unlink(w->daemon.socket);
    unlink(w->daemon.config);
    rmdir(w->daemon.dir);
}
