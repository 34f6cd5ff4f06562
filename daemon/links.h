/* SPDX-License-Identifier: Apache-2.0 */
/*
 * links.h - blocks that the dead were linking to a slot, or taking from it, and that the slot
 * names: they are the heap's (client/link.c). All that is read is foreign: a client that lies
 * publishes blocks of its own. Used in the sweep's worker.
 */
#ifndef ACRE_DAEMON_LINKS_H
#define ACRE_DAEMON_LINKS_H

#include "shm/base.h"
#include "shm/layout.h"

struct link {
    uint64_t block_off;
    tag_t id; /* of the dead */
};

struct links {
    struct link *all; /* sorted */
    size_t n;
};

/* Reads 8 bytes at an offset of the heap. False: there is no such place. */
typedef bool (*links_read_fn)(void *ctx, uint64_t off, uint64_t *ret_value);

/* Adds what the dead client's life page says. -ENOMEM; others of pread. */
int links_add(struct links *links, tag_t id, int life_fd, links_read_fn read_slot, void *ctx);
/* When all are added. */
void links_sort(struct links *links);
bool links_have(const struct links *links, tag_t id, uint64_t block_off);
void links_deinit(struct links *links);

#endif
