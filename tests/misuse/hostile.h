/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hostile.h - a client that means harm: its deeds are rows of a table, drawn by a seeded generator.
 * It speaks to the daemon by itself, since libacre would not do as it is told.
 */
#ifndef ACRE_TESTS_HOSTILE_H
#define ACRE_TESTS_HOSTILE_H

#include "tests/system/harness.h"

#include "proto/codec.h"
#include "proto/wire.h"
#include "shm/segment.h"

#define HOSTILE_SLOTS     12u
#define HOSTILE_GRANTS    64u
#define HOSTILE_DEEDS_MAX 64u

/* What is asked of all of them; shared, so that it counts beyond their deaths. */
struct hostile_orders {
    char tenant[TENANT_NAME_BYTES];
    uint64_t seed;
    bool as_nobody; /* uid 65534, if it can be had: else who is hostile administrates the daemon */
    uint64_t n_done[HOSTILE_DEEDS_MAX];
};

struct hostile {
    struct hostile_orders *orders;
    uint64_t rng, serial, client; /* client: handle */
    int sock, life_fd;
    struct life_page *page;
    struct {
        char *base;
        uint64_t bytes;
        int fd;
    } segs[HOSTILE_SLOTS];
    uint64_t offs[HOSTILE_GRANTS];
    uint32_t n_units[HOSTILE_GRANTS];
    uint64_t strangers[16]; /* handles of others, as forks and kin had them */
    size_t n_last;
    uint8_t last[WIRE_PACKET_MAX]; /* what it sent last */
};

struct hostile_deed {
    const char *name;
    unsigned weight;
    void (*fn)(struct hostile *h);
};
extern const struct hostile_deed hostile_deeds[];
extern const unsigned n_hostile_deeds;

/* One process: deeds until it is killed, many lives in it. */
__attribute__((noreturn)) void hostile_be(struct hostile_orders *orders, uint64_t seed);
/* So many deeds, of any kind. */
void hostile_do(struct hostile *h, unsigned n);

/* A child that ends soon by itself, and at once with its parent. */
pid_t hostile_fork(void);
/* The orders' user, and killed with its parent all the same. */
void hostile_become_nobody(const struct hostile_orders *orders);

void hostile_init(struct hostile *h, struct hostile_orders *orders, uint64_t seed);
/* Greets; then attaches with a page of its own. false: refused. */
bool hostile_greet(struct hostile *h);
bool hostile_attach(struct hostile *h, const char *name);
/* Is the same client again, on a new connection. */
bool hostile_resume(struct hostile *h);
/* keeps_page: it lives on without a connection. */
void hostile_leave(struct hostile *h, bool keeps_page);
void hostile_map(struct hostile *h);
bool hostile_call(struct hostile *h, struct msg_request *req, struct msg_reply *reply, int *ret_fd);
/* A grow or whatever it draws; what is granted is noted. */
void hostile_ask(struct hostile *h, struct msg_request *req);

/* One packet with so many descriptors; does not wait. Never what replaces the daemon, if it might
 * obey. */
void hostile_send(struct hostile *h, int sock, const void *buf, size_t n, const int *fds,
                  unsigned n_fds);
void hostile_any_request(struct hostile *h, struct msg_request *req);
/* One of the things that are no life page, or nearly one; and sometimes one. -1: nothing. */
int hostile_any_descriptor(struct hostile *h);
void hostile_flood(struct hostile *h, unsigned n);

static inline uint64_t hostile_below(struct hostile *h, uint64_t n)
{
    return rnd(&h->rng) % n;
}
static inline void hostile_rest(struct hostile *h, uint64_t us)
{
    pause_us(hostile_below(h, us) + 1);
}

/* The deeds: hostile_scribble.c, hostile_packets.c, hostile_hands.c, hostile_crowd.c. */
#define HOSTILE_DEED(fn) void fn(struct hostile *h);
HOSTILE_DEED(scribble_random)
HOSTILE_DEED(scribble_entries)
HOSTILE_DEED(scribble_tags)
HOSTILE_DEED(scribble_hints)
HOSTILE_DEED(scribble_holders)
HOSTILE_DEED(scribble_header)
HOSTILE_DEED(scribble_life)
HOSTILE_DEED(scribble_links)
HOSTILE_DEED(scribble_holes)
HOSTILE_DEED(scribble_filled)
HOSTILE_DEED(scribble_file)
HOSTILE_DEED(packet_valid)
HOSTILE_DEED(packet_mutated)
HOSTILE_DEED(packet_random)
HOSTILE_DEED(packet_replayed)
HOSTILE_DEED(packet_stranger)
HOSTILE_DEED(packet_empty)
HOSTILE_DEED(packet_too_long)
HOSTILE_DEED(packet_half)
HOSTILE_DEED(packet_wide)
HOSTILE_DEED(packet_flood)
HOSTILE_DEED(hands_wrong)
HOSTILE_DEED(hands_full)
HOSTILE_DEED(hands_linger)
HOSTILE_DEED(hands_pinned_page)
HOSTILE_DEED(hands_busy_page)
HOSTILE_DEED(hands_sealed_page)
HOSTILE_DEED(crowd_close)
HOSTILE_DEED(crowd_fork)
HOSTILE_DEED(crowd_exec)
HOSTILE_DEED(crowd_stop)
HOSTILE_DEED(crowd_connections)
HOSTILE_DEED(crowd_storm)
HOSTILE_DEED(crowd_clients)
HOSTILE_DEED(crowd_extents)
HOSTILE_DEED(crowd_roots)
HOSTILE_DEED(crowd_waiters)
HOSTILE_DEED(crowd_flight)
#undef HOSTILE_DEED

#endif
