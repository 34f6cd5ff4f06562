/* SPDX-License-Identifier: Apache-2.0 */
/*
 * retire.c - what the daemon wants back is given back, by whoever comes by on a slow path.
 *
 * MODEL. Two words of the control page, compared with what was seen last: one load each.
 *   pressure_seq   others need memory: the thread's own cache, those without a thread, and the pool
 *                  send back what is free.
 *   retire_seq     segments are retiring: nobody has a unit there any more. Each that is mapped here
 *                  is asked for, unmapped, and reported. Those that have gone (in a child that was
 *                  forked before) are unmapped without asking: they do not come back.
 *
 * WHY UNMAPPING IS SAFE. The daemon says yes only while no unit of the segment is anybody's, and
 * grants none until this process has reported: so no thread here has a block, slab or kept block in
 * it, nor can get one from somebody else's hands. A thread may still be about to store a hint, or to
 * compare and swap an entry or a tag that it has lost: tables and data become private pages of
 * zeroes, which take the one and refuse the other. acre_pointer() maps such a slot anew, or learns
 * that it is empty.
 *
 * A KILL anywhere: the daemon forgets what this client maps and was about to unmap.
 *
 * COST. Two requests and three mmap() a segment. They get LOOK_NS in all: a daemon that is away just
 * then tells again when it is back.
 */
#include <sys/mman.h>

#include "client/heap.h"
#include "proto/wire.h"

#define LOOK_NS 200000000ull

/* ---- segments ---- */

static void replace(void *at, size_t bytes)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;

    if (mmap(at, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
        (void)mmap(at, bytes, PROT_NONE, flags, -1, 0); /* no address space is to be committed */
}

/* Failing, it is mapped yet, and the kernel will tell the daemon so. */
static void unmap(struct acre_heap *heap, unsigned head)
{
    uint64_t tables = atomic_load(&heap->slot_tables[head]);
    uint32_t n_table = slot_n_table(tables), unit = head * SLOT_UNITS;
    unsigned n_slots = 1;

    while (head + n_slots < HEAP_SLOTS && atomic_load(&heap->slot_bytes[head + n_slots]) != 0 &&
           atomic_load(&heap->slot_tables[head + n_slots]) == 0)
        n_slots++;
    pool_forget_slot(heap, head); /* first: without its tables any claim would succeed */
    for (unsigned i = 0; i < n_slots; i++)
        atomic_store(&heap->slot_bytes[head + i], 0);
    replace(heap_entry(heap, unit), round_up_u64(n_table * sizeof(uint64_t), SEGMENT_PAGE_BYTES));
    replace(heap_hint(heap, unit), round_up_u64(n_table, SEGMENT_PAGE_BYTES));
    replace(heap->base + ((uint64_t)head << SLOT_SHIFT), (size_t)n_slots << SLOT_SHIFT);
    atomic_store(&heap->slot_tables[head], 0);
}

static int tell(struct acre_heap *heap, unsigned slot, bool done)
{
    struct msg_request req = {.op = MSG_RETIRE, .retire = {.slot = slot, .done = done}};
    struct msg_reply reply;

    return conn_call(heap, &req, -1, &reply, NULL);
}

/* What the daemon says of the slot, and what is mapped there. conn_lock held. */
static int look_at(struct acre_heap *heap, unsigned slot)
{
    const struct control_segment *s = &heap->control->segment[slot];
    bool is_mapped = atomic_load(&heap->slot_tables[slot]) != 0; /* its head */
    uint16_t retire = __atomic_load_n(&s->retire, __ATOMIC_ACQUIRE);
    bool is_there =
        retire != SEGMENT_RETIRED && __atomic_load_n(&s->size_bytes, __ATOMIC_ACQUIRE) != 0;

    if (!is_there && !is_mapped)
        return 0;
    if (!is_there) {
        unmap(heap, slot);
        return tell(heap, slot, true); /* the daemon may have waited for that alone */
    }
    if (retire != SEGMENT_RETIRING)
        return 0;
    if (is_mapped) {
        int r = tell(heap, slot, false);
        if (r < 0) /* it stays; or another one, of which we have not told, comes first */
            return r == -EAGAIN || r == -EBUSY ? 0 : r;
        unmap(heap, slot);
    }
    return tell(heap, slot, true);
}

static void look_at_all(struct acre_heap *heap)
{
    uint32_t seq = __atomic_load_n(&heap->control->header.retire_seq, __ATOMIC_ACQUIRE);
    int r = 0;

    heap->process->deadline_ns = MIN(heap->process->deadline_ns, wire_now_ns() + LOOK_NS);
    atomic_store(&heap->process->retire_seen, seq);
    for (unsigned slot = 0; r == 0 && slot < HEAP_SLOTS; slot++)
        r = look_at(heap, slot);
}

void retire_look(struct acre_heap *heap)
{
    int saved_errno = errno;

    if (self_id(heap) != 0 && conn_try(heap, 0)) { /* who has it looks later, or we do */
        look_at_all(heap);
        conn_leave(heap);
    }
    errno = saved_errno;
}

/* ---- what is idle ---- */

void pressure_yield(struct acre_heap *heap, struct cache *cache)
{
    int saved_errno = errno;

    if (cache)
        cache->pressure_seen =
            __atomic_load_n(&heap->control->header.pressure_seq, __ATOMIC_ACQUIRE);
    (void)heap_trim(heap, false);
    errno = saved_errno;
}
