/* SPDX-License-Identifier: Apache-2.0 */
/*
 * link.c - a block and the slot that names it change together.
 *
 * MODEL. Between "the slot names the block" and "the tag is the heap's" there is no order that is
 * right at every instruction: linked first, the block dies with its client and leaves a dangling
 * link; published first, it may be the heap's and reachable for nobody. So the client says in a
 * line of its life page what it is about to do:
 *   publish   line {block, slot};  *slot = block;          tag self -> heap;  line = none
 *   take      line {block, slot};  tag heap -> self;       *slot = next;      line = none
 * In both, as long as the tag is the client's own, the truth is in the slot. Who finds the client
 * dead (daemon/sweep.c) therefore needs one rule: a block with the dead client's tag, and a line
 * whose slot names it, goes to the heap; any other with that tag is freed. Done twice it does the
 * same, and the slot is only read. Taking and freeing is taking, then freeing what is one's own.
 *
 * INVARIANTS. 1. A block that a slot names has the heap's tag, or the tag of a client that is in
 * one of the two, or has died in one. 2. Links that move (what the slot named before, the block
 * behind the one that is taken) have the heap's tag before they move: a line may name the old
 * place. Else the answer is -EBUSY: nobody can tell a client that will go on from one that is dead
 * and not swept yet. 3. One at a time replaces or takes at a slot (acre.h), so a slot that names a
 * block whose tag one has changed goes on naming it.
 *
 * LINES. Claimed by compare-and-swap for the call; the block is stored last. A thread that finds
 * none lets others of its process run. A child of fork() has a page of its own.
 */
#include <sched.h>

#include "client/block.h"

/* Threads begin at different lines. */
static struct intent *intent_begin(const struct acre_heap *heap, acre_off block, acre_off slot)
{
    struct intent *lines = heap->process->life->intents;
    uint32_t i = (uint32_t)((uintptr_t)&tls_last >> 12) % INTENTS;

    for (uint32_t n = 1;; n++) {
        uint64_t none = 0;
        if (__atomic_compare_exchange_n(&lines[i].block_off, &none, INTENT_TAKEN, false,
                                        __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            break;
        i = (i + 1) % INTENTS;
        if (n % INTENTS == 0)
            sched_yield();
    }
    lines[i].slot_off = slot;
    __atomic_store_n(&lines[i].block_off, block, __ATOMIC_RELEASE);
    return &lines[i];
}

static void intent_end(struct intent *line)
{
    __atomic_store_n(&line->block_off, 0, __ATOMIC_RELEASE);
}

static int slot_check(struct acre_heap *heap, const acre_off *slot, acre_off *ret_off)
{
    *ret_off = acre_offset(heap, slot);
    if (*ret_off == 0 || *ret_off % sizeof(acre_off) != 0)
        return fail(EINVAL, "%p is no aligned address in the heap", (const void *)slot);
    return 0;
}

/* Why a block that some slot names is not to be had. */
static __attribute__((cold)) int not_heaps(acre_off off, tag_t tag)
{
    return tag == TAG_FREE
               ? fail(EINVAL, "the link 0x%llx names a free block", (unsigned long long)off)
               : fail(EBUSY, "client %u has not finished with the block at 0x%llx", tag,
                      (unsigned long long)off);
}

static int linked_tag(struct acre_heap *heap, acre_off off, _Atomic tag_t **ret_tag)
{
    void *block = acre_pointer(heap, off);
    struct block b = {.fault = BLOCK_FOREIGN};

    if (block)
        b = block_find(heap, block);
    if (b.fault)
        return fail(EINVAL, "the link 0x%llx names no block", (unsigned long long)off);
    *ret_tag = b.tag;
    return 0;
}

/* off, if any, is the heap's: its link may move. */
static int check_link(struct acre_heap *heap, acre_off off)
{
    _Atomic tag_t *at;

    if (off == 0)
        return 0;
    int r = linked_tag(heap, off, &at);
    if (r < 0)
        return r;
    tag_t tag = atomic_load_explicit(at, memory_order_acquire);
    return tag == TAG_HEAP ? 0 : not_heaps(off, tag);
}

static bool slot_swap(acre_off *slot, acre_off expected, acre_off desired)
{
    return __atomic_compare_exchange_n(slot, &expected, desired, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_RELAXED);
}

/* ---- publish ---- */

static int publish_linked(struct acre_heap *heap, acre_off off, _Atomic tag_t *tag, acre_off *slot,
                          acre_off slot_off, acre_off expected)
{
    tag_t self = self_id(heap);
    struct intent *line = intent_begin(heap, off, slot_off);
    bool linked = slot_swap(slot, expected, off);

    if (linked)
        (void)atomic_compare_exchange_strong(tag, &self, TAG_HEAP);
    intent_end(line);
    return linked ? 0
                  : fail(EAGAIN, "the slot at 0x%llx has changed", (unsigned long long)slot_off);
}

int acre_publish_at_cas(struct acre_heap *heap, void *block, acre_off *slot, acre_off expected)
{
    acre_off slot_off;
    int r = slot_check(heap, slot, &slot_off);

    if (r < 0)
        return r;
    _Atomic tag_t *tag = own_tag_slow(heap, block, &r);
    if (!tag)
        return r ? r : fail(EPERM, "the block at %p is published already", block);
    if (unit_entry_is_soft(block_find(heap, block).entry))
        return fail(EINVAL, "the block at %p is soft: what names it would dangle", block);
    r = check_link(heap, expected);
    return r < 0 ? r
                 : publish_linked(heap, acre_offset(heap, block), tag, slot, slot_off, expected);
}

int acre_publish_at(struct acre_heap *heap, void *block, acre_off *slot)
{
    acre_off slot_off;
    int r = slot_check(heap, slot, &slot_off);

    return r < 0 ? r
                 : acre_publish_at_cas(heap, block, slot, __atomic_load_n(slot, __ATOMIC_ACQUIRE));
}

/* ---- take ---- */

static int take_linked(struct acre_heap *heap, acre_off off, acre_off *slot, acre_off slot_off,
                       acre_off next)
{
    _Atomic tag_t *tag;
    tag_t was = TAG_HEAP;
    int r = linked_tag(heap, off, &tag);

    if (r < 0)
        return r;
    struct intent *line = intent_begin(heap, off, slot_off);
    bool taken = atomic_compare_exchange_strong(tag, &was, self_id(heap));
    if (taken)
        __atomic_store_n(slot, next, __ATOMIC_RELEASE);
    intent_end(line);
    return taken ? 0 : not_heaps(off, was);
}

static int take(struct acre_heap *heap, acre_off *slot, acre_off next, acre_off *ret_off)
{
    acre_off slot_off;
    int r = slot_check(heap, slot, &slot_off);

    if (r == 0)
        r = attach_ensure(heap);
    if (r == 0)
        r = check_link(heap, next);
    if (r < 0)
        return r;
    *ret_off = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    if (*ret_off == 0)
        return fail(ENOENT, "the slot at 0x%llx is empty", (unsigned long long)slot_off);
    return take_linked(heap, *ret_off, slot, slot_off, next);
}

void *acre_take_at(struct acre_heap *heap, acre_off *slot, acre_off next)
{
    acre_off off;
    int r = take(heap, slot, next, &off);

    if (r == 0)
        return heap->base + off;
    errno = -r;
    return NULL;
}

int acre_unlink_free(struct acre_heap *heap, acre_off *slot, acre_off next)
{
    acre_off off;
    int r = take(heap, slot, next, &off);

    if (r == 0)
        acre_free(heap, heap->base + off);
    return r;
}
