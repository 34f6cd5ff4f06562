/* SPDX-License-Identifier: Apache-2.0 */
/* check.h - does a segment agree with the books of the daemon? Theory in check.c. */
#ifndef ACRE_SHM_CHECK_H
#define ACRE_SHM_CHECK_H

#include "shm/census.h"

/* What the books say of one unit. */
enum check_place {
    CHECK_GRANTED, /* to owner: a client, or 65535, an orphan of the heap's */
    CHECK_FREE,    /* in the daemon's allocator */
    CHECK_OUT,     /* nobody's, and out of the allocator for a moment */
    CHECK_META,    /* the segment's tables */
};
struct check_record {
    tag_t owner; /* 0: nobody */
    uint8_t place;
};

enum check_life { CHECK_GONE, CHECK_DYING, CHECK_LIVES };

enum check_kind {
    CHECK_WELL,
    /* the unit's entry by itself, against its record */
    CHECK_TABLES, /* of the segment's own units, and it does not say so */
    CHECK_NOBODY, /* nobody's unit, and the entry is not 0 */
    CHECK_STATE,  /* a state that an owner of this kind never gives it */
    CHECK_HOLDER, /* names another holder than the books */
    CHECK_BITS,   /* bits set that mean nothing there */
    CHECK_SLAB,   /* a slab that there is not: geometry, place, or way back to its head */
    CHECK_LARGE,  /* a large block of a size that cannot be */
    /* entries of one slab or block among each other */
    CHECK_HEAD,  /* inside of a slab, and what should be its head is none */
    CHECK_INNER, /* inside of a slab or block, and does not say so */
    CHECK_TAG,   /* blocks that belong to a client that is not there */
    /* the books by themselves */
    CHECK_TWICE,    /* somebody's, and in the allocator */
    CHECK_LOST,     /* nobody's, and not in the allocator */
    CHECK_STRANGER, /* of a client that is not there */
    /* figures: finding.seen against finding.said */
    CHECK_HEADER, /* finding.why */
    CHECK_FILE_BYTES,
    CHECK_CONTROL_SEGMENT,
    CHECK_RESIDENT,
    CHECK_N_FREE,
    CHECK_CLIENT_UNITS,
    CHECK_CLIENT_BYTES,
    CHECK_GENERATION,
    CHECK_GRANTED_UNITS,
    CHECK_GRANTED_BYTES,
    CHECK_CHARGED,
    CHECK_SEALED,
    CHECK_KINDS
};

/* Fields that a kind does not use are 0: two looks found the same if all bytes are the same. */
struct check_finding {
    enum check_kind kind;
    uint32_t slot, unit;
    uint32_t from, to;    /* units whose entries say it: what to look at again */
    uint64_t entry, head; /* the unit's; and its slab's or block's, which it does not fit */
    uint64_t seen, said;
    const char *why;
    struct check_record record;
    tag_t id;            /* of the client in question */
    uint32_t idx, n_bad; /* CHECK_TAG: the first such block, and how many there are in the slab */
};

/* A return other than 0 ends the check and is returned. */
typedef int (*check_fn)(void *ctx, const struct check_finding *finding);

struct check_table {
    int fd;
    const struct segment_shape *shape;
    uint32_t slot;
    uint32_t from, to; /* units to be checked, those of the tables too; not from inside of a slab */
    const struct check_record *records; /* of unit from + i */
    uint32_t span_units;                /* of the one block, if the segment spans slots */
    const uint8_t *is_client;           /* CLIENT_IDS: enum check_life */
};

/* Entries and tags against the records. Whatever lies in the segment: it ends, and reads nothing
 * outside. 0, what fn returned, or a negative errno of pread. */
int check_table(const struct check_table *table, check_fn fn, void *ctx);

struct check_segment {
    uint32_t slot;
    uint64_t file_bytes, resident_bytes;
    uint64_t daemon_bytes;            /* what the daemon says when it hands the segment out */
    uint64_t control_bytes;           /* in the control page */
    const char *header_why;           /* segment_check()'s, or NULL */
    uint32_t counted_free, said_free; /* units: by the records, by the allocator */
};
int check_segment(const struct check_segment *segment, check_fn fn, void *ctx);

struct check_client {
    uint64_t counted_units, said_units; /* by the records, by the books' own count */
    uint64_t control_bytes;
    uint32_t said_gen, control_gen; /* 0: dying, or not there */
};
struct check_sums {
    const struct check_client *clients; /* CLIENT_IDS */
    uint64_t counted_units, said_units, control_granted_bytes;
    uint64_t file_bytes, charged_bytes, control_sealed_bytes;
};
int check_sums(const struct check_sums *sums, check_fn fn, void *ctx);

#endif
