/* SPDX-License-Identifier: Apache-2.0 */
/* map.c - segments appear in the reserved range when they are first needed. A mapped slot stays
 * mapped until close. */
#include <sys/mman.h>

#include "client/heap.h"

/* The head's bytes last: acre_pointer() reads it without a lock. */
static void slots_publish(struct acre_heap *heap, unsigned head, const struct segment_shape *shape)
{
    unsigned n_slots = (unsigned)((shape->size_bytes + SLOT_BYTES - 1) >> SLOT_SHIFT);

    for (unsigned i = n_slots; i-- > 0;) {
        uint64_t left = shape->size_bytes - ((uint64_t)i << SLOT_SHIFT);
        atomic_store_explicit(&heap->slot_bytes[head + i], MIN(left, SLOT_BYTES),
                              memory_order_release);
    }
}

static bool map_at(void *at, size_t bytes, int prot, int fd, uint64_t file_off)
{
    return mmap(at, bytes, prot, MAP_SHARED | MAP_FIXED, fd, (off_t)file_off) == at;
}

/* The segment at its slot, and its tables in the rows below the base: the entries last, since who
 * finds a large block there looks for its tag by slot_tables. n_table and tags_off are one store:
 * they are read without a lock. Where all is read-only there are no tables: then no block is ever
 * found, and the fast paths, which know nothing of it, store nothing. */
static bool map_all(struct acre_heap *heap, unsigned head, int fd,
                    const struct segment_shape *shape)
{
    uint32_t unit = head * SLOT_UNITS;
    int prot = PROT_READ | PROT_WRITE;

    if (heap->is_read_only)
        return map_at(heap->base + ((uint64_t)head << SLOT_SHIFT), shape->size_bytes, PROT_READ, fd,
                      0);
    atomic_store_explicit(&heap->slot_tables[head],
                          shape->n_table | (uint64_t)shape->tags_off << 32, memory_order_release);
    return map_at(heap->base + ((uint64_t)head << SLOT_SHIFT), shape->size_bytes, prot, fd, 0) &&
           map_at(heap_hint(heap, unit), round_up_u64(shape->n_table, SEGMENT_PAGE_BYTES), prot, fd,
                  shape->hints_off) &&
           map_at(heap_entry(heap, unit),
                  round_up_u64(shape->n_table * sizeof(uint64_t), SEGMENT_PAGE_BYTES), prot, fd,
                  shape->entries_off);
}

/* Before the first touch: a page that is there already stays what it is. */
static void ask_for_huge_pages(void *at, size_t bytes)
{
    int saved_errno = errno;

    (void)madvise(at, bytes, MADV_HUGEPAGE);
    errno = saved_errno;
}

static int map_fd(struct acre_heap *heap, unsigned slot, int fd, const struct msg_reply *reply)
{
    unsigned head = reply->map_segment.head_slot;
    struct segment_shape shape;
    const char *why = "no descriptor came along";

    if (fd < 0 || head > slot || segment_check(fd, head, heap->heap_id, &shape, &why) < 0)
        return fail(EPROTO, "the daemon sent no valid segment for slot %u: %s", slot, why);
    uint64_t slots_end = (uint64_t)head * SLOT_BYTES + shape.size_bytes;
    if (slots_end > HEAP_BYTES || slots_end <= (uint64_t)slot << SLOT_SHIFT)
        return fail(EPROTO, "the daemon's segment %u of %llu bytes does not reach slot %u", head,
                    (unsigned long long)shape.size_bytes, slot);
    if (!map_all(heap, head, fd, &shape))
        return fail(ENOMEM, "cannot map segment %u of %llu bytes", head,
                    (unsigned long long)shape.size_bytes);
    if (heap->control->header.pages != PAGES_4K)
        ask_for_huge_pages(heap->base + ((uint64_t)head << SLOT_SHIFT), shape.size_bytes);
    slots_publish(heap, head, &shape);
    return 0;
}

int map_slot_locked(struct acre_heap *heap, unsigned slot)
{
    struct msg_request req = {.op = MSG_MAP_SEGMENT, .map_segment = {.slot = slot}};
    struct msg_reply reply;
    CLEANUP_FD int fd = -1;

    if (atomic_load(&heap->slot_bytes[slot]) != 0)
        return 0;
    int r = conn_call(heap, &req, -1, &reply, &fd);
    return r < 0 ? r : map_fd(heap, slot, fd, &reply);
}

int map_slot(struct acre_heap *heap, unsigned slot)
{
    int r = conn_enter(heap);

    if (r < 0)
        return r;
    r = map_slot_locked(heap, slot);
    conn_leave(heap);
    return r;
}
