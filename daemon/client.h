/* SPDX-License-Identifier: Apache-2.0 */
/* client.h - attached processes: ids, incarnations, and what each holds. */
#ifndef ACRE_DAEMON_CLIENT_H
#define ACRE_DAEMON_CLIENT_H

#include <sys/queue.h>
#include <sys/types.h>

#include "daemon/ticket.h"
#include "shm/base.h"
#include "shm/layout.h"

struct core;
struct tenant;
struct session;

/* Units that a client holds in one segment: all of them lie in [lo, hi). */
struct holding {
    uint32_t slot, n_units, lo, hi;
};

enum client_state {
    CLIENT_LIVES,
    CLIENT_DYING,    /* proven dead; waits for a sweep */
    CLIENT_SWEEPING, /* the sweep that runs looks for its tags */
};

struct client {
    TAILQ_ENTRY(client) in_queue; /* tenant->rang while it lives and has rung, tenant->dying then */
    struct tenant *tenant;
    struct session *session; /* or NULL: it has hung up */
    tag_t id;
    uint32_t gen;
    enum client_state state;
    pid_t pid;
    uid_t uid;
    int life_fd, pidfd;
    uint32_t life_no; /* kept.h */
    bool populate;   /* it lives in another memory cgroup: grants are backed before they are told */
    bool publishing; /* the sweep that runs publishes what it owns */
    bool has_rung, is_asked;
    bool pins; /* soft blocks; soft.h */
    uint64_t ask_at_ns, ask_wait_ns;
    uint64_t maps[HEAP_SLOTS / 64]; /* segments by slot, or might; retire.h */
    uint32_t letting_go;            /* slot + 1 of the one that it is unmapping, or 0 */
    uint64_t n_units;
    struct holding *holdings;
    uint32_t n_holdings;
    struct ticket_list tickets;
    uint32_t n_tickets;
    uint64_t shielded_ns;            /* until then the search takes nothing of it; ticket.c */
    TAILQ_ENTRY(client) in_watchers; /* of the tenant, while it is_armed; event.c */
    bool is_armed;
    uint32_t watch_seen;
};

TAILQ_HEAD(client_queue, client);

/* Ids: fresh ones in order, then those that were freed, oldest first. */
struct client_table {
    struct client **by_id; /* CLIENT_IDS */
    uint32_t n, next_fresh;
    tag_t *freed; /* ring of CLIENT_IDS */
    uint32_t freed_head, n_freed;
};

/* -ENOMEM */
int client_table_init(struct client_table *table);
void client_table_deinit(struct client_table *table);
/* 0: all are taken. */
tag_t client_table_take_id(struct client_table *table);
/* The i'th of the ids that nobody has and that nobody gets before that many have been given back;
 * 0: there are no more. */
tag_t client_table_resting(const struct client_table *table, uint32_t i);
void client_table_give_id(struct client_table *table, tag_t id);

/*
 * A new client of an open heap, in the table, the control page and the books. what: all but gen and
 * state. life_fd, counted, and pidfd (or -1) become its own. -EAGAIN: no id is left; -ENOMEM.
 */
struct books_client;
int client_add(struct tenant *tenant, const struct books_client *what, int life_fd, int pidfd,
               struct client **ret_client);
/* A client that the books have already, with this id. -ENOMEM. */
int client_restore(struct tenant *tenant, tag_t id, int life_fd);
/* Its process's end rings. pidfd (or -1) becomes its own. */
void client_watch(struct client *client, int pidfd);
/* After all are restored: which ids are free. */
void client_table_restored(struct tenant *tenant);
/* The end: it holds nothing, its tags are swept. */
void client_remove(struct client *client);
/* The living client of a handle, or NULL. */
struct client *client_find(const struct tenant *tenant, uint64_t handle);

void client_hold(struct client *client, uint32_t slot, uint32_t unit, uint32_t n);
void client_unhold(struct client *client, uint32_t slot, uint32_t n);

#endif
