/* SPDX-License-Identifier: Apache-2.0 */
/*
 * owner.c - the owner tag changes hands: publish, give, adopt (DESIGN.md section 5).
 *
 * At every moment one party may write a tag, so publish and give are one plain store by the owner;
 * a kill before it: nothing happened, after it: it is done. Adopt is a compare-and-swap because two
 * may want the block.
 */
#include "client/block.h"

acre_client acre_self(struct acre_heap *heap)
{
    int r = attach_ensure(heap);

    if (r < 0) {
        errno = -r;
        return 0;
    }
    return atomic_load_explicit(&heap->process->client, memory_order_relaxed);
}

static uint32_t gen_of(const struct acre_heap *heap, tag_t id)
{
    return __atomic_load_n(&heap->control->client[id].gen, __ATOMIC_ACQUIRE);
}

acre_client acre_owner(struct acre_heap *heap, const void *block)
{
    struct block b = block_find(heap, block);

    if (b.fault)
        return 0;
    tag_t tag = atomic_load_explicit(b.tag, memory_order_acquire);
    if (tag == TAG_FREE)
        return 0;
    if (tag == TAG_HEAP)
        return ACRE_OWNER_HEAP;
    uint32_t gen = gen_of(heap, tag);
    return gen ? client_handle(tag, gen) : 0; /* dead: about to be freed */
}

/* Why a block is not this client's: 0 if the heap has it, else an error. */
static __attribute__((noinline, cold)) int not_own(const struct block *b, const void *block,
                                                   tag_t self)
{
    tag_t tag = b->fault ? TAG_FREE : atomic_load_explicit(b->tag, memory_order_relaxed);

    if (b->fault)
        return fail(EINVAL, "%p is no block of the heap", block);
    if (tag == TAG_HEAP)
        return 0;
    if (tag == TAG_FREE)
        return fail(EINVAL, "the block at %p is free", block);
    return fail(EPERM, "the block at %p belongs to client %u, not to %u", block, tag, self);
}

__attribute__((noinline)) _Atomic tag_t *own_tag_slow(struct acre_heap *heap, const void *block,
                                                      int *ret_r)
{
    struct block b = block_find(heap, block);
    tag_t self = self_id(heap);

    if (!b.fault && self != 0 && atomic_load_explicit(b.tag, memory_order_relaxed) == self)
        return b.tag;
    *ret_r = heap->is_read_only ? fail_read_only(heap) : not_own(&b, block, self);
    return NULL;
}

/* The tag of a block that is this client's; else NULL and the error (0 if the heap has it). */
static inline _Atomic tag_t *own_tag(struct acre_heap *heap, const void *block, int *ret_r)
{
    struct small_block b;
    tag_t self = self_id(heap);

    if (LIKELY(small_find(heap, block, &b) && self != 0 &&
               atomic_load_explicit(b.tag, memory_order_relaxed) == self))
        return b.tag;
    return own_tag_slow(heap, block, ret_r);
}

int acre_publish(struct acre_heap *heap, void *block)
{
    int r;
    _Atomic tag_t *tag = own_tag(heap, block, &r);

    if (!tag)
        return r;
    atomic_store_explicit(tag, TAG_HEAP, memory_order_release);
    return 0;
}

int acre_publish_all(struct acre_heap *heap)
{
    struct msg_request req = {.op = MSG_PUBLISH_ALL};
    struct msg_reply reply;

    /* A child that has not attached owns nothing. */
    if (self_id(heap) == 0)
        return 0;
    return heap_call(heap, &req, &reply);
}

int acre_give(struct acre_heap *heap, void *block, acre_client to)
{
    tag_t id = client_handle_id(to);
    uint32_t gen = client_handle_gen(to);
    int r;
    _Atomic tag_t *tag = own_tag(heap, block, &r);

    if (UNLIKELY(!tag))
        return r ? r : fail(EPERM, "the block at %p is published: adopt it first", block);
    if (UNLIKELY(id == TAG_FREE || id == TAG_HEAP || gen == 0 || gen_of(heap, id) != gen))
        return fail(ESRCH, "client %u (generation %u) is gone", id, gen);
    /* Should it die in between, the block was given, and ends with its owner: by the sweep for it,
     * or, if that has passed, by the next one. To look again and take it back could come too late:
     * the block may be somebody's data by then (tests/spin). */
    atomic_store_explicit(tag, id, memory_order_release);
    return 0;
}

int acre_adopt(struct acre_heap *heap, void *block)
{
    struct block b = block_find(heap, block);
    int r = attach_ensure(heap);

    if (r < 0)
        return r;
    if (b.fault)
        return fail(EINVAL, "%p is no block of the heap", block);
    tag_t expected = TAG_HEAP, self = self_id(heap);
    if (atomic_compare_exchange_strong(b.tag, &expected, self) || expected == self)
        return 0;
    if (expected == TAG_FREE)
        return fail(EINVAL, "the block at %p is free", block);
    return fail(EBUSY, "the block at %p belongs to client %u", block, expected);
}
