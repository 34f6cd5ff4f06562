/* SPDX-License-Identifier: Apache-2.0 */
/* ticket.h - places in a tenant's queue for memory. Theory in ticket.c. */
#ifndef ACRE_DAEMON_TICKET_H
#define ACRE_DAEMON_TICKET_H

#include <sys/queue.h>

#include "daemon/soft.h"
#include "proto/msg.h"
#include "shm/base.h"

struct client;
struct core;
struct session;
struct tenant;

#define TICKETS_MAX      64u /* of a client: so many of its threads can wait */
/* Of a user who is no admin: 2.5 MiB, where half of all clients could have thirty. */
#define USER_TICKETS_MAX 16384u

enum ticket_state { TICKET_WAITS, TICKET_SERVED, TICKET_FAILED };

struct ticket {
    TAILQ_ENTRY(ticket) in_line; /* while it waits */
    TAILQ_ENTRY(ticket) by_age;  /* the one asked for longest ago comes first */
    LIST_ENTRY(ticket) of_client;
    struct client *client;
    uint64_t number;
    enum ticket_state state;
    uint32_t n_units, align_order, class_plus_1;
    bool exact;
    bool is_slab;       /* TICKET_SERVED, and: */
    struct msg_run run; /* its grant */
    int error;          /* TICKET_FAILED */
    struct rounds rounds;
    uint64_t since_ns, deadline_ns, asked_ns;
};

TAILQ_HEAD(ticket_queue, ticket);
LIST_HEAD(ticket_list, ticket);

/* Of a tenant. */
struct tickets {
    struct ticket_queue line, by_age;
    uint32_t n_waiting;   /* in line */
    uint64_t n_overtaken; /* units granted to others since the first in line is the first */
    uint64_t look_at_ns;  /* for what nobody told of; UINT64_MAX: nobody waits */
    uint64_t look_wait_ns;
    bool is_coming; /* something is under way for the first in line */
    bool is_hungry; /* the next ones in the next turn */
};

void ticket_init(struct tickets *tickets);

void ticket_wait(struct core *core, struct session *session, const struct msg_request *req);
void ticket_cancel(struct core *core, struct session *session, const struct msg_request *req);
/* For who looks. */
void ticket_tell(struct core *core, struct session *session, const struct tenant *tenant,
                 const struct msg_request *req);

/* Memory may have come back to the tenant, or to the daemon. */
void ticket_wake(struct tenant *tenant);
void ticket_wake_all(struct core *core);

/* Who did not queue wants so many units: not now. */
bool ticket_holds_off(const struct tenant *tenant, uint32_t n_units);
/* Something is under way for who waits, and may be taken by nobody else. */
bool ticket_is_coming(const struct tenant *tenant);
/* And has got some. */
void ticket_overtaken(struct tenant *tenant, uint32_t n_units);

/* Of one that dies. */
void ticket_forget_client(struct client *client);

/* When ticket_tick() is due. */
uint64_t ticket_deadline(const struct tenant *tenant);
void ticket_tick(struct tenant *tenant);

void ticket_assert_valid(const struct tenant *tenant);

#endif
