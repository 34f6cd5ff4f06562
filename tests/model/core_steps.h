/* SPDX-License-Identifier: Apache-2.0 */
/* core_steps.h - what may happen in the simulated world, one thing at a time. */
#ifndef ACRE_TESTS_CORE_STEPS_H
#define ACRE_TESTS_CORE_STEPS_H

#include "tests/model/core_twin.h"

struct sim {
    bool is_verbose, may_kill;
    uint32_t check_every, script;
    uint32_t n_events[CALL_KINDS][32]; /* the most that were seen, by what the call is */
};

extern struct sim sim;

bool sim_one_in(uint32_t n);

/* Made whole, and what follows from it; or now and then (may_kill) killed, and followed. */
void sim_call(const struct call *call);
/* After a core's death: the clients go on, then there is a new one. */
void sim_follow(void);

/* NULL: there are too many. */
struct conn *sim_new_conn(struct client_twin *c);
void sim_attach(struct client_twin *c);
void sim_die(struct client_twin *c);
/* Of a client's, or of anybody (NULL); NULL: there is none. */
struct piece *sim_any_piece(const struct client_twin *c, enum piece_kind kind);
/* [from, from + n) of an uncut piece becomes a piece by itself, cut; NULL: it was not there. */
struct piece *sim_split(const struct client_twin *c, struct piece *p, uint32_t from, uint32_t n);
void sim_store_tag(struct piece *p, unsigned i, tag_t tag, int owner);
/* Look, or TenantDrop. */
void sim_admin_asks(enum msg_op op, uint32_t tenant);

/* A part of any job. */
void sim_step_job(void);
void sim_step(void);

/* core_rest.c: who lives waits for nothing, the dead are buried, what is left is somebody's. */
void sim_check_at_rest(void);
/* All go, and nothing is left. */
void sim_end(void);

/* core_script.c: calls that are killed at their first event, their second, ... until they are
 * whole, each in a new world. */
void sim_scripts(void);

#endif
