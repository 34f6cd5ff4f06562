/* SPDX-License-Identifier: Apache-2.0 */
/*
 * books.h - a tenant's books: what the daemon knows of a heap, in a memfd that only the daemon
 * maps.
 *
 *   | struct books_header (4 KiB) | segment[256] | client[65536] | root[1024] | owner[HEAP_UNITS] |
 *
 * About 68 MiB, sparse: untouched pages take no memory.
 *
 * The theory (who writes what in which order, and what a kill between two stores leaves) stands in
 * books.c.
 */
#ifndef ACRE_DAEMON_BOOKS_H
#define ACRE_DAEMON_BOOKS_H

#include "shm/base.h"
#include "shm/layout.h"

#define BOOKS_MAGIC   0x4b4f4f4252434101ull /* "\1ACRBOOK" */
#define BOOKS_VERSION 3u
#define BOOKS_ROOTS   1024u

/* An owner of a unit: 0 nobody, 1..65534 the client it is granted to, OWNER_ORPHAN the daemon for
 * the heap. */
#define OWNER_NONE   ((tag_t)0)
#define OWNER_ORPHAN ((tag_t)65535)

struct books_header {
    uint64_t magic;                 /*  0  stored last */
    uint32_t version;               /*  8 */
    uint32_t reserved0;             /* 12 */
    uint64_t fingerprint;           /* 16  layout_fingerprint() */
    uint64_t heap_id;               /* 24 */
    char tenant[TENANT_NAME_BYTES]; /* 32 */
    uint32_t heap_no;               /* 96  what the heap's kept descriptors are called by: kept.h */
    uint32_t pages;                 /* 100  enum pages_kind */
    uint32_t owner_plus_1;          /* 104  the user's whose own tenant it is (own.h); 0 nobody's */
    uint32_t
        set_weight; /* 108  != 0: limits other than the configured ones, with this weight. Stored
                            last */
    uint64_t set_min_bytes, set_high_bytes, set_max_bytes; /* 112 */
    uint8_t reserved[3960];                                /* 136 */
};
static_assert(sizeof(struct books_header) == 4096, "books");

struct books_segment {
    uint64_t size_bytes; /*  0  0: no segment begins in this slot. Stored last */
    uint16_t n_slots;    /*  8 */
    uint8_t is_known;    /* 10  a client may map it (yield.c) */
    uint8_t retire;      /* 11  enum segment_retire */
    uint32_t span_units; /* 12  segment over several slots: units of its block, 0 = free */
};
static_assert(sizeof(struct books_segment) == 16, "books");

enum books_client_state { BOOKS_CLIENT_NONE = 0, BOOKS_CLIENT_LIVES = 1, BOOKS_CLIENT_DIES = 2 };

struct books_client {
    uint32_t gen;                 /*  0  of the incarnation that lives, or of the last one */
    uint32_t state;               /*  4  enum books_client_state. Stored last */
    uint32_t pid;                 /*  8 */
    uint32_t uid;                 /* 12 */
    uint32_t life_no;             /* 16  what its kept life page is called by */
    uint32_t letting_go;          /* 20  slot + 1 of the retiring segment that it is unmapping */
    uint8_t pins;                 /* 24  soft blocks (soft.c) */
    uint8_t reserved[7];          /* 25 */
    char name[CLIENT_NAME_BYTES]; /* 32 */
};
static_assert(sizeof(struct books_client) == 64, "books");

struct books_root {
    uint64_t off;               /*  0  0: the entry is free. Stored last */
    uint8_t reserved[8];        /*  8 */
    char name[ROOT_NAME_BYTES]; /* 16 */
};
static_assert(sizeof(struct books_root) == 64, "books");

struct books {
    struct books_header header;
    struct books_segment segment[HEAP_SLOTS];
    struct books_client client[CLIENT_IDS];
    struct books_root root[BOOKS_ROOTS];
    tag_t owner[HEAP_UNITS]; /* by slot * SLOT_UNITS + unit */
};

/* *ret_books is mapped, *ret_fd sealed in size. -ENOMEM, -EMFILE, -ENFILE. */
int books_create(const char *tenant, uint64_t heap_id, uint32_t heap_no, enum pages_kind pages,
                 int *ret_fd, struct books **ret_books);
/* What another daemon has written. -EPROTO: it is of another version or layout; others of mmap. */
int books_open(int fd, struct books **ret_books);
void books_unmap(struct books *books);

static inline tag_t books_owner(const struct books *books, uint32_t slot, uint32_t unit)
{
    return books->owner[(size_t)slot * SLOT_UNITS + unit];
}
void books_set_owner(struct books *books, uint32_t slot, uint32_t unit, uint32_t n, tag_t owner);
/* Are all of [unit, unit + n) in the slot owner's? */
bool books_all_owner(const struct books *books, uint32_t slot, uint32_t unit, uint32_t n,
                     tag_t owner);
/* First unit in [unit, end) that is owner's, or end. */
uint32_t books_next_owned(const struct books *books, uint32_t slot, uint32_t unit, uint32_t end,
                          tag_t owner);

/* size_bytes 0: that segment, which no client knew, has gone. */
void books_set_segment(struct books *books, uint32_t slot, uint64_t size_bytes, uint32_t n_slots);
void books_set_client(struct books *books, tag_t id, const struct books_client *client);
/* The first id that no client has had: they are taken in order (client.c). */
uint32_t books_fresh_id(const struct books *books);
void books_set_client_state(struct books *books, tag_t id, enum books_client_state state);

#endif
