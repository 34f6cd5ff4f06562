/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map.h - a hash map word -> counts in a shared heap: many processes add to it at the same time
 * without a lock, it grows meanwhile, and it survives that any of them is killed at any
 * instruction. The theory is in map.c.
 */
#ifndef WORDINDEX_MAP_H
#define WORDINDEX_MAP_H

#include <acre.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kill.h"
#include "text.h"

#define MAP_LEVELS 40u /* the directory: 16 buckets, then 16, 32, 64 ... more: 2^43 at most */

/* ---- in the heap: offsets only ---- */

struct map_root {
    _Atomic acre_off head; /* the list's first entry: bucket 0 */
    _Atomic uint64_t n_buckets;
    _Atomic uint64_t n_words; /* a hint for growing: a kill may leave it short */
    _Atomic acre_off level[MAP_LEVELS];
};

struct map_entry {
    uint64_t maker; /* number of the writer that made it; first in every block that the map makes */
    _Atomic acre_off next;
    uint64_t key;             /* bit-reversed hash: odd of words, even of buckets */
    uint64_t length;          /* letters; 0: a bucket */
    _Atomic uint64_t cells[]; /* of words: one count per writer, then the letters */
};

/* ---- in each process ---- */

struct map {
    struct acre_heap *heap;
    struct map_root *root;
    uint32_t n_writers;

    /* of a writer only */
    uint32_t writer;           /* 1 to n_writers; nobody else has this number at the same time */
    acre_client keeper;        /* who owns the map's blocks */
    _Atomic acre_off *pending; /* the writer's note, in the heap */
    struct kill_plan *kill;
};

/* 0 or a negative errno, here and below. Makes an empty map; its blocks belong to the caller. */
int map_init(struct map *map);

/* The entry of a word, made if there is none. Writers only. */
int map_get(struct map *map, const struct word *word, struct map_entry **ret_entry);

/* To be called once by whoever follows a dead writer under its number. */
int map_recover(struct map *map);

/* The word that follows an entry (NULL: the first one); *ret_word is NULL at the end. */
int map_next_word(struct map *map, struct map_entry *entry, struct map_entry **ret_word);

/* Frees every block of a map that nobody uses any more. */
int map_free(struct map *map);

static inline const unsigned char *map_letters(const struct map *map, const struct map_entry *entry)
{
    return (const unsigned char *)&entry->cells[map->n_writers];
}

static inline uint64_t map_count(const struct map *map, const struct map_entry *entry)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < map->n_writers; i++)
        sum += atomic_load_explicit(&entry->cells[i], memory_order_relaxed);
    return sum;
}

#endif
