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

/* That are to be over before a request is refused; 0: none was waited for yet. */
struct rounds {
    bool no_segments;             /* none is left that could be taken as a whole */
    uint64_t search, take, piece; /* search.h; soft_take(), soft_take_piece() */
};

/* Takes blocks of so many bytes, the oldest first: for whoever comes, where the last one stopped. */
struct soft_take {
    bool is_on, is_counted;
    uint64_t n_rounds;   /* that are over */
    uint32_t slot, unit; /* where it goes on */
    uint32_t since_ms;   /* ages are of then */
    uint64_t *bytes;     /* by age */
    uint64_t all_bytes;
    uint32_t oldest;     /* ages above this are taken as a whole */
    uint64_t rest_bytes; /* of this one */
};

/* Units of a segment that are free, or of soft blocks that may be taken: what it costs to have
 * them. */
struct soft_piece {
    uint32_t slot, unit, n_units; /* n_units 0: none */
    uint64_t cost;
};

/* Looks for the cheapest piece, and takes it. */
struct soft_pieces {
    bool is_on, is_found;
    uint64_t n_rounds; /* that are over */
    uint32_t n_units;  /* wanted */
    uint32_t slot;
    struct soft_piece best;
};

/* The same of whole segments. */
struct soft_segments {
    bool is_found;
    uint32_t slot, best_slot;
    int best_age; /* -1: none yet */
};

struct soft {
    bool is_used;       /* some client has pinned: there may be soft blocks */
    uint32_t n_pinning; /* clients that may pin */
    /* what they have pinned, as of the last look */
    uint32_t *pins;      /* units */
    uint64_t *is_pinned; /* a bit for each unit of the heap; NULL before the first pin */
    uint32_t n_pins, room;
    uint64_t looked_ns;
    bool is_blind;   /* they could not be read: all may be pinned */
    uint64_t *swept; /* offsets of blocks that may be freed, or NULL */
    uint32_t n_swept;
    /* what is under way */
    struct soft_take take;
    struct soft_pieces pieces;
    struct soft_segments segments;
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

/*
 * Each takes what nobody has pinned; as much as a turn has steps for (search.h). *ret_bytes: what it
 * has taken. -EINPROGRESS: it goes on in the next turn; 0: it is done, and what the rounds waited
 * for has been looked at.
 */
/* So many bytes, and some more, the least recently used first. */
int soft_take(struct tenant *tenant, uint64_t need_bytes, struct rounds *rounds,
              uint64_t *ret_bytes);
/* Those between which, and free units, lie n_units in a row. */
int soft_take_piece(struct tenant *tenant, uint64_t n_units, struct rounds *rounds,
                    uint64_t *ret_bytes);
/* All blocks of the segment, without any others in it, that was used least recently: it is free then.
 * -EINPROGRESS: not yet; -ENOENT: there is none. */
int soft_take_segment(struct tenant *tenant);

#endif
