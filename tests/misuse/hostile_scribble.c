/* SPDX-License-Identifier: Apache-2.0 */
/* hostile_scribble.c - over all that a client can write: sparsely, so that some of it goes on
 * making sense. */
#include "tests/misuse/hostile.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "shm/sizeclass.h"

#define IDS 40u /* of those that attach one after the other, the first ones come again */

struct place {
    char *base;
    struct segment_shape shape;
    uint32_t unit, n;
    int fd;
};

/* A run of units in a segment; false: it has mapped none there. */
static bool pick(struct hostile *h, struct place *p)
{
    unsigned slot = (unsigned)hostile_below(h, HOSTILE_SLOTS);
    if (!h->segs[slot].base)
        slot = 0;
    if (!h->segs[slot].base)
        return false;
    p->base = h->segs[slot].base;
    p->fd = h->segs[slot].fd;
    p->shape = segment_shape((uint32_t)(h->segs[slot].bytes / UNIT_BYTES));
    p->unit = (uint32_t)hostile_below(h, p->shape.n_table);
    uint32_t n = (uint32_t)hostile_below(h, 64); /* drawn once: MIN takes it twice */
    p->n = MIN(n, p->shape.n_table - p->unit);
    return true;
}

static uint32_t any_token(struct hostile *h)
{
    return hostile_below(h, 4)
               ? holder_token((tag_t)hostile_below(h, IDS), (unsigned)hostile_below(h, 3))
           : hostile_below(h, 2) ? HOLDER_NOBODY
                                 : (uint32_t)rnd(&h->rng);
}

static uint64_t any_entry(struct hostile *h, const struct segment_shape *s)
{
    switch (hostile_below(h, 8)) {
    case 0:
        return rnd(&h->rng);
    case 1:
        return unit_entry_large((uint32_t)hostile_below(h, s->n_units),
                                (tag_t)hostile_below(h, IDS));
    case 2:
        return unit_entry_large((uint32_t)hostile_below(h, 4), (tag_t)hostile_below(h, IDS));
    case 3:
    case 4:
        return unit_entry_large((uint32_t)hostile_below(h, 9), (tag_t)hostile_below(h, IDS)) |
               LARGE_SOFT | (hostile_below(h, 2) ? LARGE_TAKING : 0);
    case 5:
        return unit_entry_plain((enum unit_state)hostile_below(h, 9), any_token(h));
    default:
        return unit_entry_slab(hostile_below(h, 2) ? U_PARKED : U_SLAB,
                               (unsigned)hostile_below(h, N_GEOS + 4),
                               (unsigned)hostile_below(h, 4), any_token(h));
    }
}

void scribble_random(struct hostile *h)
{
    struct place p;
    for (unsigned i = 0; i < 16 && pick(h, &p); i++)
        p.base[hostile_below(h, p.shape.size_bytes)] = (char)hostile_below(h, 256);
}

void scribble_entries(struct hostile *h)
{
    struct place p;
    for (uint32_t i = 0; pick(h, &p) && i < p.n; i++)
        segment_entries(p.base, &p.shape)[p.unit] = any_entry(h, &p.shape);
}

/* Of large blocks in the table, and of slabs in their units. */
void scribble_tags(struct hostile *h)
{
    struct place p;
    if (!pick(h, &p))
        return;
    for (uint32_t u = p.unit; u < p.unit + p.n; u++) {
        tag_t tag = (tag_t)(hostile_below(h, 8) ? hostile_below(h, IDS) : TAG_HEAP);
        if (hostile_below(h, 2))
            segment_tags(p.base, &p.shape)[u] = tag;
        else
            for (unsigned i = 0; u >= p.shape.n_meta && i < 256; i++)
                ((tag_t *)(void *)(p.base + u * UNIT_BYTES))[i] = (tag_t)(tag + i % 2);
    }
}

void scribble_hints(struct hostile *h)
{
    struct place p;
    if (pick(h, &p))
        memset(segment_hints(p.base, &p.shape) + p.unit, (int)hostile_below(h, 256), p.n);
}

void scribble_holders(struct hostile *h)
{
    struct place p;
    if (!pick(h, &p))
        return;
    for (uint32_t u = p.unit; u < p.unit + p.n; u++) {
        uint64_t *entry = &segment_entries(p.base, &p.shape)[u];
        *entry = (*entry & UINT32_MAX) | (uint64_t)any_token(h) << 32;
    }
}

void scribble_header(struct hostile *h)
{
    struct place p;
    for (unsigned i = 0; i < 4 && pick(h, &p); i++)
        p.base[hostile_below(h, hostile_below(h, 2) ? 64 : SEG_HEADER_BYTES)] =
            (char)hostile_below(h, 256);
}

void scribble_life(struct hostile *h)
{
    unsigned char *page = (unsigned char *)h->page;
    for (unsigned i = 0; page && i < 100; i++)
        h->page->pins[hostile_below(h, PINS)] =
            (uint32_t)(h->offs[hostile_below(h, HOSTILE_GRANTS)] >> UNIT_SHIFT);
    for (unsigned i = 0; page && i < 32; i++)
        page[hostile_below(h, hostile_below(h, 2) ? 64 : sizeof(*h->page))] =
            (unsigned char)hostile_below(h, 256);
}

/* Lines that name a slot which names a block: true, half true, and nonsense. */
void scribble_links(struct hostile *h)
{
    struct place p;
    if (!h->page || !pick(h, &p))
        return;
    for (unsigned i = 0; i < 8; i++) {
        struct intent *line = &h->page->intents[hostile_below(h, INTENTS)];
        uint64_t at = hostile_below(h, p.shape.size_bytes) & ~7ull;
        uint64_t block =
            hostile_below(h, 2) ? h->offs[hostile_below(h, HOSTILE_GRANTS)] : rnd(&h->rng);
        line->slot_off = hostile_below(h, 8) ? at : rnd(&h->rng);
        line->block_off = hostile_below(h, 8) ? block : INTENT_TAKEN;
        memcpy(p.base + at, &block, sizeof(block));
    }
}

/* Under the daemon's feet: tables, some units, or all. */
void scribble_holes(struct hostile *h)
{
    struct place p;
    if (!pick(h, &p))
        return;
    off_t from = hostile_below(h, 3) ? (off_t)p.unit * (off_t)UNIT_BYTES : 0;
    off_t n = hostile_below(h, 3) ? (off_t)(p.n + 1) * (off_t)UNIT_BYTES
                                  : (off_t)p.shape.size_bytes - from;
    (void)fallocate(p.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, n);
    (void)madvise(p.base, SEG_HEADER_BYTES, MADV_REMOVE);
}

/* All of its pages are there, and go at once: who touches one meanwhile waits, the daemon too. */
void scribble_filled(struct hostile *h)
{
    struct place p;
    if (!pick(h, &p))
        return;
    (void)madvise(p.base, p.shape.size_bytes, MADV_POPULATE_WRITE);
    (void)fallocate(p.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)p.shape.size_bytes);
}

void scribble_file(struct hostile *h)
{
    struct place p;
    char bytes[4096];
    if (!pick(h, &p))
        return;
    (void)!ftruncate(p.fd, (off_t)hostile_below(h, 2 * p.shape.size_bytes));
    (void)fcntl(p.fd, F_ADD_SEALS, 1 << hostile_below(h, 5));
    (void)fcntl(p.fd, F_SETLEASE, hostile_below(h, 2) ? F_WRLCK : F_RDLCK);
    (void)fallocate(p.fd, 0, (off_t)p.shape.size_bytes, 4096);
    memset(bytes, (int)hostile_below(h, 256), sizeof(bytes));
    (void)!pwrite(p.fd, bytes, sizeof(bytes), (off_t)hostile_below(h, p.shape.size_bytes));
}
