/* SPDX-License-Identifier: Apache-2.0 */
/* map.h - what each unit of a heap is, whose, and how full; and what that says of fragmentation.
 * Theory in map.c. */
#ifndef ACRECTL_MAP_H
#define ACRECTL_MAP_H

#include "tools/look/peer.h"
#include "shm/buddy.h"
#include "shm/sizeclass.h"

enum map_kind {
    MAP_TABLES,  /* the segment's own */
    MAP_FREE,    /* nobody's */
    MAP_RESERVE, /* granted, not cut yet */
    MAP_CUT,     /* a client's, in no slab or block: being cut, or on its way back */
    MAP_SLAB,
    MAP_LARGE,
    MAP_KEPT,    /* a large block that was freed, and that its client keeps for the next one */
    MAP_UNCLEAR, /* table and books disagree: it has just changed, or is damaged */
    MAP_KINDS
};

/* A slab, a large block, or all there is of one kind and holder in a row. */
struct map_run {
    uint32_t unit, n_units; /* in the segment */
    uint8_t kind;           /* enum map_kind */
    uint8_t class_idx;      /* of a slab, as all below */
    uint8_t order;
    tag_t holder;              /* whose units: a client, TAG_HEAP: of nobody any more; 0: free */
    tag_t owner;               /* of all live blocks (a large one, too); 0: none, or several */
    uint16_t n_blocks, n_live; /* 1 and 0 or 1 for a large block */
    uint16_t n_published,
        n_lent; /* of the live ones: the heap's; another client's than the holder */
};

struct map_segment {
    uint32_t slot, n_units;
    size_t first_run, n_runs;
};

struct map_client { /* that holds units */
    tag_t id;
    uint32_t pid; /* 0: it has just gone */
    char name[CLIENT_NAME_BYTES];
    uint64_t n_units, n_slabs, n_large;
    uint64_t live_bytes; /* in its units, whosever */
};

struct map_figures { /* the bytes of all kinds are all there is */
    uint64_t bytes[MAP_KINDS];
    uint64_t live_bytes, live_blocks, published_bytes;
    uint64_t n_slabs, n_large;
    uint64_t free_block_bytes, overhead_bytes; /* of slabs: no live block, no block at all */
    uint64_t n_sparse, sparse_bytes, sparse_live_bytes; /* slabs with under a quarter live */
    uint64_t n_free_runs, longest_free_bytes;
    uint64_t free_spans[BUDDY_ORDER_MAX + 1]; /* of 2^order units, as the daemon gives them out */
};

struct map {
    char name[TENANT_NAME_BYTES];
    bool is_still; /* the books did not change while it was taken */
    size_t n_runs, n_clients, n_segments;
    struct map_run *runs; /* of the first segment, of the second ..., by unit, without a gap */
    struct map_segment segments[HEAP_SLOTS];
    struct map_client *clients; /* the one with most units first */
    uint32_t rank[CLIENT_IDS];  /* 1 + index in clients; 0: none */
    struct map_figures figures;
};

/* All that peer_call() may say; -ENOMEM. */
int map_take(struct map **ret_map, struct peer *peer, const char *tenant);
void map_free(struct map *map);

/* "slab" */
const char *map_kind_name(enum map_kind kind);
uint64_t map_live_bytes(const struct map_run *run);
/* Of all segments. */
uint64_t map_bytes(const struct map *map);

/* Some units of a segment as one cell of a picture: what most of them are. */
struct map_cell {
    const struct map_run *run; /* the one with most units of the kind that has most */
    bool begins;               /* the run does, in here */
    uint32_t fill;             /* live blocks of its slabs, in thousandths; 0: none at all */
};
/* [unit, unit + n) of the segment, cut at its end. *run: index of a run at or before unit; it is
 * moved on to the one at the end. */
struct map_cell map_cell(const struct map *map, const struct map_segment *segment, uint32_t unit,
                         uint32_t n, size_t *run);
/* The smallest power of two of units to a cell so that there are at most so many rows of cells, if
 * that can be: a segment begins a row. */
uint32_t map_cell_units(const struct map *map, uint32_t row_cells, uint32_t n_rows_max);

#endif
