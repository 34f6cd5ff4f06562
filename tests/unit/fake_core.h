/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_core.h - peers and clients for tests that drive the daemon's core without a loop: what the
 * core wants of the world, and what a client does to its page and to its units. The memory is real.
 */
#ifndef ACRE_TESTS_FAKE_CORE_H
#define ACRE_TESTS_FAKE_CORE_H

#include "daemon/core.h"
#include "daemon/seg.h"

struct fake {
    struct session session;
    bool is_open, told_to_close;
    unsigned n_replies, n_events;
    struct msg_reply reply;
    int fd; /* that came with the last reply */
    int life_fd;
    struct life_page *page;
    uint64_t client;
    tag_t id;
};

/* A run of units. */
struct block {
    struct seg *seg;
    uint32_t unit, n_units;
};

/* For struct core_io, whose peers are fakes. */
void fake_reply(void *peer, const struct msg_reply *reply, int fd);
void fake_close(void *peer);
void fake_close_foreign(void *ctx, int fd, uid_t uid);
int fake_open_pidfd(void *peer);

/* A connection that has said Hello. */
void fake_connect(struct core *core, struct fake *f, uid_t uid, uint64_t now_ns);
/* Before it is a client. Its secret is 16 times 0x5a. */
void fake_make_page(struct fake *f);
/* Which is all that the daemon knows of its death. */
void fake_unmap_page(struct fake *f);

/* What a client does with a run: a slab of the class in its smallest size at the run's start. */
tag_t *fake_cut_slab(const struct fake *f, struct block b, unsigned class_idx, unsigned *ret_geo);
void fake_cut_large(const struct fake *f, struct block b, tag_t tag);

/* How long until the core goes on with those who wait, by itself: 0 now, UINT64_MAX not. Room is
 * waited for at most so long. */
uint64_t fake_patience_ns(const struct core *core, uint64_t now_ns);

#endif
