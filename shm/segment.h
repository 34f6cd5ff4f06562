/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment.h - one sealed memfd: made by the daemon, checked and mapped by everybody.
 *
 * A segment's size is sealed (SHRINK | GROW | SEAL) before any client sees it; a receiver believes
 * neither the descriptor nor the header before segment_check() has seen both.
 */
#ifndef ACRE_SHM_SEGMENT_H
#define ACRE_SHM_SEGMENT_H

#include "shm/base.h"
#include "shm/layout.h"

/* Where things are in a segment: computed from n_units and checked against the header, never read
 * from it later. */
struct segment_shape {
    uint64_t size_bytes;
    uint32_t n_units, n_meta, n_table;
    uint32_t entries_off, tags_off, hints_off, soft_off;
};

#define SEGMENT_PAGE_BYTES  4096u /* entries and hints begin on one: clients map them apart */
#define SEGMENT_TABLE_ALIGN 64u   /* the tags on a cache line */
#define SEGMENT_SPAN_META   2u    /* n_meta of a segment that spans slots */

/* Shape of a segment of n_units in all (at least 8). More than SLOT_UNITS: for one block. */
struct segment_shape segment_shape(uint32_t n_units);
/* Total units that a segment needs whose usable run is n_units. */
uint32_t segment_units_for(uint32_t n_usable);

/* Creates, lays out and seals. *ret_fd is read-write. -ENOMEM, -EMFILE, -ENFILE. */
int segment_create(const char *name, uint32_t slot, uint64_t heap_id, uint32_t n_units, int *ret_fd,
                   struct segment_shape *ret_shape);

/* Is fd a sealed memfd of exactly the size that its header says, of this heap, slot and layout?
 * Reads by pread. -EPROTO with *ret_why (static) if not. */
int segment_check(int fd, uint32_t slot, uint64_t heap_id, struct segment_shape *ret_shape,
                  const char **ret_why);

/* The control segment; others get a read-only descriptor of it (segment_reopen_readonly). Magic,
 * version and fingerprint are set; the caller fills in the rest before it hands out a
 * descriptor. */
int control_create(const char *name, int *ret_fd, struct control **ret_control);
/* Of an earlier daemon, for writing. -EPROTO. */
int control_open(int fd, struct control **ret_control);
/* Receiver's side: checks seals, size, magic, version and fingerprint, and maps read-only. -EPROTO,
 * -ENOMEM. */
int control_map(int fd, const struct control **ret_control, const char **ret_why);

/* A read-only description of the same memfd (through /proc/self/fd). */
int segment_reopen_readonly(int fd, int *ret_fd);

/* Views into a mapped segment (base = its first byte). */
static inline uint64_t *segment_entries(void *base, const struct segment_shape *s)
{
    return (uint64_t *)((char *)base + s->entries_off);
}
static inline tag_t *segment_tags(void *base, const struct segment_shape *s)
{
    return (tag_t *)((char *)base + s->tags_off);
}
static inline uint32_t segment_soft_off(uint32_t tags_off, uint32_t n_table)
{
    return tags_off + (uint32_t)round_up_u64(n_table * sizeof(tag_t), sizeof(struct soft_unit));
}
static inline struct soft_unit *segment_soft(void *base, const struct segment_shape *s)
{
    return (struct soft_unit *)(void *)((char *)base + s->soft_off);
}
static inline uint8_t *segment_hints(void *base, const struct segment_shape *s)
{
    return (uint8_t *)base + s->hints_off;
}

#endif
