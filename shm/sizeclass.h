/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sizeclass.h - which block sizes exist, and how a slab of each is cut.
 *
 * CLASSES. 16 to 128 in steps of 16, then four to each doubling up to 64 KiB: 44 classes. A request
 * above 64 bytes wastes less than 20 % of its block (worst: 2^k + 1 in a block of 1.25 * 2^k).
 *
 * GEOMETRIES. A slab of a class may have one of up to GEO_ORDERS sizes (units, powers of two):
 * small at first, so that a client with ten blocks stays cheap, larger as the client has more of
 * them. A geometry is a pair (class, order); its index fits the byte in the unit entry; 0 is "no
 * slab".
 *
 * BLOCK NUMBER. idx = d / size for d = byte offset from block 0, by one multiplication: recip =
 * ceil(2^64 / size), product = d * recip in 128 bits, idx = product >> 64, and d is a multiple of
 * size exactly if the low half of the product is below recip (Lemire, Kaser, Kurz 2019). That holds
 * as long as n_blocks * (recip * size - 2^64) < recip: the left side is below n_blocks * size, at
 * most 2^19, the right one above 2^47. tests/unit proves every byte all the same. (32 bits of
 * fraction are too few for slabs of 512 KiB with blocks of 20, 28, 48 and 56 KiB.)
 */
#ifndef ACRE_SHM_SIZECLASS_H
#define ACRE_SHM_SIZECLASS_H

#include "shm/base.h"
#include "shm/layout.h"

#define N_CLASSES       44u
#define SMALL_MAX_BYTES 65536u
#define GEO_ORDERS      4u
#define N_GEOS          (GEO_ORDERS * (1u + N_CLASSES))
#define SLAB_ORDER_MAX  6u /* 512 KiB */
/* Bytes that a thread has for each class: the tables give a class as an offset into these. */
#define CLASS_STEP      128u
/* Blocks are aligned to the largest power of two that divides their size, at most this. */
#define SLAB_ALIGN_MAX  1024u

struct geo {
    uint64_t recip;     /* ceil(2^64 / size) */
    uint32_t first;     /* bytes from the slab's head to block 0; the tag map lies at 0 */
    uint32_t limit;     /* n_blocks * size */
    uint32_t size;      /* bytes of a block */
    uint32_t class_off; /* index of the class times CLASS_STEP */
    uint32_t mask;      /* bytes of the slab - 1 */
    uint32_t unused;
};
static_assert(sizeof(struct geo) == 32, "indexed by a shift");

struct geo_info {
    uint16_t n_blocks;
    uint8_t class_idx;
    uint8_t order; /* slab is 2^order units */
};

#pragma GCC visibility push(hidden) /* addressed directly, not through a table */
/* Filled by sizeclass_init(), constant afterwards. Geometries that do not exist (order too small
 * for one block, or too large) have n_blocks 0. */
extern struct geo geo_table[256];
extern struct geo_info geo_infos[256];
extern uint32_t class_bytes[N_CLASSES];
/* Class of a size up to CLASS_TABLE_BYTES, by (size + 15) >> 4; times CLASS_STEP. */
#define CLASS_TABLE_BYTES   1024u
#define CLASS_TABLE_ENTRIES (CLASS_TABLE_BYTES / 16 + 1)
extern uint32_t class_table[CLASS_TABLE_ENTRIES];
extern uint8_t class_order_min[N_CLASSES]; /* smallest slab that holds a block */
extern uint8_t class_order_max[N_CLASSES]; /* what a busy client uses */

#pragma GCC visibility pop

/* Idempotent; call before anything else here. Thread-safe. */
void sizeclass_init(void);

/* FNV-1a over all constants and tables that two processes must share. Computed once; anew: over the
 * tables as they are now. */
uint64_t layout_fingerprint(void);
uint64_t layout_fingerprint_anew(void);

/* d / size for a byte offset d from block 0 of a slab with this reciprocal; *ret_idx is set only if
 * it divides without rest. */
static inline bool block_idx(uint32_t d, uint64_t recip, uint32_t *ret_idx)
{
    unsigned __int128 product = (unsigned __int128)d * recip;

    if (UNLIKELY((uint64_t)product >= recip))
        return false;
    *ret_idx = (uint32_t)(product >> 64);
    return true;
}

/* size in [0, SMALL_MAX_BYTES] */
static inline unsigned class_of_size(uint32_t size)
{
    if (size <= 128)
        return size <= 16 ? 0 : (size - 1) >> 4;
    unsigned shift = 29u - (unsigned)__builtin_clz(size - 1); /* log2 - 2 */
    return 8 + (shift - 5) * 4 + (((size - 1) >> shift) & 3);
}

static inline unsigned geo_of(unsigned class_idx, unsigned order)
{
    return (1 + class_idx) * GEO_ORDERS + (order - class_order_min[class_idx]);
}

/* geo is one of a slab: at least GEO_ORDERS. */
static inline unsigned geo_class(unsigned geo)
{
    return geo / GEO_ORDERS - 1;
}

/* Alignment that every block of the class has. */
static inline uint32_t class_align(unsigned class_idx)
{
    uint32_t low = class_bytes[class_idx] & -class_bytes[class_idx];
    return MIN(low, SLAB_ALIGN_MAX);
}

#endif
