/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core_twin.h - what the clients of the simulated daemon know, and what must therefore be true.
 *
 * The twin is naive: an array of clients, an array of pieces of memory that they believe to hold or
 * have left behind, with the owner of each block, and the roots. What a client has asked and never
 * heard of is forgotten ("limbo"): it acts on nothing that it was not told.
 */
#ifndef ACRE_TESTS_CORE_TWIN_H
#define ACRE_TESTS_CORE_TWIN_H

#include "tests/model/core_world.h"

#define CLIENTS 16u
#define CONNS   64u
#define PIECES  512u
#define TAGS    12u /* blocks of a slab that are used */
#define ROOTS   8u

#define OWN_FREE 0
#define OWN_HEAP 1000
/* else 1 + index of the client */

#define BY_NOBODY (-1) /* an orphan's holder */

enum client_life { CLIENT_NONE, CLIENT_HERE, CLIENT_DEAD };

struct client_twin {
    enum client_life life;
    uint32_t tenant;
    struct fake self; /* its page, and who it is once it has been told */
    struct conn *conn;
    enum msg_op pending;
    struct msg_request req;
    bool is_resuming;
    bool may_be_published; /* it asked for that and has not heard */
    bool may_hold_slabs;   /* it asked for memory and has not heard */
};

struct conn {
    struct fake fake;
    struct client_twin *client; /* NULL: a stray, or of an administrator */
    bool is_used;
    unsigned n_seen; /* replies */
    unsigned n_watches;
    enum msg_op op; /* of an administrator */
    uint32_t tenant;
};

enum piece_kind { PIECE_NONE, PIECE_UNCUT, PIECE_SLAB, PIECE_LARGE };

struct piece {
    enum piece_kind kind;
    uint32_t tenant;
    int holder;
    struct block at;
    unsigned geo, n_tags;
    int owners[TAGS];
    uint32_t linked; /* bit: its owner died with an intent that came to be */
};

struct tenant_twin {
    uint32_t heap_no;
    bool has_heap, is_dropping;
    uint64_t roots[ROOTS];
    struct seg *views[HEAP_SLOTS]; /* of the clients, all of whom are in this process */
};

struct twin {
    uint64_t seed, rng;
    uint32_t run, step;
    struct client_twin clients[CLIENTS];
    struct conn conns[CONNS];
    struct piece pieces[PIECES];
    struct tenant_twin tenants[WORLD_TENANTS];
};

extern struct twin twin;

/* Says where it was, and aborts. */
_Noreturn void twin_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#define twin_assert(cond, ...)                                                                     \
    do {                                                                                           \
        if (!(cond))                                                                               \
            twin_fail(__VA_ARGS__);                                                                \
    } while (0)

uint32_t twin_below(uint32_t n);

static inline int client_idx(const struct client_twin *c)
{
    return (int)(c - twin.clients);
}
static inline int client_code(const struct client_twin *c)
{
    return 1 + client_idx(c);
}
static inline bool is_attached(const struct client_twin *c)
{
    return c->life == CLIENT_HERE && c->self.client != 0;
}

/* ---- pieces ---- */

/* The clients' mapping of a segment. */
struct seg *twin_view(uint32_t tenant, uint32_t slot);
void twin_drop_views(uint32_t tenant);
struct piece *twin_add_piece(const struct client_twin *c, enum piece_kind kind, struct block at);
tag_t *twin_tag(const struct piece *p, unsigned i);
uint64_t twin_block_off(const struct piece *p, unsigned i);
bool twin_is_rooted(const struct piece *p, unsigned i);
/* Every block free? */
bool twin_is_empty(const struct piece *p);

/* ---- events ---- */

/* The connection of a client, or what it asked, is lost. */
void twin_lose(struct client_twin *c);
/* Takes what has been replied. */
void twin_settle(void);
/* The core has died just now: what it had done of what nobody was told. */
void twin_learn_from_the_dead(void);
/* A new one is there. */
void twin_welcome(void);
/* After each call of a living core: who has been buried, what has been swept. */
void twin_observe(void);

/* All that must be true of a living core. */
void twin_check(void);

#endif
