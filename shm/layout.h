/* SPDX-License-Identifier: Apache-2.0 */
/* clang-format off */
/*
 * layout.h - every structure that lies in shared memory, and nothing else. A change here bumps
 * LAYOUT_VERSION, the diagram, the asserts and the checker together.
 *
 * HEAP       offset 0 ............................................. HEAP_BYTES (256 GiB)
 *            | slot 0 (1 GiB) | slot 1 | slot 2 | ... | slot 255 |
 *            slot k holds segment k at its start; a segment for one block beyond a slot spans
 *            several. offset = slot << 30 | unit << 13 | byte. Offset 0 is the header of segment 0:
 *            never a block.
 *
 * SEGMENT    unit 0                                                    n_meta           n_units
 *  (one      | struct seg_header | entry[n_table] | hint[n_table] | tag[n_table] | soft[n_table] |
 *   memfd)     4 KiB               8 bytes each     1 byte          2 bytes        8 bytes
 *            | units ... |
 *            Entries and hints begin on a page, and what is left of the entries' last page is 0:
 *            clients map both a second time, all slots' in a row (client/heap.h).
 *            n_table = n_units, but for a segment that spans slots n_table = n_meta + 1: it holds
 *            one block.
 *
 * SLAB       | tag[n_blocks] (2 bytes each) | pad | block 0 | block 1 | ... | block n-1 | rest |
 *  (2^order  0                                    first                            first+limit
 *   units)   tags stand before the blocks: for small blocks they share the first page with them.
 *
 * UNIT ENTRY 63 ............. 32 31 29 28 ........ 13 12 .... 8 7 .... 0
 *            holder token        0     back           state     geo       U_SLAB, U_PARKED
 *            holder token        0     0              state     0         U_UNCUT, U_CUT, U_RELEASING
 *            number of units     0     holder's id    U_LARGE   0         head of a large block
 *                                                                         (id 0: an orphan; LARGE_KEPT
 *                                                                         for geo: freed and kept.
 *                                                                         Bits 29, 30: LARGE_SOFT,
 *                                                                         LARGE_TAKING)
 *            back begins at bit UNIT_SHIFT: masked, it is a number of bytes.
 *            holder token = client id << 16 | index of the thread cache in that client; 0 or
 * HOLDER_NOBODY: nobody's. back = units from here to the slab's head. geo = index into
 * sizeclass.h's geometries, 0 = no slab.
 *
 * WHO WRITES
 *   header   the daemon, before any client sees the segment. Read-only for clients.
 *   entry    U_FREE -> U_UNCUT, U_UNCUT -> U_FREE: the daemon (the grant; its taking back, by CAS).
 *            U_UNCUT -> U_CUT, head of a parked slab -> U_SLAB: the client it was granted to (CAS:
 *            the daemon may take it back at the same moment). U_CUT -> U_SLAB/U_LARGE/U_UNCUT, U_SLAB -> U_RELEASING: the holder
 *            (store, release). U_LARGE -> U_CUT: its freer by CAS (daemon may do it too). Of dead
 *            clients: the daemon alone.
 *   tag      0 -> id: the slab's holder. id -> 0/heap/other id: whom it names. heap -> *: whom the
 *            application lets. dead id -> 0: the daemon by CAS. (DESIGN.md section 5)
 *            U_LARGE|LARGE_SOFT -> |LARGE_TAKING: the daemon, by CAS. Back: it, or whoever pins the
 *            block, by CAS. -> U_FREE: the daemon, by CAS (daemon/soft.c).
 *   soft     of a soft block's head: gen, by who makes the block, before the entry; used_ms, by
 *            whoever pins it.
 *   hint     1: whoever freed (after the tag). 0: the slab's holder, then a fence, then its scan.
 *   All of it can be scribbled on by a hostile client of the tenant: the daemon copies, checks, and
 *   keeps its own books (daemon/books.h).
 *
 * CONTROL    one memfd per tenant, written by the daemon alone: others have read-only descriptors.
 *            Clients wait on a client's ticket_seq by futex, which a read-only mapping allows.
 *            | struct control_header (4 KiB) | control_segment[256] | control_client[65536] | sparse
 */
/* clang-format on */
#ifndef ACRE_SHM_LAYOUT_H
#define ACRE_SHM_LAYOUT_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

#define LAYOUT_VERSION 6u
#define SEG_MAGIC      0x4745534552434101ull /* "\1ACRESEG" */
#define CONTROL_MAGIC  0x4c54434552434101ull /* "\1ACRECTL" */
#define LIFE_MAGIC     0x45464c4552434101ull /* "\1ACRELFE" */

/* ---- geometry ---- */

/* 8 KiB: ten small slabs of ten classes are 80-88 KiB, so that 400 clients with ten small blocks
 * each fit into 64 MiB (163 KiB each); with 16 KiB units they do not. Its table costs 11 bytes a
 * unit: 0.13 %. */
#define UNIT_SHIFT 13u
#define UNIT_BYTES (1ull << UNIT_SHIFT)
#define SLOT_SHIFT 30u
#define SLOT_BYTES (1ull << SLOT_SHIFT)
#define SLOT_UNITS (1u << (SLOT_SHIFT - UNIT_SHIFT)) /* 131,072 */
#define HEAP_SLOTS 256u
#define HEAP_BYTES (SLOT_BYTES * HEAP_SLOTS)
#define HEAP_UNITS (HEAP_SLOTS * SLOT_UNITS)

#define SEG_HEADER_BYTES 4096u

/* ---- owner tags ---- */

typedef uint16_t tag_t;
#define TAG_FREE      ((tag_t)0)
#define TAG_HEAP      ((tag_t)65535)
#define CLIENT_ID_MAX 65534u
#define CLIENT_IDS    65536u /* size of tables indexed by tag */

/* ---- unit entries ---- */

enum unit_state {
    U_FREE = 0,   /* the daemon's: in its buddy allocator */
    U_UNCUT = 1,  /* granted to a client, which has not cut it: the daemon may take it back */
    U_CUT = 2,    /* the client has taken it and formats it, or it is the inside of a large block */
    U_SLAB = 3,   /* part of a slab in use by its holder */
    U_PARKED = 4, /* part of a slab without a holder: the daemon's, or handed to a client that has
                     not begun on it */
    U_RELEASING = 5, /* head of an empty slab on its way back */
    U_LARGE = 6,     /* head of a large block */
    U_META = 7,      /* header and tables */
    U_STATES
};

static inline uint64_t unit_entry_slab(enum unit_state state, unsigned geo, unsigned back,
                                       uint32_t holder)
{
    return (uint64_t)holder << 32 | (uint64_t)back << UNIT_SHIFT | (uint64_t)state << 8 | geo;
}
static inline uint64_t unit_entry_plain(enum unit_state state, uint32_t holder)
{
    return (uint64_t)holder << 32 | (uint64_t)state << 8;
}
/* A large block that was freed, and whose holder may use it again without asking: as it was, its
 * tag included, but for this in the geo's place (no slab has it). The daemon takes it if memory is
 * short. */
#define LARGE_KEPT 1u

/* A large block that the daemon may take when memory is short, if nobody has it pinned; and one
 * that it is about to take, unless somebody pins it now (client/soft.c, daemon/soft.c). */
#define LARGE_SOFT   (1ull << 29)
#define LARGE_TAKING (1ull << 30)

/* holder_id: the client whose units they are (the block's owner is its tag); 0 for an orphan. */
static inline uint64_t unit_entry_large(uint32_t n_units, tag_t holder_id)
{
    return (uint64_t)n_units << 32 | (uint64_t)holder_id << UNIT_SHIFT | (uint64_t)U_LARGE << 8;
}
static inline unsigned unit_entry_geo(uint64_t e)
{
    return (unsigned)(e & 0xff);
}
static inline unsigned unit_entry_state(uint64_t e)
{
    return (unsigned)(e >> 8 & 0x1f);
}
static inline unsigned unit_entry_back(uint64_t e)
{
    return (unsigned)(e >> UNIT_SHIFT & 0xffff);
}
static inline uint32_t unit_entry_holder(uint64_t e)
{
    return (uint32_t)(e >> 32);
}
static inline uint32_t unit_entry_large_units(uint64_t e)
{
    return (uint32_t)(e >> 32);
}
static inline tag_t unit_entry_large_holder(uint64_t e)
{
    return (tag_t)(e >> UNIT_SHIFT & 0xffff);
}
static inline bool unit_entry_is_soft(uint64_t e)
{
    return unit_entry_state(e) == U_LARGE && (e & LARGE_SOFT) != 0;
}
static inline uint32_t holder_token(tag_t client_id, unsigned cache_idx)
{
    return (uint32_t)client_id << 16 | (cache_idx & 0xffff);
}
/* Of a slab without a holder. Not 0: that is the token of a cache that a fork has wiped. */
#define HOLDER_NOBODY ((uint32_t)TAG_HEAP << 16)
static inline unsigned holder_cache(uint32_t token)
{
    return token & 0xffff;
}
static inline tag_t holder_client(uint32_t token)
{
    return (tag_t)(token >> 16);
}

/* Of the unit at which a soft block begins. */
struct soft_unit {
    uint32_t gen;     /* of the block that begins there, or of the last one; 0: there was none */
    uint32_t used_ms; /* when it was last pinned: CLOCK_MONOTONIC, and wraps */
};
static_assert(sizeof(struct soft_unit) == 8, "layout");

/* ---- segment header: written once by the daemon, before any client maps the segment ---- */

struct seg_header {
    uint64_t magic;       /*  0  SEG_MAGIC */
    uint32_t version;     /*  8  LAYOUT_VERSION */
    uint32_t slot;        /* 12  where in the heap */
    uint64_t fingerprint; /* 16  layout_fingerprint(): units, tags, classes */
    uint64_t heap_id;    /* 24  random, the same in all of a heap's segments and its control page */
    uint64_t size_bytes; /* 32  of the file: sealed */
    uint32_t n_units;    /* 40  in the file, the meta units included */
    uint32_t n_meta;     /* 44  units taken by header and tables */
    uint32_t n_table;    /* 48  entries in each table */
    uint32_t entries_off;   /* 52  bytes from the segment's start */
    uint32_t tags_off;      /* 56 */
    uint32_t hints_off;     /* 60 */
    uint32_t soft_off;      /* 64 */
    uint8_t reserved[4028]; /* 68 */
};
static_assert(sizeof(struct seg_header) == SEG_HEADER_BYTES, "header is one page");
static_assert(offsetof(struct seg_header, fingerprint) == 16, "layout");
static_assert(offsetof(struct seg_header, heap_id) == 24, "layout");
static_assert(offsetof(struct seg_header, size_bytes) == 32, "layout");
static_assert(offsetof(struct seg_header, n_units) == 40, "layout");
static_assert(offsetof(struct seg_header, n_table) == 48, "layout");
static_assert(offsetof(struct seg_header, tags_off) == 56, "layout");
static_assert(offsetof(struct seg_header, reserved) == 68, "layout");

/* ---- control: what the daemon tells everybody of a tenant, read-only for them ---- */

#define TENANT_NAME_BYTES 64u /* with the final 0 */
#define CLIENT_NAME_BYTES 32u
#define ROOT_NAME_BYTES   48u

/* Of the system, behind a segment. Not 4k: mappings ask for huge ones. */
enum pages_kind { PAGES_4K = 0, PAGES_THP = 1 };
#define HUGE_UNITS (1u << (21 - UNIT_SHIFT)) /* units to a huge page, 2 MiB */

struct control_header {
    uint64_t magic;       /*   0  CONTROL_MAGIC, stored last */
    uint32_t version;     /*   8 */
    uint32_t sweep_seq;   /*  12  odd while a sweep of owner maps runs: nothing that was a slab is
                             reformatted */
    uint64_t fingerprint; /*  16 */
    uint64_t heap_id;     /*  24 */
    uint64_t max_bytes;   /*  32  the tenant's budget */
    uint64_t capacity_bytes;        /*  40  the daemon's */
    uint64_t granted_bytes;         /*  48  units granted to clients or kept as orphans, in bytes */
    uint64_t sealed_bytes;          /*  56  sum of segment sizes */
    uint32_t n_slots;               /*  64  slots in use are [0, n_slots) */
    uint32_t n_clients;             /*  68  attached now */
    char tenant[TENANT_NAME_BYTES]; /*  72 */
    uint64_t ready_bytes;           /* 136  free memory that the daemon is to keep prepared */
    uint64_t prepared_bytes;        /* 144  free memory whose pages are all there */
    uint32_t pages;                 /* 152  enum pages_kind: what the segments have */
    uint32_t pages_wanted;          /* 156  what the tenant is to have */
    uint32_t pages_possible;        /* 160  what the system gave when the heap was made */
    uint32_t retire_seq;            /* 164  of changes of control_segment.retire */
    uint64_t min_bytes;             /* 168  promised to the tenant */
    uint32_t pressure_seq;          /* 176  of times that idle memory was wanted back */
    uint32_t pressure;              /* 180  enum pressure_level */
    uint64_t over_bytes;            /* 184  so much more than it should has it, at that level */
    uint64_t high_bytes;            /* 192  where pressure begins */
    uint32_t weight;                /* 200  in what all want and nobody was promised */
    uint32_t event_seq;     /* 204  of times that any of this has changed in a way worth hearing */
    uint8_t reserved[3888]; /* 208 */
};
static_assert(sizeof(struct control_header) == 4096, "layout");
static_assert(offsetof(struct control_header, granted_bytes) == 48, "layout");
static_assert(offsetof(struct control_header, tenant) == 72, "layout");
static_assert(offsetof(struct control_header, ready_bytes) == 136, "layout");
static_assert(offsetof(struct control_header, pages) == 152, "layout");
static_assert(offsetof(struct control_header, retire_seq) == 164, "layout");
static_assert(offsetof(struct control_header, event_seq) == 204, "layout");
static_assert(offsetof(struct control_header, reserved) == 208, "layout");

/* Why a tenant is to give memory back; daemon/share.c. */
enum pressure_level {
    PRESSURE_NONE = 0,
    PRESSURE_HIGH = 1,  /* it, or a group above it, has more than its high */
    PRESSURE_SHARE = 2, /* others want memory, and it has more than its share */
    PRESSURE_MAX = 3,   /* it, or a group above it, has more than its max */
};

/* How far a segment is on its way out of the heap; daemon/retire.c. */
enum segment_retire {
    SEGMENT_STAYS = 0,
    SEGMENT_RETIRING = 1, /* who maps it is to ask whether it may let go */
    SEGMENT_RETIRED = 2,  /* no client maps it, and it never comes back; somebody else may */
};

struct control_segment {
    uint64_t size_bytes; /*  0  0: slot unused, or inside a segment that began before it */
    uint32_t head_slot;  /*  8  slot where this segment begins */
    uint16_t n_slots;    /* 12  slots that it spans */
    uint8_t retire;      /* 14  enum segment_retire */
    uint8_t is_soft;     /* 15  made for soft blocks */
};
static_assert(sizeof(struct control_segment) == 16, "layout");

struct control_client {
    uint32_t gen; /*  0  incarnation that lives under this id now, 0 = none. Stored last on attach,
                     first on death */
    uint32_t pid; /*  4  in the daemon's pid namespace */
    uint64_t granted_bytes;       /*  8 */
    uint64_t attached_ns;         /* 16  CLOCK_REALTIME */
    uint32_t ticket_seq;          /* 24  counts on when a ticket of the client's has its answer */
    uint8_t reserved[4];          /* 28 */
    char name[CLIENT_NAME_BYTES]; /* 32 */
};
static_assert(sizeof(struct control_client) == 64, "layout");
static_assert(offsetof(struct control_client, ticket_seq) == 24, "layout");
static_assert(offsetof(struct control_client, name) == 32, "layout");

struct control {
    struct control_header header;
    struct control_segment segment[HEAP_SLOTS];
    struct control_client client[CLIENT_IDS]; /* by id; [0] and [65535] unused */
};
static_assert(sizeof(struct control) == 4096 + 16 * 256 + 64 * 65536, "layout");

/* acre_client = gen << 16 | id */
static inline uint64_t client_handle(tag_t id, uint32_t gen)
{
    return (uint64_t)gen << 16 | id;
}
static inline tag_t client_handle_id(uint64_t handle)
{
    return (tag_t)(handle & 0xffff);
}
static inline uint32_t client_handle_gen(uint64_t handle)
{
    return (uint32_t)(handle >> 16);
}

/* ---- life page: one memfd per client, writable by it alone (DESIGN.md section 8) ---- */

/* "This block is being linked to this slot, or unlinked from it": client/link.c. */
struct intent {
    uint64_t block_off; /* 0: none; INTENT_TAKEN: being written. Stored last */
    uint64_t slot_off;
};
#define INTENT_TAKEN 1ull
/* A line serves a thread for some 50 instructions; more threads than lines wait for each other. */
#define INTENTS      62u
#define PINS         760u /* soft blocks that a process has pinned, at most */

struct life_page {
    uint64_t magic;                 /*    0  LIFE_MAGIC: the client, before it attaches */
    uint8_t secret[16];             /*    8  random: who names it later is the same client */
    uint8_t reserved_line[40];      /*   24 */
    struct intent intents[INTENTS]; /*   64  the client; the daemon reads them when it is dead */
    uint32_t
        pins[PINS]; /* 1056  units of the heap at which soft blocks begin, or 0: the client; the
                            daemon reads them when it takes soft blocks */
};
static_assert(sizeof(struct life_page) == 4096, "layout");
static_assert(offsetof(struct life_page, pins) == 1056, "layout");
static_assert(offsetof(struct life_page, intents) == 64, "layout");

#endif
