/* SPDX-License-Identifier: Apache-2.0 */
/*
 * THE MAP is a split-ordered list (Shalev and Shavit, 2006): one list of all entries in the order
 * of their bit-reversed hashes, and a directory of buckets, each the offset of an entry without a
 * word in that list. Doubling the directory moves nothing: a new bucket's entry joins the list on
 * first use. Entries come by one CAS and never leave: no lock, no ABA, nothing to reclaim. Links
 * are offsets. A known word costs a bucket, one to three entries and no atomic read-modify-write.
 *
 * OWNERS. A block must outlive the worker that makes it, and nothing may stay when the whole job is
 * killed. So all belong to one client, the keeper: the job's parent. A worker allocates, fills, and
 * *gives* the block to the keeper, by one store: killed before, Acre takes it back; after, it is
 * the keeper's and goes with it. The kernel kills the workers as it ends the parent, before Acre
 * can sweep: an order to expect, not a promise. Processes that live on without a keeper use
 * acre_publish().
 *
 * WHAT A KILL LEAVES: a prefix of the process's stores in program order. (All that a successor
 * looks at are release stores: the compiler keeps that order too.) A writer number is one process's
 * at a time; its successor starts when it is dead. Each writer has a note in the heap, `pending`.
 *
 *   killed after            the successor finds               and does
 *   ALLOCATED, FILLED       no note                           nothing: Acre takes the block back
 *   NOTED                   a note, not the keeper's block*   clears it: Acre takes the block back
 *   GIVEN, PLACED           a note, keeper's, not linked      frees the block, clears the note
 *   LINKED                  a note, keeper's, linked          clears the note
 *   FREED (lost a race)     a note, not the keeper's block*   clears the note
 *   CLEARED, BUCKET, GROWN  no note, a whole list             nothing
 *
 * (*) Or meanwhile it is another's. If it is the keeper's again, another worker gave it, who first
 * put its own number in as `maker`: not ours, since we have made nothing yet. So "keeper's, our
 * number, not linked" is exact: no stranger's block is touched. (If published it would not be: a
 * stranger's published block may still hold our old bytes. Leave a stray block then: one a kill at
 * most.)
 */
#include "map.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define FIRST_LEVEL_ORDER 4u /* 16 buckets: small, so that small texts grow the table too */
#define WORDS_PER_BUCKET  2u /* more: double */

struct buckets {
    uint64_t maker;
    _Atomic acre_off entry[];
};

static_assert(offsetof(struct buckets, maker) == offsetof(struct map_entry, maker), "one place");

/* Where a word belongs in the list: between prev and next_off; `found` if it is there. */
struct place {
    struct map_entry *prev;
    acre_off next_off;
    struct map_entry *found;
};

/* ---- keys and levels ---- */

static uint64_t reverse_bits(uint64_t x)
{
    x = (x >> 1 & 0x5555555555555555ull) | (x & 0x5555555555555555ull) << 1;
    x = (x >> 2 & 0x3333333333333333ull) | (x & 0x3333333333333333ull) << 2;
    x = (x >> 4 & 0x0f0f0f0f0f0f0f0full) | (x & 0x0f0f0f0f0f0f0f0full) << 4;
    return __builtin_bswap64(x);
}

static uint64_t word_key(const struct word *word)
{
    return reverse_bits(word->hash) | 1;
}

static unsigned top_bit(uint64_t x)
{
    assert(x != 0);
    return 63u - (unsigned)__builtin_clzll(x);
}

/* Level 0 holds the first 16 buckets, level k >= 1 those with top bit 3 + k. */
static unsigned bucket_level(uint64_t bucket)
{
    return bucket >> FIRST_LEVEL_ORDER ? top_bit(bucket) - FIRST_LEVEL_ORDER + 1 : 0;
}

static uint64_t level_first(unsigned level)
{
    return level ? 1ull << (FIRST_LEVEL_ORDER + level - 1) : 0;
}

static uint64_t level_size(unsigned level)
{
    return 1ull << (FIRST_LEVEL_ORDER + (level ? level - 1 : 0));
}

/* ---- the shared heap ---- */

static acre_off load(_Atomic acre_off *at)
{
    return atomic_load_explicit(at, memory_order_acquire); /* pairs with store() and cas() */
}

static void store(_Atomic acre_off *at, acre_off off)
{
    atomic_store_explicit(at, off, memory_order_release);
}

static bool cas(_Atomic acre_off *at, acre_off from, acre_off to)
{
    return atomic_compare_exchange_strong_explicit(at, &from, to, memory_order_acq_rel,
                                                   memory_order_acquire);
}

/* An offset that came out of the heap, as an address here. NULL and errno: it cannot be reached. */
static void *at(struct map *map, acre_off off)
{
    if (off == 0)
        errno = EINVAL; /* of itself acre_pointer(0) is no error */
    return acre_pointer(map->heap, off);
}

/* ---- new blocks ---- */

static struct map_entry *entry_new(struct map *map, uint64_t key, const struct word *word)
{
    size_t n_cells = word ? map->n_writers : 0, length = word ? word->length : 0;
    size_t cells_bytes = n_cells * sizeof(uint64_t);
    struct map_entry *entry = acre_alloc(map->heap, sizeof(*entry) + cells_bytes + length);
    if (!entry)
        return NULL;
    kill_point(map->kill, POINT_ALLOCATED);
    memset(entry, 0, sizeof(*entry) + cells_bytes);
    entry->maker = map->writer;
    entry->key = key;
    entry->length = length;
    unsigned char *letters = (unsigned char *)&entry->cells[n_cells];
    for (size_t i = 0; i < length; i++)
        letters[i] = small_letter(word->letters[i]);
    kill_point(map->kill, POINT_FILLED);
    return entry;
}

static struct buckets *buckets_new(struct map *map, unsigned level)
{
    size_t n_bytes = sizeof(struct buckets) + level_size(level) * sizeof(acre_off);
    struct buckets *buckets = acre_calloc(map->heap, 1, n_bytes);
    if (!buckets)
        return NULL;
    kill_point(map->kill, POINT_ALLOCATED);
    buckets->maker = map->writer;
    kill_point(map->kill, POINT_FILLED);
    return buckets;
}

/* Makes a filled block the keeper's. Noted first: from the give on only the note leads to it. */
static int give_to_keeper(struct map *map, void *block)
{
    store(map->pending, acre_offset(map->heap, block));
    kill_point(map->kill, POINT_NOTED);
    int r = acre_give(map->heap, block, map->keeper);
    kill_point(map->kill, POINT_GIVEN);
    return r;
}

/* The noted block is linked, or it is surplus: somebody else has linked its like before. */
static void settle(struct map *map, void *surplus)
{
    if (surplus) {
        acre_free(map->heap, surplus);
        kill_point(map->kill, POINT_FREED);
    } else {
        kill_point(map->kill, POINT_LINKED);
    }
    store(map->pending, 0);
    kill_point(map->kill, POINT_CLEARED);
}

/* ---- the list ---- */

static bool entry_is(struct map *map, const struct map_entry *entry, const struct word *word)
{
    if (!word) /* a bucket's entry: the only one with its key */
        return true;
    if (entry->length != word->length)
        return false;
    const unsigned char *letters = map_letters(map, entry);
    for (size_t i = 0; i < word->length; i++)
        if (letters[i] != small_letter(word->letters[i]))
            return false;
    return true;
}

/* From `from`, whose key is lower, to the place of a key: behind all entries with the same one. */
static int seek(struct map *map, struct map_entry *from, uint64_t key, const struct word *word,
                struct place *ret)
{
    *ret = (struct place){.prev = from};
    for (;;) {
        ret->next_off = load(&ret->prev->next);
        if (ret->next_off == 0)
            return 0;
        struct map_entry *entry = at(map, ret->next_off);
        if (!entry)
            return -errno;
        if (entry->key > key)
            return 0;
        if (entry->key == key && entry_is(map, entry, word)) {
            ret->found = entry;
            return 0;
        }
        ret->prev = entry;
    }
}

/* Links a new entry in behind `from`, or finds that its like is there already. */
static int link_entry(struct map *map, struct map_entry *from, struct map_entry *entry,
                      const struct word *word, struct map_entry **ret_linked)
{
    acre_off off = acre_offset(map->heap, entry);
    for (;;) {
        struct place place;
        int r = seek(map, from, entry->key, word, &place);
        if (r)
            return r;
        if (place.found) {
            *ret_linked = place.found;
            return 0;
        }
        store(&entry->next, place.next_off);
        kill_point(map->kill, POINT_PLACED);
        if (cas(&place.prev->next, place.next_off, off)) {
            *ret_linked = entry;
            return 0;
        }
        from = place.prev; /* entries never leave: no need to begin anew */
    }
}

/* A new entry for a key that was not there a moment ago. */
static int add_entry(struct map *map, struct map_entry *from, uint64_t key, const struct word *word,
                     struct map_entry **ret_entry)
{
    struct map_entry *linked, *entry = entry_new(map, key, word);
    if (!entry)
        return -errno;
    int r = give_to_keeper(map, entry);
    if (!r)
        r = link_entry(map, from, entry, word, &linked);
    if (r)
        return r; /* the note stays: the job has failed, its keeper gives all back */
    settle(map, linked == entry ? NULL : entry);
    *ret_entry = linked;
    return 0;
}

/* ---- the directory ---- */

static int bucket_slot(struct map *map, uint64_t bucket, _Atomic acre_off **ret_slot)
{
    unsigned level = bucket_level(bucket);
    assert(level < MAP_LEVELS);
    struct buckets *buckets = at(map, load(&map->root->level[level]));
    if (!buckets)
        return -errno;
    *ret_slot = &buckets->entry[bucket - level_first(level)];
    return 0;
}

/* The entry where a bucket begins. Made on first use, found from the bucket that it was split from:
 * the one without its top bit. */
static int bucket_entry(struct map *map, uint64_t bucket, struct map_entry **ret_entry)
{
    _Atomic acre_off *slot;
    int r = bucket_slot(map, bucket, &slot);
    if (r)
        return r;
    acre_off off = load(slot);
    if (off) {
        *ret_entry = at(map, off);
        return *ret_entry ? 0 : -errno;
    }
    struct map_entry *parent;
    r = bucket_entry(map, bucket & ~(1ull << top_bit(bucket)), &parent);
    if (!r)
        r = add_entry(map, parent, reverse_bits(bucket), NULL, ret_entry);
    if (r)
        return r;
    store(slot, acre_offset(map->heap, *ret_entry)); /* whoever does it stores the same */
    kill_point(map->kill, POINT_BUCKET);
    return 0;
}

static int add_level(struct map *map, unsigned level)
{
    struct buckets *buckets = buckets_new(map, level);
    if (!buckets)
        return -errno;
    int r = give_to_keeper(map, buckets);
    if (r)
        return r;
    bool linked = cas(&map->root->level[level], 0, acre_offset(map->heap, buckets));
    settle(map, linked ? NULL : buckets);
    return 0;
}

static int grow_if_full(struct map *map)
{
    struct map_root *root = map->root;
    uint64_t n_buckets = load(&root->n_buckets);
    unsigned level = bucket_level(n_buckets);
    if (load(&root->n_words) <= n_buckets * WORDS_PER_BUCKET || level == MAP_LEVELS)
        return 0;
    int r = load(&root->level[level]) ? 0 : add_level(map, level);
    if (r)
        return r;
    cas(&root->n_buckets, n_buckets, 2 * n_buckets); /* or another worker has just done it */
    kill_point(map->kill, POINT_GROWN);
    return 0;
}

/* ---- public ---- */

int map_init(struct map *map)
{
    struct kill_plan never = {0};
    map->kill = &never;
    struct buckets *buckets = buckets_new(map, 0);
    struct map_entry *head = buckets ? entry_new(map, 0, NULL) : NULL;
    map->kill = NULL;
    if (!head)
        return -errno; /* what there is goes with the caller's heap */
    store(&buckets->entry[0], acre_offset(map->heap, head));
    store(&map->root->head, acre_offset(map->heap, head));
    store(&map->root->level[0], acre_offset(map->heap, buckets));
    store(&map->root->n_buckets, level_size(0));
    return 0;
}

int map_get(struct map *map, const struct word *word, struct map_entry **ret_entry)
{
    assert(map->writer >= 1 && map->writer <= map->n_writers);
    uint64_t key = word_key(word), n_buckets = load(&map->root->n_buckets);
    struct map_entry *bucket;
    int r = bucket_entry(map, word->hash & (n_buckets - 1), &bucket);
    if (r)
        return r;
    struct place place;
    r = seek(map, bucket, key, word, &place);
    if (r)
        return r;
    *ret_entry = place.found;
    if (place.found)
        return 0;
    r = add_entry(map, place.prev, key, word, ret_entry);
    if (r)
        return r;
    atomic_fetch_add_explicit(&map->root->n_words, 1, memory_order_relaxed);
    return grow_if_full(map);
}

/* 1 if a block is part of the map, 0 if not, or a negative errno. Walks it all: once per killed
 * worker. */
static int is_linked(struct map *map, acre_off off)
{
    for (unsigned level = 0; level < MAP_LEVELS; level++)
        if (load(&map->root->level[level]) == off)
            return 1;
    acre_off next = load(&map->root->head);
    while (next != 0 && next != off) {
        struct map_entry *entry = at(map, next);
        if (!entry)
            return -errno;
        next = load(&entry->next);
    }
    return next == off;
}

int map_recover(struct map *map)
{
    acre_off off = load(map->pending);
    if (off == 0)
        return 0;
    uint64_t *maker = at(map, off);
    if (!maker)
        return -errno;
    if (acre_owner(map->heap, maker) == map->keeper && *maker == map->writer) {
        int linked = is_linked(map, off);
        if (linked < 0)
            return linked;
        if (!linked)
            acre_free(map->heap, maker);
    }
    kill_point(map->kill, POINT_RESOLVED);
    store(map->pending, 0);
    return 0;
}

int map_next_word(struct map *map, struct map_entry *entry, struct map_entry **ret_word)
{
    acre_off off = load(entry ? &entry->next : &map->root->head);
    for (struct map_entry *next; off != 0; off = load(&next->next)) {
        next = at(map, off);
        if (!next)
            return -errno;
        if (next->length == 0)
            continue;
        *ret_word = next;
        return 0;
    }
    *ret_word = NULL;
    return 0;
}

int map_free(struct map *map)
{
    acre_off off = load(&map->root->head);
    while (off != 0) {
        struct map_entry *entry = at(map, off);
        if (!entry)
            return -errno;
        off = load(&entry->next);
        store(&map->root->head, off);
        acre_free(map->heap, entry);
    }
    for (unsigned level = 0; level < MAP_LEVELS; level++) {
        acre_off level_off = load(&map->root->level[level]);
        acre_free(map->heap, acre_pointer(map->heap, level_off));
    }
    return 0;
}
