/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slab.h - a slab that this process holds, and its owner map seen through a window of 64 tags.
 */
#ifndef ACRE_CLIENT_SLAB_H
#define ACRE_CLIENT_SLAB_H

#include "client/heap.h"

/* Private record: the truth lies in the unit table and the owner map. */
struct slab {
    struct slab *next, *prev; /* ring of the bin */
    char *head;               /* address of the slab */
    _Atomic uint64_t *entries;
    _Atomic uint8_t *hint;
    uint8_t geo;
};

#define WINDOW     64u
#define PAGE_BYTES 4096u

static inline uint32_t slab_n_blocks(const struct slab *s)
{
    return geo_infos[s->geo].n_blocks;
}

static inline _Atomic tag_t *slab_tag(const struct slab *s, uint32_t idx)
{
    return (_Atomic tag_t *)(void *)s->head + idx;
}

static inline char *slab_block(const struct slab *s, uint32_t idx)
{
    return s->head + geo_table[s->geo].first + (size_t)idx * geo_table[s->geo].size;
}

/* Free blocks of the window that begins with block idx, a multiple of WINDOW: bit i is block idx +
 * i. */
uint64_t slab_scan(const struct slab *s, uint32_t idx);
bool slab_is_empty(const struct slab *s);
/* Gives the system the pages under which there are only free blocks. Stack and mask of the bin are
 * empty. */
void slab_punch_free(const struct slab *s);

/* From now on who frees a block of the slab leaves a hint that was not there before. A scan comes
 * next: clear, fence, scan; pairs with acre_free()'s hint. */
void slab_clear_hint(struct slab *s);

/* A fresh slab of 2^order units out of the pool, its map 0, held by nobody yet. NULL: the pool has
 * none. */
struct slab *slab_cut(struct acre_heap *heap, unsigned class_idx, unsigned order);
/* A slab of the class that the daemon handed over: its maker has died, its blocks live on. NULL: it
 * is none, or the daemon has taken it back. */
struct slab *slab_adopt(struct acre_heap *heap, unsigned class_idx, uint32_t unit, uint32_t token);
/* From here on it is the cache's: whoever finds a block through the entries finds a valid tag. */
void slab_hold(struct slab *s, uint32_t token);
/* An empty slab's units go back to the pool, and the record with them. False: a sweep runs, and the
 * slab stays. */
bool slab_release(struct acre_heap *heap, struct slab *s, uint32_t token);

#endif
