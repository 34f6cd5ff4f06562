/* SPDX-License-Identifier: Apache-2.0 */
/* seg.h - a segment as the daemon holds it: descriptors, tables mapped, free units, and what is
 * known of the pages behind these. */
#ifndef ACRE_DAEMON_SEG_H
#define ACRE_DAEMON_SEG_H

#include "shm/base.h"
#include "shm/buddy.h"
#include "shm/layout.h"
#include "shm/segment.h"

struct seg {
    uint32_t slot, n_slots;
    int fd;        /* the daemon's own */
    int client_fd; /* another description of the same file: what clients get */
    struct segment_shape shape;
    char *base; /* mapped: the whole, or the tables alone if it spans slots */
    uint64_t mapped_bytes;
    struct buddy *buddy;  /* NULL: it spans slots and holds one block */
    uint32_t span_units;  /* then: units of that block, 0 = free */
    uint32_t unfit_units; /* no run of so many is free; UINT32_MAX: not known of any */
    uint32_t page_units;  /* units to a page of the system: 1 (or less), or 256 */
    uint64_t *dirty;      /* bit per unit: free, perhaps with pages behind it */
    uint64_t *stale;      /* dirty already at the last tick */
    uint64_t *warm;       /* free, with all its pages */
    uint64_t *busy;       /* its pages are being made just now */
    uint64_t *heads;      /* an orphan begins there; orphan.c */
    uint32_t *orphans;    /* and where it stands in the lists; NULL before the first */
    uint32_t n_dirty, n_warm;
    bool is_kept;     /* for the next daemon, and in the books: deposit.c */
    bool is_known;    /* by a client: something was granted here once, or it was mapped */
    bool is_retiring; /* nothing is granted here; retire.c */
    bool is_soft;     /* made for soft blocks: others lie here only where there is no room */
    bool is_late;     /* retiring for so long that nobody counts on it */
    uint64_t retiring_since_ns;
    uint32_t n_mappers, n_letting_go; /* clients */
    bool span_stale;                  /* what `stale` is for a segment over several slots */
};

/* Another description of the same file, for reading and writing. */
int seg_reopen(int fd, int *ret_fd);
/* -ENOMEM, -EMFILE, -ENFILE. */
int seg_new(struct seg **ret_seg, const char *name, uint32_t slot, uint64_t heap_id,
            uint32_t n_units);
/* A sealed segment of another daemon's, of that size; all its units are taken. fd is its own on
 * success. -EPROTO: it is something else. */
int seg_restore(struct seg **ret_seg, int fd, uint32_t slot, uint64_t size_bytes);
/* Closes all but fd, which goes to *ret_fd if that is not NULL. */
void seg_free(struct seg *seg, int *ret_fd);

/* Units that can be granted: all but the tables. */
static inline uint32_t seg_usable(const struct seg *seg)
{
    return seg->shape.n_units - seg->shape.n_meta;
}
/* Is [unit, unit + n) inside the usable part? For foreign numbers. */
static inline bool seg_contains(const struct seg *seg, uint32_t unit, uint32_t n)
{
    return unit >= seg->shape.n_meta && unit < seg->shape.n_units && n > 0 &&
           n <= seg->shape.n_units - unit;
}

uint32_t seg_n_free(const struct seg *seg);

/*
 * Taking free units goes in two steps. Hold: a span of 2^order, or exactly n, aligned to
 * 2^align_order units, leaves the allocator; BUDDY_NONE: there is none. Then either commit, which
 * forgets what was known of their pages and says whether all of these were there; or let go, as if
 * nothing had been.
 */
uint32_t seg_hold_span(struct seg *seg, unsigned order);
uint32_t seg_hold_run(struct seg *seg, uint32_t n, unsigned align_order);
bool seg_commit(struct seg *seg, uint32_t unit, uint32_t n);
void seg_let_go(struct seg *seg, uint32_t unit, uint32_t n);
/* Gives them back and marks them dirty. */
void seg_give(struct seg *seg, uint32_t unit, uint32_t n);

/*
 * Decay: takes up to max_units that are free and were dirty at the last mark out of the allocator,
 * one run a call (false: none), so that nobody gets them while their pages are punched out; then
 * gives them back clean. Whole pages only: a huge one goes when all its units are free.
 */
bool seg_take_stale(struct seg *seg, uint32_t max_units, uint32_t *ret_unit, uint32_t *ret_n);
void seg_give_clean(struct seg *seg, uint32_t unit, uint32_t n);
void seg_mark_stale(struct seg *seg);
/* These are to stay. */
void seg_unmark_stale(struct seg *seg, uint32_t unit, uint32_t n);

/* The first run in [unit, unit + n) that is clean, or (dirty) that is dirty and not warm. false:
 * none. */
bool seg_find_cold(const struct seg *seg, uint32_t unit, uint32_t n, bool dirty, uint32_t *ret_unit,
                   uint32_t *ret_n);
/* Around the making of pages, whoever has the units meanwhile: none of them is punched. Those that
 * are free at the end are dirty, and warm if all pages are there. */
void seg_begin_warming(struct seg *seg, uint32_t unit, uint32_t n);
void seg_end_warming(struct seg *seg, uint32_t unit, uint32_t n, bool is_warm);

void seg_set_head(struct seg *seg, uint32_t unit, bool is_head);
/* Is a head at unit, and none behind it in [unit, unit + n)? */
bool seg_is_headed(const struct seg *seg, uint32_t unit, uint32_t n);

/* Entries: each is foreign, and loaded once. Stores are for units whose owner is the daemon or is
 * dead. */
uint64_t seg_entry(const struct seg *seg, uint32_t unit);
void seg_store_plain(struct seg *seg, uint32_t unit, uint32_t n, enum unit_state state,
                     uint32_t holder);
void seg_store_slab(struct seg *seg, uint32_t unit, unsigned geo, enum unit_state state,
                    uint32_t holder);
/* flags: 0 or LARGE_SOFT. */
void seg_store_large(struct seg *seg, uint32_t unit, uint32_t n, uint64_t flags, tag_t holder_id);
bool seg_cas_entry(struct seg *seg, uint32_t unit, uint64_t expected, uint64_t desired);
/* entry: the caller's copy of the unit's. 0: the block was free when that was read, or is now. */
tag_t seg_large_tag(const struct seg *seg, uint32_t unit, uint64_t entry);
uint8_t seg_take_hint(struct seg *seg, uint32_t unit);
void seg_set_hint(struct seg *seg, uint32_t unit);

/* Copies a slab's owner map into tags[geo's n_blocks] and counts the tags that are not 0. -EIO. */
int seg_read_tags(const struct seg *seg, uint32_t unit, unsigned geo, tag_t *tags,
                  uint32_t *ret_n_live);

void seg_assert_valid(const struct seg *seg);

#endif
