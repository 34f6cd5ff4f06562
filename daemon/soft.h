/* SPDX-License-Identifier: Apache-2.0 */
/* soft.h - soft blocks: those that were freed, and those taken back when memory is short. */
#ifndef ACRE_DAEMON_SOFT_H
#define ACRE_DAEMON_SOFT_H

#include "shm/base.h"
#include "shm/layout.h"

struct client;
struct core;
struct msg_request;
struct seg;
struct session;
struct tenant;

/* What clients have pinned, as of the last look. */
struct soft {
    bool is_used;       /* some client has pinned: there may be soft blocks */
    uint32_t n_pinning; /* clients that may pin */
    uint32_t *pins;     /* units, ascending */
    uint32_t n_pins;
    bool is_blind;   /* they could not be read: all may be pinned */
    uint64_t *swept; /* offsets of blocks that may be freed, or NULL */
    uint32_t n_swept;
};

void soft_deinit(struct soft *soft);

/* It may pin from now on; or it ends. */
void soft_pins(struct client *client, bool pins);
/* MSG_SOFT */
void soft_request(struct core *core, struct session *s, const struct msg_request *req);

/* Frees those of the segment whose tag is 0, if nobody has them pinned. */
void soft_collect(struct tenant *tenant, struct seg *seg);
/* The same of those at the offsets that a sweep has found: some at a time. True: all are done. */
void soft_swept(struct tenant *tenant, const uint64_t *offs, uint32_t n_offs);
bool soft_collect_swept(struct tenant *tenant);

/* Takes blocks of so many bytes, and some more, that nobody has pinned, the least recently used
 * first. Returns what it has taken: 0 if there are none. */
uint64_t soft_take(struct tenant *tenant, uint64_t need_bytes);
/* Those between which, and free units, lie n_units in a row. */
uint64_t soft_take_piece(struct tenant *tenant, uint64_t n_units);
/* All blocks of the segment, without any others in it, that was used least recently; or some, if
 * they are many. True: it is free now. */
bool soft_take_segment(struct tenant *tenant);

#endif
