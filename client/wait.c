/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wait.c - waiting for memory.
 *
 * MODEL. The process has one connection, which other threads need: so nobody waits on it. A thread
 * takes a ticket, under a number of its own choice, and is answered at once: it has the units, or it
 * waits. Then it sleeps on its client's word in the control page (ticket_seq), which the daemon
 * counts on when one of the client's tickets has its answer, and asks again by the same number.
 *
 * ORDER. The word is read before the daemon is asked: what it does after its answer makes the sleep
 * end at once. The daemon wakes by the number's low bits, so that other threads sleep on; those that
 * are about to sleep ask once more than they need.
 *
 * SLICES. Nobody sleeps longer than SLICE_NS. So a lost wake, or another daemon, which does not know
 * the number and queues it anew, costs a second; and what other threads of this process have freed
 * meanwhile into what it holds is found, by trying as if there were no ticket.
 *
 * A KILL, anywhere: the daemon's ticket goes with the client, and so do units that were granted by
 * it. A child of fork() has no threads that wait, and numbers its own tickets.
 */
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "client/heap.h"
#include "proto/wire.h"

#define SLICE_NS 1000000000ull

struct wait {
    size_t size;
    unsigned class_idx; /* N_CLASSES: a large block */
    uint64_t deadline_ns;
    struct msg_request req; /* ticket 0: none is taken */
};

static void wait_init(struct wait *w, size_t size, int deadline_ms)
{
    *w = (struct wait){.size = size, .class_idx = N_CLASSES, .req = {.op = MSG_WAIT}};
    w->deadline_ns = deadline_ms < 0 ? UINT64_MAX : wire_now_ns() + (uint64_t)deadline_ms * 1000000;
    w->req.wait.exact = size > SMALL_MAX_BYTES;
    w->req.wait.n_units = (uint32_t)MIN(units_of(size), HEAP_UNITS);
    if (w->req.wait.exact)
        return;
    w->class_idx = class_of_size((uint32_t)size);
    w->req.wait.class_plus_1 = w->class_idx + 1;
    w->req.wait.align_order = class_order_min[w->class_idx];
    w->req.wait.n_units = 1u << class_order_min[w->class_idx];
}

/* Whole milliseconds, and not 0, which would be for ever. */
static uint64_t left_ms(const struct wait *w)
{
    uint64_t now_ns = wire_now_ns();

    if (w->deadline_ns == UINT64_MAX)
        return 0;
    return w->deadline_ns > now_ns ? (w->deadline_ns - now_ns) / 1000000 + 1 : 1;
}

/* 1: granted, 0: not yet, or negative errno. Granted or refused, the ticket is no more. */
static int ask(struct acre_heap *heap, struct wait *w, uint32_t *ret_unit)
{
    if (w->req.wait.ticket == 0)
        w->req.wait.ticket = 1 + atomic_fetch_add(&heap->process->n_tickets, 1);
    w->req.wait.left_ms = left_ms(w);
    int r = pool_wait(heap, &w->req, ret_unit);
    if (r != 0)
        w->req.wait.ticket = 0;
    return r;
}

/* What was granted comes back, if anything was. */
static void cancel(struct acre_heap *heap, struct wait *w)
{
    struct msg_request req = {.op = MSG_CANCEL, .cancel = {.ticket = w->req.wait.ticket}};
    struct msg_reply reply;

    if (w->req.wait.ticket != 0)
        (void)heap_call(heap, &req, &reply);
    w->req.wait.ticket = 0;
}

/* NULL: others took it meanwhile. */
static void *use_granted(struct acre_heap *heap, const struct wait *w, uint32_t unit)
{
    struct cache *cache = cache_here(heap);

    if (w->class_idx == N_CLASSES)
        return unit == BUDDY_NONE ? NULL : large_alloc_granted(heap, unit, w->req.wait.n_units);
    if (!cache || cache->token == 0)
        cache = cache_acquire(heap);
    return cache && bin_refill_granted(heap, cache, w->class_idx, unit) ? acre_alloc(heap, w->size)
                                                                        : NULL;
}

/* Until the word is no longer what it was (true), for a slice at most. */
static bool sleep_on(const uint32_t *word, uint32_t seen, const struct wait *w)
{
    uint64_t until_ns = MIN(wire_now_ns() + SLICE_NS, w->deadline_ns);
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000),
                             .tv_nsec = (long)(until_ns % 1000000000)};
    long r;

    do
        r = syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen, &until, NULL,
                    1u << (w->req.wait.ticket % 32));
    while (r < 0 && errno == EINTR);
    return __atomic_load_n(word, __ATOMIC_ACQUIRE) != seen;
}

static int timed_out(struct acre_heap *heap, struct wait *w, int deadline_ms, const char *why)
{
    cancel(heap, w);
    return fail(ETIMEDOUT, "%zu bytes have not come within %d ms: %s", w->size, deadline_ms, why);
}

/* 0: worth trying without a ticket; *ret_block, if there is one. */
static int wait_slice(struct acre_heap *heap, struct wait *w, int deadline_ms, const char *why,
                      void **ret_block)
{
    const uint32_t *word = &heap->control->client[self_id(heap)].ticket_seq;

    for (;;) {
        uint32_t unit, seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);
        int r = ask(heap, w, &unit);
        if (r < 0)
            return r;
        if (r == 1) {
            *ret_block = use_granted(heap, w, unit);
            return 0;
        }
        if (wire_now_ns() >= w->deadline_ns)
            return timed_out(heap, w, deadline_ms, why);
        if (!sleep_on(word, seen, w) && wire_now_ns() < w->deadline_ns)
            return 0;
    }
}

/* acre_alloc() has said no, and why. */
static void *alloc_by_ticket(struct acre_heap *heap, size_t size, int deadline_ms)
{
    struct wait w;
    char why[MSG_TEXT_BYTES];
    void *block = NULL;
    int r = attach_ensure(heap);

    wait_init(&w, size, deadline_ms);
    (void)snprintf(why, sizeof(why), "%s", acre_last_error());
    while (r == 0 && !block) {
        r = wait_slice(heap, &w, deadline_ms, why, &block);
        if (r == 0 && !block) {
            errno = 0;
            block = acre_alloc(heap, size);
            r = block || errno == ENOMEM ? 0 : -errno;
        }
    }
    cancel(heap, &w);
    errno = -r;
    return block;
}

void *acre_alloc_wait(struct acre_heap *heap, size_t size, int deadline_ms)
{
    int saved_errno = errno;

    if (deadline_ms < -1) {
        errno = -fail(EINVAL, "acre_alloc_wait: a deadline of %d ms", deadline_ms);
        return NULL;
    }
    void *block = acre_alloc(heap, size);
    if (!block && errno == ENOMEM && deadline_ms != 0) {
        PROBE(slow__begin);
        block = alloc_by_ticket(heap, size, deadline_ms);
        PROBE(slow__end, size, TRACE_WAIT, block ? 0 : errno);
    }
    if (block)
        errno = saved_errno;
    return block;
}
