/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops.c - see ops.h. Blocks that are not tracked are the victim's own, and gone afterwards. What is
 * tracked is in the state before the operation or in the one after it, nothing else.
 */
#include "tests/crash/ops.h"

#include <pthread.h>

#include "shm/sizeclass.h"

#define SMALL ((size_t)48)
#define LARGE ((size_t)72 << 10) /* 9 units */
#define HUGE  ((size_t)5 << 20)  /* a grant of its own, never kept */
#define EXACT ((size_t)3 << 20)  /* more than the pool gives in one piece */
#define KEPT  8u                 /* large blocks that a thread keeps */

struct acre_heap *victim_heap;
static void *block;

/* ---- helpers of victims ---- */

static void *get(size_t size)
{
    void *p = acre_alloc(victim_heap, size);

    if (p && size >= 8)
        *(uint64_t *)p = 1;
    return p;
}

static bool get_n(size_t size, unsigned n)
{
    while (n-- > 0)
        CHECK(get(size));
    return true;
}

/* One of the victim's, of which the survivor will look at the contents. */
static bool get_tracked(size_t size, enum whose before, enum whose after)
{
    CHECK(block = acre_alloc(victim_heap, size));
    stage_track(acre_offset(victim_heap, block), size, before, after);
    pattern_fill(block, size, stage->tracked[stage->n_tracked - 1].off);
    return true;
}

/* Blocks in the first slabs that a client cuts of a class: 1, 2, 4 units, ... */
static unsigned slab_blocks(size_t size, unsigned n_slabs)
{
    unsigned class_idx = class_of_size((uint32_t)size), n = 0;

    sizeclass_init();
    for (unsigned i = 0; i < n_slabs; i++)
        n += geo_infos[geo_of(class_idx, class_order_min[class_idx] + i)].n_blocks;
    return n;
}

/* Units that a pool can give: what a large block was cut down by. */
static bool fill_pool(void)
{
    CHECK(block = get(1 << 20));
    CHECK(acre_realloc(victim_heap, block, LARGE) == block);
    return true;
}

static bool take_handed(void)
{
    CHECK(block = acre_pointer(victim_heap, stage->handed[0]));
    CHECK(pattern_is_whole(block, 16));
    return get(SMALL) != NULL; /* it has a cache of its own */
}

/* ---- helpers of the survivor ---- */

static bool hand(struct world *w, size_t size, bool published)
{
    void *p = acre_alloc(w->heap, size);

    CHECK(p);
    stage->handed[0] = acre_offset(w->heap, p);
    pattern_fill(p, size, stage->handed[0]);
    if (published)
        CHECK(acre_publish(w->heap, p) == 0);
    stage_track(stage->handed[0], size, published ? HEAP : SURVIVOR, GONE);
    return true;
}

static bool hand_own_small(struct world *w)
{
    return hand(w, SMALL, false);
}
static bool hand_own_large(struct world *w)
{
    return hand(w, LARGE, false);
}
static bool hand_own_huge(struct world *w)
{
    return hand(w, HUGE, false);
}
static bool hand_published_small(struct world *w)
{
    return hand(w, SMALL, true);
}
static bool hand_published_large(struct world *w)
{
    return hand(w, LARGE, true);
}

/* ---- allocating ---- */

static bool with_stack(void)
{
    void *p[8];

    for (unsigned i = 0; i < 8; i++)
        CHECK(p[i] = get(SMALL));
    for (unsigned i = 0; i < 4; i++)
        acre_free(victim_heap, p[i]);
    return true;
}
static bool with_window(void)
{
    return get_n(SMALL, 3);
}
static bool with_empty_window(void)
{
    return get_n(SMALL, 64);
}
static bool with_full_slab(void)
{
    return get_n(SMALL, slab_blocks(SMALL, 1));
}
static bool with_empty_pool(void)
{
    return get_n(SMALL, slab_blocks(SMALL, 2));
}
static bool with_hinted_slab(void)
{
    CHECK(get_n(SMALL, slab_blocks(SMALL, 1) - 1));
    CHECK(block = get(SMALL));
    CHECK(get_n(SMALL, 64));
    pid_t pid = fork(); /* freed from elsewhere: the hint alone tells */
    if (pid == 0) {
        acre_free(victim_heap, block);
        _exit(0);
    }
    CHECK(child_ok(pid));
    return get_n(SMALL, slab_blocks(SMALL, 2) - slab_blocks(SMALL, 1) - 64);
}
static void *allocates_and_ends(void *arg)
{
    void *p[600];
    unsigned n = slab_blocks(SMALL, 2);

    for (unsigned i = 0; i < n; i++)
        p[i] = get(SMALL);
    for (unsigned i = 0; i < n; i++)
        acre_free(victim_heap, p[i]);
    return arg;
}
static bool with_ended_thread(void)
{
    pthread_t thread;
    void *p = get(512); /* this thread has a cache already: it takes no idle one */

    CHECK(p && slab_blocks(SMALL, 2) <= 600);
    CHECK(pthread_create(&thread, NULL, allocates_and_ends, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    return true;
}
static bool with_kept_block(void)
{
    CHECK(block = get(LARGE));
    acre_free(victim_heap, block);
    return true;
}
static bool leave_published(void)
{
    CHECK(get_n(SMALL, 10));
    return get_tracked(SMALL, HEAP, HEAP) && acre_publish(victim_heap, block) == 0;
}
static bool leave_published_large(void)
{
    CHECK(get_tracked(LARGE, HEAP, GONE));
    stage->handed[0] = acre_offset(victim_heap, block);
    return acre_publish(victim_heap, block) == 0;
}

/* Over the first units that a new client gets: block data lies where owner maps will be. */
static bool leave_garbage(void)
{
    for (unsigned n = slab_blocks(112, 2); n > 0; n--) {
        CHECK(block = get(112));
        pattern_fill(block, 112, (uint64_t)(uintptr_t)block * 0x2545f4914f6cdd1dull);
    }
    return true;
}

static void run_alloc_small(void)
{
    block = acre_alloc(victim_heap, SMALL);
}
static void run_alloc_large(void)
{
    block = acre_alloc(victim_heap, LARGE);
}
static void run_alloc_huge(void)
{
    block = acre_alloc(victim_heap, EXACT);
}
static void run_alloc_small_for_heap(void)
{
    block = acre_allocx(victim_heap, SMALL, 0, ACRE_HEAP_OWNED);
}
static void run_alloc_large_for_heap(void)
{
    block = acre_allocx(victim_heap, LARGE, 0, ACRE_HEAP_OWNED);
}
static void run_alloc_aligned(void)
{
    block = acre_aligned_alloc(victim_heap, 1 << 20, LARGE);
}
static void run_reserve(void)
{
    (void)acre_reserve(victim_heap, SMALL, 1000);
}

/* ---- freeing ---- */

static bool with_small(void)
{
    CHECK(get_n(SMALL, 3));
    CHECK(block = get(SMALL));
    return true;
}
static void *allocates(void *arg)
{
    block = get(SMALL);
    return arg;
}
static bool with_small_of_thread(void)
{
    pthread_t thread;

    CHECK(get(SMALL));
    CHECK(pthread_create(&thread, NULL, allocates, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    return block != NULL;
}
static bool with_large(void)
{
    CHECK(block = get(LARGE));
    return true;
}
/* One more would push the oldest out. */
static bool with_all_kept(void)
{
    void *p[KEPT];

    CHECK(with_large());
    for (unsigned i = 0; i < KEPT; i++)
        CHECK(p[i] = get(LARGE));
    for (unsigned i = 0; i < KEPT; i++)
        acre_free(victim_heap, p[i]);
    return true;
}
static bool with_huge(void)
{
    CHECK(block = get(HUGE));
    return true;
}
static void run_free(void)
{
    acre_free(victim_heap, block);
}

/* ---- resizing ---- */

static bool with_pool_behind(void)
{
    return fill_pool();
}
static bool with_pool_behind_published(void)
{
    CHECK(get_tracked(1 << 20, HEAP, HEAP));
    stage->tracked[0].bytes = LARGE;
    CHECK(acre_realloc(victim_heap, block, LARGE) == block);
    return acre_publish(victim_heap, block) == 0;
}
static bool with_published_megabyte(void)
{
    CHECK(get_tracked(1 << 20, HEAP, HEAP));
    stage->tracked[0].bytes = LARGE;
    return acre_publish(victim_heap, block) == 0;
}
static bool with_two_megabytes(void)
{
    CHECK(block = get(1 << 20));
    return get(1 << 20) != NULL;
}
static void run_grow_small(void)
{
    block = acre_realloc(victim_heap, block, 4 * SMALL);
}
static void run_to_half_megabyte(void)
{
    block = acre_realloc(victim_heap, block, 512 << 10);
}
static void run_to_large(void)
{
    block = acre_realloc(victim_heap, block, LARGE);
}
static void run_to_three_large(void)
{
    block = acre_realloc(victim_heap, block, 3 * LARGE);
}

/* ---- owners ---- */

static bool with_small_to_publish(void)
{
    return get_tracked(SMALL, GONE, HEAP);
}
static bool with_large_to_publish(void)
{
    return get_tracked(LARGE, GONE, HEAP);
}
static bool with_many_to_publish(void)
{
    for (unsigned i = 0; i < 6; i++)
        CHECK(get_tracked(i % 2 ? SMALL : 512, GONE, HEAP));
    return get_tracked(LARGE, GONE, HEAP);
}
static bool with_small_to_give(void)
{
    return get_tracked(SMALL, GONE, SURVIVOR);
}
static bool with_large_to_give(void)
{
    return get_tracked(LARGE, GONE, SURVIVOR);
}
static void run_publish(void)
{
    (void)acre_publish(victim_heap, block);
}
static void run_publish_all(void)
{
    (void)acre_publish_all(victim_heap);
}
static void run_give(void)
{
    (void)acre_give(victim_heap, block, stage->survivor);
}
static void run_adopt(void)
{
    (void)acre_adopt(victim_heap, block);
}
static void run_root_set(void)
{
    (void)acre_root_set(victim_heap, "crash", acre_offset(victim_heap, block));
}
/* The root is there exactly if the block is published. */
static bool root_names_it(struct world *w)
{
    acre_off off = 0;
    int r = acre_root_get(w->heap, "crash", &off);
    acre_client owner = acre_owner(w->heap, acre_pointer(w->heap, stage->tracked[0].off));

    CHECK(r == 0 || r == -ENOENT);
    CHECK((r == 0) == (owner == ACRE_OWNER_HEAP));
    CHECK(r < 0 || off == stage->tracked[0].off);
    return r < 0 || acre_root_del(w->heap, "crash") == 0;
}

/* ---- links: tracked[0] is the block with the slot, tracked[1] what is linked or taken ---- */

static acre_off *slot_of(struct acre_heap *heap)
{
    return acre_pointer(heap, stage->tracked[0].off);
}
static bool hand_slot(struct world *w)
{
    CHECK(hand(w, SMALL, true));
    stage->tracked[0].bytes = 8;
    stage->tracked[0].after = HEAP;
    *slot_of(w->heap) = 0;
    stage->handed[1] = 0; /* what the slot names unless it names tracked[1] */
    return true;
}
/* Another published block: what was there before, or comes behind. */
static bool hand_neighbour(struct world *w)
{
    CHECK(hand(w, SMALL, true));
    stage->tracked[stage->n_tracked - 1].after = HEAP;
    stage->handed[1] = stage->handed[0];
    return true;
}
static bool hand_linked(struct world *w, size_t size)
{
    CHECK(hand_slot(w) && hand(w, size, true));
    *slot_of(w->heap) = stage->handed[0];
    return true;
}
static bool hand_linked_small(struct world *w)
{
    return hand_linked(w, SMALL);
}
static bool hand_linked_large(struct world *w)
{
    return hand_linked(w, LARGE);
}
static bool hand_list(struct world *w)
{
    return hand_linked(w, SMALL) && hand_neighbour(w);
}
static bool take_slot(void)
{
    CHECK(slot_of(victim_heap));
    return get(SMALL) != NULL;
}
static bool link_small(void)
{
    return take_slot() && with_small_to_publish();
}
static bool link_large(void)
{
    return take_slot() && with_large_to_publish();
}
/* The new block becomes the first of a list. */
static bool hand_head(struct world *w)
{
    CHECK(hand_slot(w));
    /* Its place in the tracked ones is the victim's. */
    void *p = acre_alloc(w->heap, SMALL);
    CHECK(p && acre_publish(w->heap, p) == 0);
    pattern_fill(p, SMALL, stage->handed[1] = acre_offset(w->heap, p));
    *slot_of(w->heap) = stage->handed[1];
    return true;
}
static bool link_before(void)
{
    CHECK(link_small());
    stage_track(stage->handed[1], SMALL, HEAP, HEAP);
    return true;
}
static void run_publish_at(void)
{
    (void)acre_publish_at(victim_heap, block, slot_of(victim_heap));
}
static void run_take_at(void)
{
    block = acre_take_at(victim_heap, slot_of(victim_heap), stage->handed[1]);
}
static void run_unlink_free(void)
{
    (void)acre_unlink_free(victim_heap, slot_of(victim_heap), stage->handed[1]);
}
/* The slot names the block exactly if it is the heap's. */
static bool slot_names_it(struct world *w)
{
    void *linked = acre_pointer(w->heap, stage->tracked[1].off);
    bool is_heaps = acre_owner(w->heap, linked) == ACRE_OWNER_HEAP;

    CHECK(*slot_of(w->heap) == (is_heaps ? stage->tracked[1].off : stage->handed[1]));
    return true;
}

/* ---- soft blocks ---- */

static bool hand_soft(struct world *w)
{
    void *p = acre_allocx(w->heap, LARGE, 0, ACRE_SOFT | ACRE_HEAP_OWNED);

    CHECK(p);
    stage->handed[0] = acre_soft_of(w->heap, p);
    pattern_fill(p, LARGE, acre_offset(w->heap, p));
    stage_track(acre_offset(w->heap, p), LARGE, HEAP, HEAP);
    acre_unpin(w->heap, p);
    return true;
}
static bool with_soft(void)
{
    CHECK(block = acre_allocx(victim_heap, LARGE, 0, ACRE_SOFT));
    return true;
}
static bool with_soft_to_publish(void)
{
    CHECK(with_soft());
    stage_track(acre_offset(victim_heap, block), LARGE, GONE, HEAP);
    pattern_fill(block, LARGE, acre_offset(victim_heap, block));
    return true;
}
static bool with_pin(void)
{
    CHECK(block = acre_pin(victim_heap, stage->handed[0]));
    return true;
}
static bool with_pin_to_free(void)
{
    stage->tracked[0].after = GONE;
    return with_pin();
}
/* The next one that is freed is told. */
static bool with_freed(void)
{
    void *p[31];

    for (unsigned i = 0; i < 31; i++)
        CHECK(p[i] = acre_allocx(victim_heap, 8, 0, ACRE_SOFT));
    for (unsigned i = 0; i < 31; i++)
        acre_free(victim_heap, p[i]);
    return with_pin_to_free();
}
static void run_alloc_soft(void)
{
    block = acre_allocx(victim_heap, LARGE, 0, ACRE_SOFT);
}
static void run_alloc_soft_for_heap(void)
{
    block = acre_allocx(victim_heap, LARGE, 0, ACRE_SOFT | ACRE_HEAP_OWNED);
}
static void run_pin(void)
{
    block = acre_pin(victim_heap, stage->handed[0]);
}
static void run_unpin(void)
{
    acre_unpin(victim_heap, block);
}

/* ---- coming and going ---- */

static bool with_some(void)
{
    CHECK(get_n(SMALL, 200));
    CHECK(get_n(512, 20));
    return with_kept_block() && get(LARGE) != NULL;
}
static bool with_much_to_trim(void)
{
    static void *p[400];

    CHECK(with_all_kept() && fill_pool());
    for (unsigned i = 0; i < 400; i++)
        CHECK(p[i] = get(i % 2 ? 512 : 4096));
    for (unsigned i = 0; i < 400; i++)
        if (i % 50 != 0)
            acre_free(victim_heap, p[i]);
    return true;
}
static void run_open(void)
{
    (void)acre_open(&victim_heap, stage->socket, WORLD_TENANT);
}
static void run_close(void)
{
    acre_close(victim_heap);
}
static void run_trim(void)
{
    (void)acre_trim(victim_heap);
}
static void run_map_slot(void)
{
    block = acre_pointer(victim_heap, (3ull << SLOT_SHIFT) + (2u << 20));
}
static void run_nothing(void) {}
static void run_fork(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        void *p = acre_alloc(victim_heap, SMALL);
        acre_free(victim_heap, p);
        _exit(0);
    }
}

#define HANDED(fn) .hand = fn, .prepare = take_handed

const struct op ops[] = {
    {"alloc small, from the stack", SMALL, .prepare = with_stack, .run = run_alloc_small},
    {"alloc small, from the window", SMALL, .prepare = with_window, .run = run_alloc_small},
    {"alloc small, next window", SMALL, .prepare = with_empty_window, .run = run_alloc_small},
    {"alloc small, by a hint", SMALL, .prepare = with_hinted_slab, .run = run_alloc_small},
    {"alloc small, fresh slab", SMALL, .leave = leave_garbage, .prepare = with_full_slab,
     .run = run_alloc_small},
    {"alloc small, ended thread's", SMALL, .prepare = with_ended_thread, .run = run_alloc_small},
    {"alloc small, asks the daemon", SMALL, .leave = leave_garbage, .prepare = with_empty_pool,
     .run = run_alloc_small},
    {"alloc small, a dead one's slab", SMALL, .leave = leave_published, .run = run_alloc_small},
    {"alloc small, for the heap", SMALL, .prepare = with_window, .run = run_alloc_small_for_heap,
     .n_strays = 1},
    {"alloc large, kept", LARGE, .prepare = with_kept_block, .run = run_alloc_large},
    {"alloc large, from the pool", LARGE, .prepare = fill_pool, .run = run_alloc_large},
    {"alloc large, asks the daemon", LARGE, .run = run_alloc_large},
    {"alloc large, aligned", LARGE, .run = run_alloc_aligned},
    {"alloc large, for the heap", LARGE, .prepare = with_kept_block,
     .run = run_alloc_large_for_heap, .n_strays = 1},
    {"alloc 3 MiB", LARGE, .run = run_alloc_huge},
    {"free small, own", SMALL, .prepare = with_small, .run = run_free},
    {"free small, another thread's", SMALL, .prepare = with_small_of_thread, .run = run_free},
    {"free small, another client's", SMALL, HANDED(hand_own_small), .run = run_free},
    {"free small, published", SMALL, HANDED(hand_published_small), .run = run_free},
    {"free large, own", LARGE, .prepare = with_large, .run = run_free},
    {"free large, own, evicts", LARGE, .prepare = with_all_kept, .run = run_free},
    {"free large, another client's", LARGE, HANDED(hand_own_large), .run = run_free},
    {"free large, published", LARGE, HANDED(hand_published_large), .run = run_free},
    {"free large, an orphan", LARGE, .leave = leave_published_large, .prepare = take_handed,
     .run = run_free},
    {"free 5 MiB, own", LARGE, .prepare = with_huge, .run = run_free},
    {"free 5 MiB, another client's", LARGE, HANDED(hand_own_huge), .run = run_free},
    {"realloc small, moves", SMALL, .prepare = with_small, .run = run_grow_small},
    {"realloc small, published, moves", SMALL, HANDED(hand_published_small), .run = run_grow_small,
     .n_strays = 1, .n_published = 1},
    {"realloc large, grows in place", LARGE, .prepare = with_pool_behind,
     .run = run_to_half_megabyte},
    {"realloc large, published, grows", LARGE, .prepare = with_pool_behind_published,
     .run = run_to_half_megabyte, .n_published = 1},
    {"realloc large, shrinks in place", LARGE, .prepare = with_two_megabytes, .run = run_to_large},
    {"realloc large, published, shrinks", LARGE, .prepare = with_published_megabyte,
     .run = run_to_large, .n_published = 1},
    {"realloc large, moves", LARGE, .prepare = with_large, .run = run_to_three_large},
    {"realloc large, published, moves", LARGE, HANDED(hand_published_large),
     .run = run_to_three_large, .n_strays = 1, .n_published = 1},
    {"publish small", SMALL, .prepare = with_small_to_publish, .run = run_publish},
    {"publish large", LARGE, .prepare = with_large_to_publish, .run = run_publish},
    {"publish all", SMALL, .prepare = with_many_to_publish, .run = run_publish_all},
    {"give small", SMALL, .prepare = with_small_to_give, .run = run_give},
    {"give large", LARGE, .prepare = with_large_to_give, .run = run_give},
    {"adopt small", SMALL, HANDED(hand_published_small), .run = run_adopt},
    {"adopt large", LARGE, HANDED(hand_published_large), .run = run_adopt},
    {"set a root", SMALL, .prepare = with_small_to_publish, .run = run_root_set,
     .after = root_names_it},
    {"publish small at a slot", SMALL, .hand = hand_slot, .prepare = link_small,
     .run = run_publish_at, .after = slot_names_it, .flags = OP_LINKS},
    {"publish large at a slot", LARGE, .hand = hand_slot, .prepare = link_large,
     .run = run_publish_at, .after = slot_names_it, .flags = OP_LINKS},
    {"publish before another", SMALL, .hand = hand_head, .prepare = link_before,
     .run = run_publish_at, .after = slot_names_it, .flags = OP_LINKS},
    {"take small at a slot", SMALL, .hand = hand_linked_small, .prepare = take_slot,
     .run = run_take_at, .after = slot_names_it, .flags = OP_LINKS},
    {"take large at a slot", LARGE, .hand = hand_linked_large, .prepare = take_slot,
     .run = run_take_at, .after = slot_names_it, .flags = OP_LINKS},
    {"take the first of a list", SMALL, .hand = hand_list, .prepare = take_slot, .run = run_take_at,
     .after = slot_names_it, .flags = OP_LINKS},
    {"unlink and free small", SMALL, .hand = hand_linked_small, .prepare = take_slot,
     .run = run_unlink_free, .after = slot_names_it, .flags = OP_LINKS},
    {"unlink and free large", LARGE, .hand = hand_linked_large, .prepare = take_slot,
     .run = run_unlink_free, .after = slot_names_it, .flags = OP_LINKS},
    {"alloc soft, the first", LARGE, .run = run_alloc_soft},
    {"alloc soft", LARGE, .prepare = with_soft, .run = run_alloc_soft},
    {"alloc soft, for the heap", LARGE, .prepare = with_soft, .run = run_alloc_soft_for_heap,
     .n_strays = 1},
    {"publish soft", LARGE, .prepare = with_soft_to_publish, .run = run_publish},
    {"pin, the first", LARGE, .hand = hand_soft, .run = run_pin},
    {"unpin", LARGE, .hand = hand_soft, .prepare = with_pin, .run = run_unpin},
    {"free soft, own", LARGE, .prepare = with_soft, .run = run_free},
    {"free soft, published", LARGE, .hand = hand_soft, .prepare = with_pin_to_free,
     .run = run_free},
    {"free soft, and tell", LARGE, .hand = hand_soft, .prepare = with_freed, .run = run_free},
    {"reserve", SMALL, .leave = leave_garbage, .prepare = with_window, .run = run_reserve},
    {"map another segment", SMALL, .prepare = with_small, .run = run_map_slot},
    {"trim", 512, .prepare = with_much_to_trim, .run = run_trim},
    {"open", SMALL, .run = run_open, .flags = OP_UNOPENED},
    {"close", SMALL, .prepare = with_some, .run = run_close},
    {"thread exit", SMALL, .prepare = with_some, .run = run_nothing, .flags = OP_IN_THREAD},
    {"fork", SMALL, .prepare = with_some, .run = run_fork, .flags = OP_FORKS},
    {"first alloc of a forked child", SMALL, .prepare = with_some, .run = run_alloc_small,
     .flags = OP_IN_CHILD},
};
const unsigned n_ops = sizeof(ops) / sizeof(ops[0]);
