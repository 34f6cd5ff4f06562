/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A segment in the daemon. Its free units are in the buddy allocator (private memory, derived from
 * the books). A free unit is *dirty* when pages may lie behind it: it was granted once, or
 * prepared, until decay.c punches them out. It is *warm* when all its pages are known to be there:
 * prepared (prepare.c) and never granted since. Both are kept for free units only: granting clears
 * them.
 *
 *   clean --prepare--> dirty+warm --grant--> (granted) --give--> dirty --tick--> dirty+stale
 *   dirty+stale, dirty+warm+stale --tick--> (out of the buddy, punched) --> clean
 *
 * Punching and preparing never touch the same unit: what is punched is out of the buddy, so that
 * nothing there is chosen for preparing; what is being prepared is *busy* and never becomes stale,
 * even if it was granted and freed meanwhile.
 *
 * The whole file is mapped, since a sweep changes owner tags by compare-and-swap; but only the
 * tables and tags that a copy has shown to be there are ever touched: a read of a punched page
 * would bring it back.
 */
#include "daemon/seg.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "shm/sizeclass.h"

#define BITS_WORD(u)      ((u) >> 6)
#define BITS_MASK(u)      (1ull << ((u)&63u))
#define HUGE_WORDS        4u /* of bits, for the 256 units of a huge page */
/* A larger run, aligned to itself, would leave as much again that is of no use. */
#define ALIGNED_UNITS_MAX 512u

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
    size_t n_words = round_up_u64(BITS_WORD(s->n_units) + 1, HUGE_WORDS);
    seg->dirty = calloc(5 * n_words, sizeof(*seg->dirty));
    if (!seg->dirty)
        return -ENOMEM;
    seg->stale = seg->dirty + n_words;
    seg->warm = seg->stale + n_words;
    seg->busy = seg->warm + n_words;
    seg->heads = seg->busy + n_words;
    return buddy_new(&seg->buddy, s->n_units);
}

static struct seg *seg_alloc(uint32_t slot, uint64_t n_units)
{
    struct seg *seg = calloc(1, sizeof(*seg));
    if (!seg)
        return NULL;
    seg->slot = slot;
    seg->n_slots = (uint32_t)((n_units + SLOT_UNITS - 1) / SLOT_UNITS);
    seg->fd = seg->client_fd = -1;
    seg->page_units = 1;
    seg->unfit_units = UINT32_MAX;
    return seg;
}

/* fd and shape are there. */
static int seg_prepare(struct seg *seg)
{
    int r = seg_reopen(seg->fd, &seg->client_fd);
    if (r == 0)
        r = map_tables(seg);
    return r == 0 ? make_buddy(seg) : r;
}

int seg_new(struct seg **ret_seg, const char *name, uint32_t slot, uint64_t heap_id,
            uint32_t n_units)
{
    struct seg *seg = seg_alloc(slot, n_units);
    if (!seg)
        return -ENOMEM;
    int r = segment_create(name, slot, heap_id, n_units, &seg->fd, &seg->shape);
    if (r == 0)
        r = seg_prepare(seg);
    if (r < 0) {
        seg_free(seg, NULL);
        return r;
    }
    if (seg->buddy)
        buddy_give(seg->buddy, seg->shape.n_meta, seg_usable(seg));
    *ret_seg = seg;
    return 0;
}

/* The header is not asked: clients can write it, and the size says all that it says. */
int seg_restore(struct seg **ret_seg, int fd, uint32_t slot, uint64_t size_bytes)
{
    int sealed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    struct stat st;
    if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != size_bytes ||
        (fcntl(fd, F_GET_SEALS) & sealed) != sealed)
        return -EPROTO;
    struct seg *seg = seg_alloc(slot, size_bytes / UNIT_BYTES);
    if (!seg)
        return -ENOMEM;
    seg->shape = segment_shape((uint32_t)(size_bytes / UNIT_BYTES));
    seg->fd = fd;
    int r = seg_prepare(seg);
    if (r < 0) {
        seg_free(seg, &fd);
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
    free(seg->orphans);
    free(seg->dirty); /* and the others with it */
    free(seg);
}

uint32_t seg_n_free(const struct seg *seg)
{
    if (seg->buddy)
        return buddy_n_free(seg->buddy);
    return seg->span_units == 0 ? seg_usable(seg) : 0;
}

/* ---- bits ---- */

/* Those of [unit, unit + n) that lie in word w. */
static uint64_t bits_in(uint32_t w, uint32_t unit, uint32_t n)
{
    uint32_t last = unit + n - 1;
    uint64_t bits = ~0ull;
    if (w == BITS_WORD(unit))
        bits &= ~0ull << (unit & 63);
    if (w == BITS_WORD(last))
        bits &= ~0ull >> (63 - (last & 63));
    return bits;
}

void seg_set_head(struct seg *seg, uint32_t unit, bool is_head)
{
    if (!seg->buddy)
        return;
    if (is_head)
        seg->heads[BITS_WORD(unit)] |= BITS_MASK(unit);
    else
        seg->heads[BITS_WORD(unit)] &= ~BITS_MASK(unit);
}

bool seg_is_headed(const struct seg *seg, uint32_t unit, uint32_t n)
{
    if (!seg->buddy)
        return true;
    for (uint32_t w = BITS_WORD(unit); w <= BITS_WORD(unit + n - 1); w++) {
        uint64_t heads = seg->heads[w] & bits_in(w, unit, n);
        if (heads != (w == BITS_WORD(unit) ? BITS_MASK(unit) : 0))
            return false;
    }
    return true;
}

static uint32_t n_bits(uint64_t word)
{
    return (uint32_t)__builtin_popcountll(word);
}

static void clear_bits(struct seg *seg, uint32_t unit, uint32_t n)
{
    if (seg->n_dirty == 0)
        return;
    for (uint32_t w = BITS_WORD(unit); w <= BITS_WORD(unit + n - 1); w++) {
        uint64_t bits = bits_in(w, unit, n);
        seg->n_dirty -= n_bits(seg->dirty[w] & bits);
        seg->n_warm -= n_bits(seg->warm[w] & bits);
        seg->dirty[w] &= ~bits;
        seg->stale[w] &= ~bits;
        seg->warm[w] &= ~bits;
    }
}

static void set_dirty(struct seg *seg, uint32_t unit, uint32_t n)
{
    for (uint32_t w = BITS_WORD(unit); w <= BITS_WORD(unit + n - 1); w++) {
        uint64_t bits = bits_in(w, unit, n);
        seg->n_dirty += n_bits(~seg->dirty[w] & bits);
        seg->dirty[w] |= bits;
    }
}

static bool all_warm(const struct seg *seg, uint32_t unit, uint32_t n)
{
    for (uint32_t w = BITS_WORD(unit); seg->n_warm > 0 && w <= BITS_WORD(unit + n - 1); w++)
        if (bits_in(w, unit, n) & ~seg->warm[w])
            return false;
    return seg->n_warm > 0;
}

/* ---- taking and giving ---- */

uint32_t seg_hold_span(struct seg *seg, unsigned order)
{
    return seg->buddy ? buddy_take(seg->buddy, order) : BUDDY_NONE;
}

/* The one block of a segment over several slots. */
static uint32_t hold_whole(struct seg *seg, uint32_t n, unsigned align_order)
{
    if (seg->span_units != 0 || n > seg_usable(seg) || align_order > 0 || n <= SLOT_UNITS / 2)
        return BUDDY_NONE;
    seg->span_units = n;
    return seg->shape.n_meta;
}

/* The lowest that fits: buddy_take_run() would want the next power of two, aligned to itself. A
 * full heap has many segments that are asked in vain again and again: they remember. */
static uint32_t hold_first_fit(struct seg *seg, uint32_t n, unsigned align_order)
{
    uint32_t unit = n < seg->unfit_units ? buddy_find_run(seg->buddy, n, align_order) : BUDDY_NONE;
    if (unit == BUDDY_NONE && align_order == 0)
        seg->unfit_units = MIN(seg->unfit_units, n);
    if (unit != BUDDY_NONE) {
        bool taken = buddy_take_at(seg->buddy, unit, n);
        acre_assert(taken);
    }
    return unit;
}

uint32_t seg_hold_run(struct seg *seg, uint32_t n, unsigned align_order)
{
    uint32_t unit = BUDDY_NONE;
    if (!seg->buddy)
        return hold_whole(seg, n, align_order);
    if (n > buddy_n_free(seg->buddy))
        return BUDDY_NONE;
    if (is_pow2_u64(n) && n <= ALIGNED_UNITS_MAX && log2_ceil_u64(n) >= align_order)
        unit = buddy_take(seg->buddy, log2_ceil_u64(n));
    return unit != BUDDY_NONE ? unit : hold_first_fit(seg, n, align_order);
}

bool seg_commit(struct seg *seg, uint32_t unit, uint32_t n)
{
    if (!seg->buddy) {
        seg->n_dirty = 0;
        seg->span_stale = false;
        return false;
    }
    bool was_warm = all_warm(seg, unit, n);
    clear_bits(seg, unit, n);
    return was_warm;
}

void seg_let_go(struct seg *seg, uint32_t unit, uint32_t n)
{
    if (seg->buddy)
        buddy_give(seg->buddy, unit, n);
    else
        seg->span_units = 0;
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
    seg->unfit_units = UINT32_MAX;
    set_dirty(seg, unit, n);
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

static bool is_stale_page(const struct seg *seg, uint32_t unit)
{
    uint32_t end = MIN(unit + seg->page_units, seg->shape.n_units);
    unit = MAX(unit, seg->shape.n_meta);
    for (uint32_t w = BITS_WORD(unit); unit < end && w <= BITS_WORD(end - 1); w++)
        if (bits_in(w, unit, end - unit) & ~seg->stale[w])
            return false;
    return unit < end;
}

/* The first page whose units are all stale; n_units: none. */
static uint32_t first_stale_page(const struct seg *seg)
{
    uint32_t n = seg->shape.n_units, unit = 0;
    while (unit < n && !is_stale_page(seg, unit)) {
        if (seg->page_units == 1 && seg->stale[BITS_WORD(unit)] == 0)
            unit = (BITS_WORD(unit) + 1) * 64;
        else
            unit += seg->page_units;
    }
    return MIN(unit, n);
}

bool seg_take_stale(struct seg *seg, uint32_t max_units, uint32_t *ret_unit, uint32_t *ret_n)
{
    if (!seg->buddy)
        return take_stale_whole(seg, ret_unit, ret_n);
    uint32_t unit = seg->n_dirty > 0 ? first_stale_page(seg) : seg->shape.n_units, n = 0;
    while (n + seg->page_units <= max_units && unit + n < seg->shape.n_units &&
           is_stale_page(seg, unit + n))
        n += seg->page_units;
    if (n == 0)
        return false;
    n = MIN(unit + n, seg->shape.n_units) - MAX(unit, seg->shape.n_meta);
    unit = MAX(unit, seg->shape.n_meta);
    bool taken = buddy_take_at(seg->buddy, unit, n); /* bits are kept for free units only */
    acre_assert(taken);
    clear_bits(seg, unit, n);
    *ret_unit = unit;
    *ret_n = n;
    return true;
}

void seg_give_clean(struct seg *seg, uint32_t unit, uint32_t n)
{
    seg_let_go(seg, unit, n);
    seg->unfit_units = UINT32_MAX;
}

/* A huge page of free units goes as a whole, also where some of these are clean; of one that the
 * tables or the end of the file cut, what is there. */
static void mark_huge_page(struct seg *seg, uint32_t w)
{
    uint32_t unit = MAX(w * 64, seg->shape.n_meta), first, len;
    uint32_t end = MIN((w + HUGE_WORDS) * 64, seg->shape.n_units);
    uint64_t any_dirty = 0, any_busy = 0;
    for (uint32_t i = w; i < w + HUGE_WORDS; i++) {
        any_dirty |= seg->dirty[i];
        any_busy |= seg->busy[i];
        seg->stale[i] = 0;
    }
    if (any_dirty == 0 || any_busy != 0 || !buddy_next_free_run(seg->buddy, unit, &first, &len) ||
        first != unit || len < end - unit)
        return;
    set_dirty(seg, unit, end - unit);
    for (uint32_t i = BITS_WORD(unit); i <= BITS_WORD(end - 1); i++)
        seg->stale[i] = bits_in(i, unit, end - unit);
}

void seg_mark_stale(struct seg *seg)
{
    if (seg->n_dirty == 0)
        return;
    if (!seg->buddy) {
        seg->span_stale = true;
        return;
    }
    for (uint32_t w = 0; w <= BITS_WORD(seg->shape.n_units); w++) {
        if (seg->page_units == 1)
            seg->stale[w] = seg->dirty[w] & ~seg->busy[w];
        else if (w % HUGE_WORDS == 0)
            mark_huge_page(seg, w);
    }
}

void seg_unmark_stale(struct seg *seg, uint32_t unit, uint32_t n)
{
    for (uint32_t w = BITS_WORD(unit); w <= BITS_WORD(unit + n - 1); w++)
        seg->stale[w] &= ~bits_in(w, unit, n);
}

/* ---- preparing ---- */

static uint64_t cold_word(const struct seg *seg, uint32_t w, bool dirty)
{
    return (dirty ? seg->dirty[w] & ~seg->warm[w] : ~seg->dirty[w]) & ~seg->busy[w];
}

bool seg_find_cold(const struct seg *seg, uint32_t unit, uint32_t n, bool dirty, uint32_t *ret_unit,
                   uint32_t *ret_n)
{
    uint32_t end = unit + n, last;
    while (unit < end && !(cold_word(seg, BITS_WORD(unit), dirty) & BITS_MASK(unit)))
        unit = cold_word(seg, BITS_WORD(unit), dirty) == 0 ? (BITS_WORD(unit) + 1) * 64 : unit + 1;
    for (last = unit; last < end && (cold_word(seg, BITS_WORD(last), dirty) & BITS_MASK(last));)
        last++;
    if (unit >= end)
        return false;
    *ret_unit = unit;
    *ret_n = last - unit;
    return true;
}

void seg_begin_warming(struct seg *seg, uint32_t unit, uint32_t n)
{
    for (uint32_t w = BITS_WORD(unit); w <= BITS_WORD(unit + n - 1); w++)
        seg->busy[w] |= bits_in(w, unit, n);
    seg_unmark_stale(seg, unit, n);
}

static void set_warm(struct seg *seg, uint32_t unit, uint32_t n)
{
    for (uint32_t w = BITS_WORD(unit); w <= BITS_WORD(unit + n - 1); w++) {
        uint64_t bits = bits_in(w, unit, n);
        seg->n_warm += n_bits(~seg->warm[w] & bits);
        seg->warm[w] |= bits;
    }
}

void seg_end_warming(struct seg *seg, uint32_t unit, uint32_t n, bool is_warm)
{
    uint32_t first, len, end = unit + n;
    for (uint32_t w = BITS_WORD(unit); w <= BITS_WORD(end - 1); w++)
        seg->busy[w] &= ~bits_in(w, unit, n);
    while (unit < end && buddy_next_free_run(seg->buddy, unit, &first, &len) && first < end) {
        len = MIN(len, end - first);
        set_dirty(seg, first, len);
        if (is_warm)
            set_warm(seg, first, len);
        unit = first + len;
    }
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

void seg_store_large(struct seg *seg, uint32_t unit, uint32_t n, uint64_t flags, tag_t holder_id)
{
    if (n > 1)
        seg_store_plain(seg, unit + 1, n - 1, U_CUT, holder_token(holder_id, 0));
    __atomic_store_n(entry_at(seg, unit), unit_entry_large(n, holder_id) | flags, __ATOMIC_RELEASE);
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

void seg_set_hint(struct seg *seg, uint32_t unit)
{
    acre_assert(unit < seg->shape.n_table);
    __atomic_store_n(segment_hints(seg->base, &seg->shape) + unit, 1, __ATOMIC_RELEASE);
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
    uint32_t n_dirty = 0, n_warm = 0;
    if (!seg->buddy)
        return;
    buddy_assert_valid(seg->buddy);
    acre_assert(seg->unfit_units > seg->shape.n_units ||
                buddy_find_run(seg->buddy, seg->unfit_units, 0) == BUDDY_NONE);
    for (uint32_t u = 0; u < seg->shape.n_units; u++) {
        bool is_dirty = seg->dirty[BITS_WORD(u)] & BITS_MASK(u);
        bool is_warm = seg->warm[BITS_WORD(u)] & BITS_MASK(u);
        bool is_stale = seg->stale[BITS_WORD(u)] & BITS_MASK(u);
        n_dirty += is_dirty;
        n_warm += is_warm;
        acre_assert(!is_dirty || buddy_is_free(seg->buddy, u));
        acre_assert(is_dirty || (!is_warm && !is_stale));
        acre_assert(!is_stale || !(seg->busy[BITS_WORD(u)] & BITS_MASK(u)));
    }
    if (n_dirty != seg->n_dirty || n_warm != seg->n_warm)
        fprintf(stderr, "segment %u: %u dirty and %u warm bits, counted %u and %u\n", seg->slot,
                n_dirty, n_warm, seg->n_dirty, seg->n_warm);
    acre_assert(n_dirty == seg->n_dirty && n_warm == seg->n_warm);
}
