/* SPDX-License-Identifier: Apache-2.0 */
/* peers.h - who is measured: Acre, the allocators that it is held against, and the bare kernel. */
#ifndef BENCH_PEERS_H
#define BENCH_PEERS_H

#include <limits.h>
#include <stdbool.h>

#include "mem.h"

enum peer_idx {
    PEER_ACRE,
    PEER_GLIBC,
    PEER_MIMALLOC,
    PEER_JEMALLOC,
    PEER_TCMALLOC,
    PEER_BOOST,  /* Boost.Interprocess managed_shared_memory, its default rbtree_best_fit */
    PEER_KERNEL, /* no allocator: first touch of anonymous memory, a bare ping-pong */
    PEERS
};

#define PEER_BIT(peer) (1u << (peer))
#define PEERS_MALLOC                                                                               \
    (PEER_BIT(PEER_GLIBC) | PEER_BIT(PEER_MIMALLOC) | PEER_BIT(PEER_JEMALLOC) |                    \
     PEER_BIT(PEER_TCMALLOC))

struct peer {
    const char *name;
    enum mem_kind kind;
    const char *soname;  /* the library that must serve the measured calls; NULL: none */
    const char *package; /* Debian's, when it is missing */
};

extern const struct peer peers[PEERS];

struct peer_found {
    bool is_there;
    char library[PATH_MAX]; /* where its functions come from */
};

/* Starts a child of each peer to see whether it is there and serves. */
void peers_probe(struct peer_found found[PEERS]);

/* In a child: the file that serves its calls; "" if that is not the peer. */
void peer_library(enum peer_idx peer, char ret_path[PATH_MAX]);

/* -1 if there is none of that name. */
int peer_by_name(const char *name);

#endif
