/* SPDX-License-Identifier: Apache-2.0 */
/* soak_good.c - a client of a tenant that nobody means harm: blocks with a pattern, published to a
 * board outside of the heap, taken off it by others and freed. It knows what it holds, to the
 * byte. */
#include "tests/misuse/soak.h"

#define N_OWN  64u
#define ROUNDS 32u /* then it rests: the machine is for others too */
#define REST   1000u

struct own {
    char *block;
    size_t bytes; /* all that can be used */
};

struct good {
    struct acre_heap *heap;
    struct soak_worker *worker;
    uint64_t rng, held_bytes;
    struct own own[N_OWN];
};

static bool fill(struct good *g, struct own *o, size_t size)
{
    o->block = acre_alloc(g->heap, size);
    CHECK(o->block);
    o->bytes = acre_usable_size(g->heap, o->block);
    pattern_fill(o->block, o->bytes, rnd(&g->rng));
    g->held_bytes += o->bytes;
    return true;
}

static bool drop(struct good *g, struct own *o)
{
    CHECK(pattern_is_whole(o->block, o->bytes));
    CHECK(acre_owner(g->heap, o->block) == acre_self(g->heap));
    acre_free(g->heap, o->block);
    g->held_bytes -= o->bytes;
    *o = (struct own){0};
    return true;
}

static bool take(struct good *g, struct own *o, acre_off off)
{
    o->block = acre_pointer(g->heap, off);
    CHECK(o->block && acre_owner(g->heap, o->block) == ACRE_OWNER_HEAP);
    CHECK(acre_adopt(g->heap, o->block) == 0);
    o->bytes = acre_usable_size(g->heap, o->block);
    CHECK(pattern_is_whole(o->block, o->bytes));
    g->held_bytes += o->bytes;
    __atomic_fetch_sub(&soak->board_bytes, o->bytes, __ATOMIC_SEQ_CST);
    return true;
}

/* Its block onto the board, and what was there off it. */
static bool exchange(struct good *g, struct own *o)
{
    uint64_t *slot = &soak->board[rnd(&g->rng) % SOAK_SLOTS];
    acre_off off = 0;
    if (o->block) {
        off = acre_offset(g->heap, o->block);
        CHECK(acre_publish(g->heap, o->block) == 0);
        g->held_bytes -= o->bytes;
        __atomic_fetch_add(&soak->board_bytes, o->bytes, __ATOMIC_SEQ_CST);
        *o = (struct own){0};
    }
    off = __atomic_exchange_n(slot, off, __ATOMIC_SEQ_CST);
    return off == 0 || take(g, o, off);
}

/* The large ones come from the daemon and go back to it. */
static size_t any_size(struct good *g)
{
    uint64_t r = rnd(&g->rng);
    return r % 32 == 0 ? 8 + (r >> 8) % 300000 : 8 + (r >> 8) % 3000;
}

static bool one_round(struct good *g)
{
    struct own *o = &g->own[rnd(&g->rng) % N_OWN];
    g->worker->n_rounds++;
    if (rnd(&g->rng) % 4 == 0)
        return exchange(g, o);
    if (o->block && !drop(g, o))
        return false;
    if (rnd(&g->rng) % 512 == 0)
        CHECK(acre_trim(g->heap) == 0);
    return fill(g, o, any_size(g));
}

static bool work(struct good *g)
{
    while (!__atomic_load_n(&soak->stop, __ATOMIC_SEQ_CST)) {
        for (unsigned i = 0; i < ROUNDS; i++)
            if (!one_round(g))
                return false;
        (void)soak_is_held(g->worker, g->held_bytes);
        pause_us(REST);
    }
    for (unsigned i = 0; i < N_OWN; i++)
        if (g->own[i].block && !drop(g, &g->own[i]))
            return false;
    return true;
}

bool soak_good(void *arg)
{
    struct good g = {.worker = arg, .rng = soak->seed ^ (uint64_t)getpid() << 16};
    CHECK(acre_open(&g.heap, the_daemon.socket, "good") == 0);
    bool ok = work(&g);
    g.worker->has_failed = !ok;
    acre_close(g.heap);
    return ok;
}
