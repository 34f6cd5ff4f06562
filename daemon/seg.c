/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A segment in the daemon. Its free units are in the buddy allocator (private memory, derived from
 * the books). A free unit is *dirty* when it was granted once: pages may lie behind it, until
 * decay.c punches them out. Dirty bits are kept for free units only: granting clears them.
 *
 * The whole file is mapped, since a sweep changes owner tags by compare-and-swap; but only the
 * tables and tags that a copy has shown to be there are ever touched: a read of a punched page
 * would bring it back.
 */
#include "daemon/seg.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "shm/sizeclass.h"

#define BITS_WORD(u) ((u) >> 6)
#define BITS_MASK(u) (1ull << ((u)&63u))

int seg_reopen(int fd, int *ret_fd)
{
    char path[32];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int got = open(path, O_RDWR | O_CLOEXEC);
    if (got < 0)
        return -errno;
    *ret_fd = got;
    return 0;
}

static int map_tables(struct seg *seg)
{
    const struct segment_shape *s = &seg->shape;
    seg->mapped_bytes = seg->n_slots == 1 ? s->size_bytes : s->n_meta * UNIT_BYTES;
    char *base = mmap(NULL, seg->mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                      seg->fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    seg->base = base;
    return 0;
}

static int make_buddy(struct seg *seg)
{
    const struct segment_shape *s = &seg->shape;
    if (seg->n_slots > 1)
        return 0;
    size_t n_words = BITS_WORD(s->n_units) + 1;
    seg->dirty = calloc(n_words, sizeof(*seg->dirty));
    seg->stale = calloc(n_words, sizeof(*seg->stale));
    if (!seg->dirty || !seg->stale)
        return -ENOMEM;
    int r = buddy_new(&seg->buddy, s->n_units);
    if (r == 0)
        buddy_give(seg->buddy, s->n_meta, s->n_units - s->n_meta);
    return r;
}

int seg_new(struct seg **ret_seg, const char *name, uint32_t slot, uint64_t heap_id,
            uint32_t n_units)
{
    struct seg *seg = calloc(1, sizeof(*seg));
    if (!seg)
        return -ENOMEM;
    seg->slot = slot;
    seg->n_slots = (n_units + SLOT_UNITS - 1) / SLOT_UNITS;
    seg->fd = seg->client_fd = -1;
    int r = segment_create(name, slot, heap_id, n_units, &seg->fd, &seg->shape);
    if (r == 0)
        r = seg_reopen(seg->fd, &seg->client_fd);
    if (r == 0)
        r = map_tables(seg);
    if (r == 0)
        r = make_buddy(seg);
    if (r < 0) {
        seg_free(seg, NULL);
        return r;
    }
    *ret_seg = seg;
    return 0;
}

void seg_free(struct seg *seg, int *ret_fd)
{
    if (seg->buddy)
        buddy_free(seg->buddy);
    if (seg->base)
        (void)munmap(seg->base, seg->mapped_bytes);
    close_fd(&seg->client_fd);
    if (ret_fd)
        *ret_fd = seg->fd;
    else
        close_fd(&seg->fd);
    free(seg->dirty);
    free(seg->stale);
    free(seg);
}

uint32_t seg_n_free(const struct seg *seg)
{
    if (seg->buddy)
        return buddy_n_free(seg->buddy);
    return seg->span_units == 0 ? seg_usable(seg) : 0;
}

static void clear_dirty(struct seg *seg, uint32_t unit, uint32_t n)
{
    if (seg->n_dirty == 0)
        return;
    for (uint32_t u = unit; u < unit + n; u++) {
        if (seg->dirty[BITS_WORD(u)] & BITS_MASK(u))
            seg->n_dirty--;
        seg->dirty[BITS_WORD(u)] &= ~BITS_MASK(u);
        seg->stale[BITS_WORD(u)] &= ~BITS_MASK(u);
    }
}

uint32_t seg_take_span(struct seg *seg, unsigned order)
{
    if (!seg->buddy)
        return BUDDY_NONE;
    uint32_t unit = buddy_take(seg->buddy, order);
    if (unit != BUDDY_NONE)
        clear_dirty(seg, unit, 1u << order);
    return unit;
}

/* The one block of a segment over several slots. */
static uint32_t take_whole(struct seg *seg, uint32_t n, unsigned align_order)
{
    if (seg->span_units != 0 || n > seg_usable(seg) || align_order > 0 || n <= SLOT_UNITS / 2)
        return BUDDY_NONE;
    seg->span_units = n;
    seg->n_dirty = 0;
    seg->span_stale = false;
    return seg->shape.n_meta;
}

/* The lowest that fits: buddy_take_run() would want the next power of two, aligned to itself. */
static uint32_t take_first_fit(struct seg *seg, uint32_t n, unsigned align_order)
{
    uint32_t unit = buddy_find_run(seg->buddy, n, align_order);
    if (unit != BUDDY_NONE) {
        bool taken = buddy_take_at(seg->buddy, unit, n);
        acre_assert(taken);
    }
    return unit;
}

uint32_t seg_take_run(struct seg *seg, uint32_t n, unsigned align_order)
{
    uint32_t unit = BUDDY_NONE;
    if (!seg->buddy)
        return take_whole(seg, n, align_order);
    if (n > buddy_n_free(seg->buddy))
        return BUDDY_NONE;
    if (is_pow2_u64(n) && log2_ceil_u64(n) >= align_order)
        unit = buddy_take(seg->buddy, log2_ceil_u64(n));
    if (unit == BUDDY_NONE)
        unit = take_first_fit(seg, n, align_order);
    if (unit != BUDDY_NONE)
        clear_dirty(seg, unit, n);
    return unit;
}

void seg_give(struct seg *seg, uint32_t unit, uint32_t n)
{
    if (!seg->buddy) {
        acre_assert(unit == seg->shape.n_meta && n == seg->span_units);
        seg->span_units = 0;
        seg->n_dirty = seg_usable(seg); /* behind it may lie pages of a larger block before */
        return;
    }
    buddy_give(seg->buddy, unit, n);
    for (uint32_t u = unit; u < unit + n; u++)
        seg->dirty[BITS_WORD(u)] |= BITS_MASK(u);
    seg->n_dirty += n;
}

/* ---- decay ---- */

static bool take_stale_whole(struct seg *seg, uint32_t *ret_unit, uint32_t *ret_n)
{
    if (!seg->span_stale || seg->span_units != 0)
        return false;
    *ret_unit = seg->shape.n_meta;
    *ret_n = seg->n_dirty;
    seg->span_units = seg->n_dirty;
    seg->n_dirty = 0;
    seg->span_stale = false;
    return true;
}

bool seg_take_stale(struct seg *seg, uint32_t max_units, uint32_t *ret_unit, uint32_t *ret_n)
{
    uint32_t n = 0;
    if (!seg->buddy)
        return take_stale_whole(seg, ret_unit, ret_n);
    for (uint32_t w = 0; seg->n_dirty > 0 && w <= BITS_WORD(seg->shape.n_units); w++) {
        if (seg->stale[w] == 0)
            continue;
        uint32_t unit = w * 64 + (uint32_t)__builtin_ctzll(seg->stale[w]);
        while (n < max_units && unit + n < seg->shape.n_units &&
               (seg->stale[BITS_WORD(unit + n)] & BITS_MASK(unit + n)))
            n++;
        bool taken = buddy_take_at(seg->buddy, unit, n); /* bits are kept for free units only */
        acre_assert(taken);
        clear_dirty(seg, unit, n);
        *ret_unit = unit;
        *ret_n = n;
        return true;
    }
    return false;
}

void seg_give_clean(struct seg *seg, uint32_t unit, uint32_t n)
{
    if (seg->buddy)
        buddy_give(seg->buddy, unit, n);
    else
        seg->span_units = 0;
}

void seg_mark_stale(struct seg *seg)
{
    if (seg->n_dirty == 0)
        return;
    if (seg->buddy)
        memcpy(seg->stale, seg->dirty, (BITS_WORD(seg->shape.n_units) + 1) * sizeof(*seg->stale));
    else
        seg->span_stale = true;
}

/* ---- tables ---- */

static uint64_t *entry_at(const struct seg *seg, uint32_t unit)
{
    acre_assert(unit < seg->shape.n_table);
    return segment_entries(seg->base, &seg->shape) + unit;
}

uint64_t seg_entry(const struct seg *seg, uint32_t unit)
{
    return __atomic_load_n(entry_at(seg, unit), __ATOMIC_ACQUIRE);
}

void seg_store_plain(struct seg *seg, uint32_t unit, uint32_t n, enum unit_state state,
                     uint32_t holder)
{
    uint64_t entry = unit_entry_plain(state, holder);
    n = MIN(n, seg->shape.n_table - unit); /* over several slots: the head alone */
    for (uint32_t u = unit; u < unit + n; u++)
        __atomic_store_n(entry_at(seg, u), entry, __ATOMIC_RELEASE);
}

void seg_store_slab(struct seg *seg, uint32_t unit, unsigned geo, enum unit_state state,
                    uint32_t holder)
{
    uint32_t n = 1u << geo_infos[geo].order;
    for (uint32_t i = 0; i < n; i++)
        __atomic_store_n(entry_at(seg, unit + i), unit_entry_slab(state, geo, i, holder),
                         __ATOMIC_RELEASE);
}

void seg_store_large(struct seg *seg, uint32_t unit, uint32_t n, tag_t holder_id)
{
    if (n > 1)
        seg_store_plain(seg, unit + 1, n - 1, U_CUT, holder_token(holder_id, 0));
    __atomic_store_n(entry_at(seg, unit), unit_entry_large(n, holder_id), __ATOMIC_RELEASE);
}

bool seg_cas_entry(struct seg *seg, uint32_t unit, uint64_t expected, uint64_t desired)
{
    return __atomic_compare_exchange_n(entry_at(seg, unit), &expected, desired, false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

tag_t seg_large_tag(const struct seg *seg, uint32_t unit, uint64_t entry)
{
    acre_assert(unit < seg->shape.n_table);
    if (unit_entry_geo(entry) & LARGE_KEPT)
        return TAG_FREE;
    return __atomic_load_n(segment_tags(seg->base, &seg->shape) + unit, __ATOMIC_ACQUIRE);
}

uint8_t seg_take_hint(struct seg *seg, uint32_t unit)
{
    acre_assert(unit < seg->shape.n_table);
    uint8_t *hint = segment_hints(seg->base, &seg->shape) + unit;
    if (__atomic_load_n(hint, __ATOMIC_RELAXED) == 0)
        return 0;
    /* Clear, fence, scan: pairs with the freer, who stores the 0 first and the hint then. */
    __atomic_store_n(hint, 0, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return 1;
}

int seg_read_tags(const struct seg *seg, uint32_t unit, unsigned geo, tag_t *tags,
                  uint32_t *ret_n_live)
{
    size_t n_bytes = geo_infos[geo].n_blocks * sizeof(tag_t);
    uint32_t n_live = 0;
    acre_assert(n_bytes > 0 && seg->n_slots == 1);
    if (pread(seg->fd, tags, n_bytes, (off_t)unit << UNIT_SHIFT) != (ssize_t)n_bytes)
        return -EIO;
    for (uint32_t i = 0; i < geo_infos[geo].n_blocks; i++)
        n_live += tags[i] != TAG_FREE;
    *ret_n_live = n_live;
    return 0;
}

void seg_assert_valid(const struct seg *seg)
{
    uint32_t n_dirty = 0;
    if (!seg->buddy)
        return;
    buddy_assert_valid(seg->buddy);
    for (uint32_t u = 0; u < seg->shape.n_units; u++) {
        bool dirty = seg->dirty[BITS_WORD(u)] & BITS_MASK(u);
        n_dirty += dirty;
        acre_assert(dirty || !(seg->stale[BITS_WORD(u)] & BITS_MASK(u)));
    }
    if (n_dirty != seg->n_dirty)
        fprintf(stderr, "segment %u: %u dirty bits, counted %u\n", seg->slot, n_dirty,
                seg->n_dirty);
    acre_assert(n_dirty == seg->n_dirty);
}
