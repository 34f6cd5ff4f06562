/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slab.c - a slab comes, is looked at, and goes.
 *
 * INVARIANTS. A slab's map is zero before its entries say U_SLAB (release): whoever finds a block
 * through the entry finds a valid tag. An empty slab stays empty: only its holder allocates.
 *
 * GIVING BACK. A sweep (daemon) compares-and-swaps a dead id to 0 in maps of U_SLAB units:
 * reformatting under it would expose user data to it. So: entry = U_RELEASING, fence, look at
 * sweep_seq; odd: put U_SLAB back and keep the slab. The sweeper: sweep_seq odd, fence, read
 * entries. One of the two sees the other (Dekker).
 *
 * PUNCHING. The pages under free blocks alone may go at any time: nobody but the holder makes a
 * block of them again, and that writes before it reads.
 *
 * A KILL anywhere: entries of a dead client are judged by the daemon from the map alone: any tag
 * left, the slab is parked, else its units are free. U_CUT without a map is free.
 */
#include "client/slab.h"

#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_THREAD__)
#define SCAN_BY_TAG 1
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#else
#define SCAN_BY_TAG 1
#endif

/* ---- a window of tags as a mask: bit i set if tag i is 0, for the first n of them ---- */

#if defined(SCAN_BY_TAG)
static uint64_t window_scan(const _Atomic tag_t *tags, uint32_t n)
{
    uint64_t mask = 0;

    for (unsigned i = 0; i < MIN(n, WINDOW); i++)
        mask |= (uint64_t)(atomic_load_explicit(&tags[i], memory_order_acquire) == 0) << i;
    return mask;
}
#else
#if defined(__SSE2__)
static uint64_t scan16(const tag_t *tags)
{
    const __m128i *v = (const __m128i *)(const void *)tags;
    __m128i zero = _mm_setzero_si128();
    __m128i lo = _mm_cmpeq_epi16(_mm_load_si128(v), zero);
    __m128i hi = _mm_cmpeq_epi16(_mm_load_si128(v + 1), zero);
    return (uint64_t)(unsigned)_mm_movemask_epi8(_mm_packs_epi16(lo, hi));
}
#else
/* A vector's elements are loaded each as a whole, as single tags are. */
static uint64_t scan16(const tag_t *tags)
{
    static const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x8_t lo = vmovn_u16(vceqzq_u16(vld1q_u16(tags)));
    uint8x8_t hi = vmovn_u16(vceqzq_u16(vld1q_u16(tags + 8)));
    uint8x16_t set = vandq_u8(vcombine_u8(lo, hi), vld1q_u8(bits));
    return vaddv_u8(vget_low_u8(set)) | (uint64_t)vaddv_u8(vget_high_u8(set)) << 8;
}
#endif

/* Also looks at what lies behind the map, other threads' bytes maybe, and forgets it. */
static uint64_t window_scan(const _Atomic tag_t *tags, uint32_t n)
{
    const tag_t *t = (const tag_t *)(const void *)tags;
    uint64_t mask = scan16(t) | scan16(t + 16) << 16 | scan16(t + 32) << 32 | scan16(t + 48) << 48;
    atomic_thread_fence(memory_order_acquire);
    return n >= WINDOW ? mask : mask & ((1ull << n) - 1);
}
#endif

uint64_t slab_scan(const struct slab *s, uint32_t idx)
{
    return window_scan(slab_tag(s, idx), slab_n_blocks(s) - idx);
}

static uint64_t window_valid(uint32_t idx, uint32_t n_blocks)
{
    return n_blocks - idx >= WINDOW ? UINT64_MAX : (1ull << (n_blocks - idx)) - 1;
}

bool slab_is_empty(const struct slab *s)
{
    uint32_t n = slab_n_blocks(s);

    for (uint32_t idx = 0; idx < n; idx += WINDOW)
        if (slab_scan(s, idx) != window_valid(idx, n))
            return false;
    return true;
}

void slab_clear_hint(struct slab *s)
{
    atomic_store_explicit(s->hint, 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
}

/* Whole pages inside [from, to). */
static void punch(char *from, char *to)
{
    from = (char *)round_up_u64((uintptr_t)from, PAGE_BYTES);
    to = (char *)((uintptr_t)to & ~(uintptr_t)(PAGE_BYTES - 1));
    if (from < to)
        (void)madvise(from, (size_t)(to - from), MADV_REMOVE); /* acre_trim() keeps errno */
}

void slab_punch_free(const struct slab *s)
{
    uint32_t n = slab_n_blocks(s), run = 0; /* blocks [run, idx + i) are free */

    for (uint32_t idx = 0; idx < n; idx += WINDOW) {
        for (uint64_t used = ~slab_scan(s, idx); used != 0; used &= used - 1) {
            uint32_t at = MIN(idx + (uint32_t)__builtin_ctzll(used), n);
            punch(slab_block(s, run), slab_block(s, at));
            run = at + 1;
            if (at == n)
                return;
        }
    }
    if (run < n)
        punch(slab_block(s, run), slab_block(s, n));
}

/* ---- slabs come and go ---- */

static struct slab *slab_record(struct acre_heap *heap, uint32_t unit, unsigned geo)
{
    struct process *p = heap->process;

    pthread_mutex_lock(&p->pool_lock);
    struct slab *s = p->spare_slabs;
    if (s)
        p->spare_slabs = s->next;
    else
        s = arena_take(heap, sizeof(*s), 16);
    pthread_mutex_unlock(&p->pool_lock);
    if (s)
        *s = (struct slab){.head = heap->base + ((uint64_t)unit << UNIT_SHIFT),
                           .entries = heap_entry(heap, unit),
                           .hint = heap_hint(heap, unit),
                           .geo = (uint8_t)geo};
    return s;
}

static void slab_forget(struct acre_heap *heap, struct slab *s)
{
    pthread_mutex_lock(&heap->process->pool_lock);
    s->next = heap->process->spare_slabs;
    heap->process->spare_slabs = s;
    pthread_mutex_unlock(&heap->process->pool_lock);
}

/* Entries of all the slab's units. Inside first, head last: a reader that believes the head finds
 * the rest. */
void slab_hold(struct slab *s, uint32_t token)
{
    for (unsigned i = 1u << geo_infos[s->geo].order; i-- > 0;)
        atomic_store_explicit(&s->entries[i], unit_entry_slab(U_SLAB, s->geo, i, token),
                              memory_order_release);
}

struct slab *slab_cut(struct acre_heap *heap, unsigned class_idx, unsigned order)
{
    uint32_t unit = pool_take(heap, order, POOL_HARD);

    if (unit == BUDDY_NONE)
        return NULL;
    struct slab *s = slab_record(heap, unit, geo_of(class_idx, order));
    if (!s) {
        pool_give(heap, unit, 1u << order);
        return NULL;
    }
    memset(s->head, 0, slab_n_blocks(s) * sizeof(tag_t));
    return s;
}

struct slab *slab_adopt(struct acre_heap *heap, unsigned class_idx, uint32_t unit, uint32_t token)
{
    uint64_t entry = atomic_load(heap_entry(heap, unit));
    unsigned geo = unit_entry_geo(entry);
    uint32_t handed_over = holder_token(self_id(heap), 0);

    if (entry != unit_entry_slab(U_PARKED, geo, 0, handed_over) || geo_infos[geo].n_blocks == 0 ||
        geo_infos[geo].class_idx != class_idx || unit % (1u << geo_infos[geo].order) != 0)
        return NULL;
    struct slab *s = slab_record(heap, unit, geo);
    /* Another thread's call may have broken meanwhile: then the daemon takes what nobody claims. */
    if (s && !atomic_compare_exchange_strong(heap_entry(heap, unit), &entry,
                                             unit_entry_slab(U_SLAB, geo, 0, token))) {
        slab_forget(heap, s);
        s = NULL;
    }
    return s;
}

bool slab_release(struct acre_heap *heap, struct slab *s, uint32_t token)
{
    uint32_t unit = (uint32_t)((uint64_t)(s->head - heap->base) >> UNIT_SHIFT);

    atomic_store(&s->entries[0], unit_entry_slab(U_RELEASING, s->geo, 0, token));
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the daemon's sweep */
    if (__atomic_load_n(&heap->control->header.sweep_seq, __ATOMIC_SEQ_CST) & 1) {
        atomic_store(&s->entries[0], unit_entry_slab(U_SLAB, s->geo, 0, token));
        return false;
    }
    pool_give(heap, unit, 1u << geo_infos[s->geo].order);
    slab_forget(heap, s);
    return true;
}
