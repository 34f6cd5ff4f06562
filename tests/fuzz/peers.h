/* SPDX-License-Identifier: Apache-2.0 */
/* peers.h - the fake peers of fuzz_dispatch.c, in the simulator's world (../model/core_world.h):
 * what they can send, and what must be true of the core whatever that was. */
#ifndef ACRE_TESTS_FUZZ_PEERS_H
#define ACRE_TESTS_FUZZ_PEERS_H

#include "tests/model/core_world.h"

#define PEERS 5u

/* What comes along with the next packet. */
enum present {
    PRESENT_NONE,
    PRESENT_PAGE, /* the peer's own, which it maps */
    PRESENT_OTHERS_PAGE,
    PRESENT_UNMAPPED,
    PRESENT_READONLY,
    PRESENT_UNSEALABLE,
    PRESENT_SEALED,
    PRESENT_SHORT,
    PRESENT_LONG,
    PRESENT_DEVICE,
    PRESENT_PIPE,
    PRESENT_KINDS
};

struct peer {
    struct fake fake;
    int present, held; /* or -1 */
    unsigned n_sent, n_seen, n_watches;
    uint32_t tenant; /* in world_names, that it attached to last */
    uint64_t off;    /* that it was granted last */
};

extern struct peer peers[PEERS];

/* A world without a heap yet; the wishes are set. */
void peers_begin(void);
void peers_connect(struct peer *p, uid_t uid);
void peers_bring(struct peer *p, enum present what);
/* As daemon/peer.c does, if it would read now. The present goes along. */
void peers_send(struct peer *p, const uint8_t *packet, size_t n);
void peers_ask(struct peer *p, const struct msg_request *req);
/* Says what a client says at this moment: Ack, if it has something to acknowledge. */
void peers_ack(struct peer *p);
/* All of connecting and becoming a client, or the same client again. */
void peers_attach(struct peer *p, uint32_t tenant, uid_t uid);
void peers_hang_up(struct peer *p);
/* The descriptor that came last stays its own until it dies. */
void peers_hold(struct peer *p);
/* The connection stays open. */
void peers_die(struct peer *p);
/* Of those who were told to go. */
void peers_hang_up_closing(void);
void peers_tick(uint64_t ns);
void peers_run_jobs(void);
/* The daemon has died, and the next one is there. */
void peers_restore(void);

/* The core's books, and each reply since the last look. */
void peers_check(void);
/* Who waits is answered; all go; then nothing is left of them. */
void peers_end(void);

#endif
