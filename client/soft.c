/* SPDX-License-Identifier: Apache-2.0 */
/*
 * soft.c - blocks that the daemon may take back, and pins, by which it knows that it may not.
 *
 * MODEL. A soft block is a large block whose entry says LARGE_SOFT. It is named by the unit at
 * which it begins and a generation that counts the soft blocks that have begun there. Who uses it
 * has it *pinned*: its unit stands in a line of the process's life page, where the daemon reads
 * it.
 *
 *   pin     line = unit (1) -> the entry says SOFT (2) -> tag not 0 (3), the same generation.
 *           Else line = 0, and the block is gone.
 *   take    by the daemon: entry SOFT -> TAKING (CAS) -> reads all lines -> entry U_FREE, or back
 *           to SOFT, by CAS.
 *   free    tag = 0 (the commit) -> line = 0; the daemon is told, for many at a time, reads all
 *           lines, and then entry U_FREE.
 *
 * WHY A PIN HOLDS. (1), (2), (3), the daemon's CAS and the tag's 0 are sequentially consistent: so
 * either the daemon reads the line, or the pin reads TAKING, or the 0. Who finds TAKING takes the
 * mark away, and the daemon's second CAS fails: nobody waits for the other. While the line stands
 * the block's units are nobody else's, whatever becomes of its owner, so their segment stays
 * mapped. The generation says that it is still the same block: it counts on before the entry says
 * SOFT.
 *
 * BIRTH. Units U_CUT -> generation counts on -> line -> tag = owner -> entry = LARGE_SOFT (the
 * commit). So it is born pinned. The first generation of a unit begins anywhere: the unit may have
 * been another segment's, whose blocks somebody still has names of.
 *
 * A KILL frees all the lines: a dead client's do not count. Freed, and the daemon not told: it
 * finds the block when it looks for memory (tag 0). Before the commit: U_CUT units of a dead
 * client.
 *
 * COST. Pin: one CAS in a line of the process's own, the entry, the tag, the generation, a clock of
 * the kernel's page; unpin: one store. A free costs a NOTES_MAXth of a request.
 */
#include <string.h>
#include <time.h>

#include "client/block.h"

#define NOTES_MAX  32u
#define NOTE_UNITS 128u /* 1 MiB: then they are worth telling at once */
#define PIN_TAKEN  UINT32_MAX

/* ---- what stands beside a block ---- */

static struct soft_unit *soft_at(const struct acre_heap *heap, uint32_t unit)
{
    unsigned slot = unit / SLOT_UNITS;
    uint64_t tables = atomic_load_explicit(&heap->slot_tables[slot], memory_order_relaxed);
    char *base = heap->base + ((uint64_t)slot << SLOT_SHIFT);

    return (struct soft_unit *)(void *)(base + segment_soft_off((uint32_t)(tables >> 32),
                                                                slot_n_table(tables))) +
           unit % SLOT_UNITS;
}

static uint32_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint32_t)((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
}

static void used_now(struct soft_unit *soft)
{
    uint32_t ms = now_ms();

    if (__atomic_load_n(&soft->used_ms, __ATOMIC_RELAXED) != ms)
        __atomic_store_n(&soft->used_ms, ms, __ATOMIC_RELAXED);
}

/* Never 0. */
static uint32_t next_gen(uint32_t gen)
{
    struct timespec now;

    if (gen == 0) {
        (void)clock_gettime(CLOCK_REALTIME, &now);
        gen = (uint32_t)(((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec) *
                             0x9e3779b97f4a7c15u >>
                         32);
    }
    return gen + 1 == 0 ? 1 : gen + 1;
}

/* ---- lines ---- */

static uint32_t first_line(void)
{
    return (uint32_t)((uintptr_t)&tls_last >> 12) * 16 % PINS;
}

/* NULL: all are used. */
static uint32_t *line_claim(const struct acre_heap *heap, uint32_t unit)
{
    uint32_t *pins = heap->process->life->pins, i = first_line();

    for (uint32_t n = 0; n < PINS; n++, i = i + 1 == PINS ? 0 : i + 1) {
        uint32_t none = 0;
        if (__atomic_load_n(&pins[i], __ATOMIC_RELAXED) == 0 &&
            __atomic_compare_exchange_n(&pins[i], &none, unit, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_RELAXED))
            return &pins[i];
    }
    return NULL;
}

static void line_drop(uint32_t *line)
{
    __atomic_store_n(line, 0, __ATOMIC_RELEASE);
}

/* One that says unit, of whichever thread; NULL: none does. */
static uint32_t *line_find(const struct acre_heap *heap, uint32_t unit)
{
    uint32_t *pins = heap->process->life->pins, i = first_line();

    for (uint32_t n = 0; n < PINS; n++, i = i + 1 == PINS ? 0 : i + 1)
        if (__atomic_load_n(&pins[i], __ATOMIC_RELAXED) == unit)
            return &pins[i];
    return NULL;
}

static bool line_drop_one(const struct acre_heap *heap, uint32_t unit)
{
    uint32_t *line, is;

    do {
        line = line_find(heap, unit);
        is = unit;
    } while (line &&
             !__atomic_compare_exchange_n(line, &is, 0, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
    return line != NULL;
}

/* One that was claimed for unit: another thread may have dropped just that for its own, and a third
 * have it now. */
static void line_undo(const struct acre_heap *heap, uint32_t *line, uint32_t unit)
{
    uint32_t is = unit;

    if (!__atomic_compare_exchange_n(line, &is, 0, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        (void)line_drop_one(heap, unit);
}

static int no_line(void)
{
    return fail(EAGAIN, "this process has %u soft blocks pinned already", PINS);
}

/* The daemon reads this process's lines from now on. */
static int soft_ensure(struct acre_heap *heap)
{
    struct msg_request req = {.op = MSG_SOFT};
    struct msg_reply reply;
    struct process *p = heap->process;

    if (heap->is_read_only)
        return fail_read_only(heap);
    int r = attach_ensure(heap);
    if (r < 0 || atomic_load_explicit(&p->is_pinning, memory_order_acquire))
        return r;
    r = heap_call(heap, &req, &reply);
    if (r == 0)
        atomic_store_explicit(&p->is_pinning, true, memory_order_release);
    return r;
}

/* ---- alloc ---- */

static void *soft_commit(struct acre_heap *heap, struct kept run, uint32_t *line, tag_t owner)
{
    struct soft_unit *soft = soft_at(heap, run.unit);
    uint64_t entry = unit_entry_large(run.n_units, self_id(heap)) | LARGE_SOFT;

    __atomic_store_n(&soft->gen, next_gen(soft->gen), __ATOMIC_RELAXED);
    used_now(soft);
    __atomic_store_n(line, run.unit, __ATOMIC_SEQ_CST);
    atomic_store_explicit(heap_large_tag(heap, run.unit), owner, memory_order_relaxed);
    atomic_store_explicit(heap_entry(heap, run.unit), entry, memory_order_release);
    return heap->base + ((uint64_t)run.unit << UNIT_SHIFT);
}

void *soft_alloc(struct acre_heap *heap, size_t size, size_t align, bool heap_owned)
{
    struct kept run;
    int saved_errno = errno, r = soft_ensure(heap);
    uint32_t *line = r == 0 ? line_claim(heap, PIN_TAKEN) : NULL;

    if (r == 0)
        r = line ? large_units(heap, size, align, POOL_SOFT, &run) : no_line();
    if (r < 0) {
        if (line)
            line_drop(line);
        errno = -r;
        return NULL;
    }
    errno = saved_errno;
    return soft_commit(heap, run, line, heap_owned ? TAG_HEAP : self_id(heap));
}

/* ---- free ---- */

/* Should it fail, the daemon finds them by itself. */
void soft_tell_freed(struct acre_heap *heap)
{
    struct process *p = heap->process;
    struct msg_request req = {.op = MSG_SOFT};
    struct msg_reply reply;

    pthread_mutex_lock(&p->pool_lock);
    req.soft.n = p->n_freed_soft;
    memcpy(req.soft.offs, p->freed_soft, p->n_freed_soft * sizeof(p->freed_soft[0]));
    p->n_freed_soft = p->freed_soft_units = 0;
    pthread_mutex_unlock(&p->pool_lock);
    if (req.soft.n > 0)
        (void)heap_call(heap, &req, &reply);
}

static void note_freed(struct acre_heap *heap, const struct block *b)
{
    struct process *p = heap->process;

    pthread_mutex_lock(&p->pool_lock);
    if (p->n_freed_soft < ARRAY_LEN(p->freed_soft)) {
        p->freed_soft[p->n_freed_soft++] = b->off;
        p->freed_soft_units += b->n_units;
    }
    bool is_enough = p->n_freed_soft >= NOTES_MAX || p->freed_soft_units >= NOTE_UNITS;
    pthread_mutex_unlock(&p->pool_lock);
    if (is_enough)
        soft_tell_freed(heap);
}

void soft_free(struct acre_heap *heap, const struct block *b)
{
    uint32_t unit = (uint32_t)(b->off >> UNIT_SHIFT);
    uint32_t *line = self_id(heap) == 0 ? NULL : line_find(heap, unit);

    if (!line) { /* it may be gone, and another be there */
        misuse_report(heap, "acre_free", ACRE_MISUSE_NOT_PINNED, heap->base + b->off);
        return;
    }
    atomic_store(b->tag, TAG_FREE);
    (void)line_drop_one(heap, unit);
    note_freed(heap, b);
}

/* ---- pin ---- */

/* The line stands. Is the block there? */
static bool is_there(const struct acre_heap *heap, uint32_t unit, uint32_t gen)
{
    _Atomic uint64_t *at = heap_entry(heap, unit);
    uint64_t entry = atomic_load(at);

    while (unit_entry_is_soft(entry) && (entry & LARGE_TAKING))
        if (atomic_compare_exchange_strong(at, &entry, entry & ~LARGE_TAKING))
            entry &= ~LARGE_TAKING;
    return unit_entry_is_soft(entry) && atomic_load(heap_large_tag(heap, unit)) != TAG_FREE &&
           __atomic_load_n(&soft_at(heap, unit)->gen, __ATOMIC_RELAXED) == gen;
}

static int gone(acre_soft soft)
{
    return fail(ESTALE, "the soft block 0x%llx is gone", (unsigned long long)soft);
}

static int pin(struct acre_heap *heap, acre_soft soft)
{
    uint32_t unit = (uint32_t)soft, gen = (uint32_t)(soft >> 32);

    if (unit == 0 || unit >= HEAP_UNITS || gen == 0)
        return fail(EINVAL, "0x%llx names no soft block", (unsigned long long)soft);
    int r = soft_ensure(heap);
    if (r == 0 && atomic_load(&heap->slot_bytes[unit / SLOT_UNITS]) == 0)
        r = map_slot(heap, unit / SLOT_UNITS);
    if (r < 0)
        return r == -ENOENT ? gone(soft) : r; /* its segment, too */
    uint32_t *line = line_claim(heap, unit);
    if (!line)
        return no_line();
    if (is_there(heap, unit, gen)) {
        used_now(soft_at(heap, unit));
        return 0;
    }
    line_undo(heap, line, unit);
    return gone(soft);
}

void *acre_pin(struct acre_heap *heap, acre_soft soft)
{
    int saved_errno = errno, r = pin(heap, soft);

    errno = r < 0 ? -r : saved_errno;
    return r < 0 ? NULL : heap->base + ((uint64_t)(uint32_t)soft << UNIT_SHIFT);
}

void acre_unpin(struct acre_heap *heap, const void *block)
{
    uint64_t off = (uint64_t)((uintptr_t)block - (uintptr_t)heap->base);

    if (!block)
        return;
    if (off >= HEAP_BYTES || off % UNIT_BYTES != 0 || self_id(heap) == 0 ||
        !line_drop_one(heap, (uint32_t)(off >> UNIT_SHIFT)))
        misuse_report(heap, "acre_unpin", ACRE_MISUSE_NOT_PINNED, block);
}

acre_soft acre_soft_of(struct acre_heap *heap, const void *block)
{
    struct block b = block_find(heap, block);
    uint32_t unit = (uint32_t)(b.off >> UNIT_SHIFT);

    if (b.fault || !unit_entry_is_soft(b.entry)) {
        errno = -fail(EINVAL, "%p is no soft block", block);
        return 0;
    }
    return (uint64_t)__atomic_load_n(&soft_at(heap, unit)->gen, __ATOMIC_RELAXED) << 32 | unit;
}
