/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kept.h - the names by which the next daemon knows the descriptors of this one. A heap's have its
 * number: they say what belongs together when the books, which say all else, are gone or not yet
 * there.
 */
#ifndef ACRE_DAEMON_KEPT_H
#define ACRE_DAEMON_KEPT_H

#include "daemon/core.h"
#include "daemon/store.h"

enum kept_kind {
    KEPT_NOT = 0,
    KEPT_BOOKS = 'b',   /* of a heap */
    KEPT_CONTROL = 'c', /* of a heap */
    KEPT_SEGMENT = 's', /* of a heap, by slot */
    KEPT_LIFE = 'l',    /* by life_no, slot 0 */
};

struct kept {
    enum kept_kind kind;
    uint32_t no, slot;
};

void kept_name(struct kept kept, char ret_name[STORE_NAME_BYTES]);
bool kept_parse(const char *name, struct kept *ret_kept);

/* Any thread. Also says it in the log if it cannot be kept. Errors of store_put(). */
int kept_put(const struct core *core, struct kept kept, int fd);
void kept_drop(const struct core *core, struct kept kept);
/* A life page ends: neither kept nor held any more. */
void kept_end_life(const struct core *core, uint32_t life_no, int life_fd);
/* As store_take(). */
int kept_take(struct store_items *items, struct kept kept);

#endif
