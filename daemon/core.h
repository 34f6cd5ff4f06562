/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core.h - the daemon without its loop: tenants, sessions, jobs, and the four ways in which they
 * touch the world.
 *
 * Whoever drives the core (server.c, a test, a simulator) calls
 *     dispatch_request(), dispatch_hangup()       what peers do (dispatch.h)
 *     core_job_done()                             in the loop, job->work() has run in any thread
 *     core_tick()                                 not before core_deadline(), in the loop
 *     reaper_bells()                              when core->bell_fd is readable
 * and provides struct core_io. Time comes in as an argument; all randomness from machine_random().
 * No function of core_io may call back into the core.
 */
#ifndef ACRE_DAEMON_CORE_H
#define ACRE_DAEMON_CORE_H

#include <sys/queue.h>

#include "daemon/access.h"
#include "daemon/capacity.h"
#include "daemon/ledger.h"
#include "daemon/soft.h"
#include "daemon/user.h"
#include "proto/msg.h"
#include "shm/base.h"

struct core;
struct tenant;
struct client;
struct attach;
struct tenant_wish;
struct config_source;
struct own;

#define NOBODY_UID ((uid_t)-1)

/* Work that may block. work() sees only the job; done() runs in the loop and frees it. */
struct job {
    void (*work)(struct job *job);
    void (*done)(struct core *core, struct job *job);
};

struct core_io {
    void *ctx;
    /* fd (or -1) is the callee's from now on. Never fails: a peer that is gone will be told by
     * dispatch_hangup(). */
    void (*reply)(void *peer, const struct msg_reply *reply, int fd);
    /* Hang up on the peer; dispatch_hangup() follows from the loop. */
    void (*close)(void *peer);
    void (*submit)(void *ctx, struct job *job);
    /* Closes a descriptor that a client has sent, in a thread that may stick in it. uid: of who
     * sent what it should not have sent; NOBODY_UID for a life page. fd may be -1. */
    void (*close_foreign)(void *ctx, int fd, uid_t uid);
    /* A pidfd of the process that connected, or -1. */
    int (*open_pidfd)(void *peer);
    /* A copy of fd outlives this daemon under that name, when it returns (0); any thread. */
    int (*keep)(void *ctx, const char *name, int fd);
    void (*drop)(void *ctx, const char *name);
};

/* What a session waits for; the loop reads nothing from its peer meanwhile. */
enum wait {
    WAIT_NONE,
    WAIT_ATTACH,   /* for a life page's answer: its own, or of the client it wants to be again */
    WAIT_MEMORY,   /* in tenant->waiters, until something that is under way has given memory back */
    WAIT_RELEASE,  /* in core->releasing, for the next turn */
    WAIT_POPULATE, /* for its grant's pages */
    WAIT_PUBLISH,  /* in core->publishing, for the sweep */
    WAIT_DETACH,   /* for its client's reaping */
    WAIT_RELOAD,   /* for the configuration */
    WAIT_NAME,     /* in core->naming, for its user's name */
};

/* A peer as the core sees it. */
struct session {
    LIST_ENTRY(session) in_core;
    TAILQ_ENTRY(session) in_waiters;
    struct core *core;
    void *peer;
    struct creds creds;
    bool greeted, closing;
    bool is_resumed; /* by a client that may repeat a Grow; once */
    enum wait wait;
    bool is_reloading;        /* WAIT_RELOAD: by the run that is under way; else by the next one */
    uint64_t serial;          /* of the request that waits */
    uint64_t ack_nonce;       /* != 0: a descriptor is unacknowledged */
    struct msg_request *held; /* sent before the Ack */
    struct msg_request
        request;         /* WAIT_MEMORY: to be tried again; WAIT_RELEASE: to be gone on with */
    int request_fd;      /* WAIT_NAME: came with it */
    uint32_t n_released; /* of its runs */
    int release_error;
    struct rounds rounds;
    struct attach *attach;  /* WAIT_ATTACH */
    struct client *client;  /* attached */
    struct tenant *looking; /* or looks at */
    uint64_t looking_heap_id;
    bool reads; /* and keeps what it maps */
};

LIST_HEAD(session_list, session);
TAILQ_HEAD(session_queue, session);
TAILQ_HEAD(attach_queue, attach);
LIST_HEAD(tenant_list, tenant);

struct core {
    struct core_io io;
    struct ledger ledger;
    struct capacity capacity;
    struct tenant **tenants; /* by name */
    uint32_t n_tenants;
    uint32_t n_clients;          /* attached or dying, of all tenants */
    struct access_list admins;   /* beside root and the daemon's own user */
    struct users users;          /* what each has of what all share */
    uint32_t n_lives_max;        /* life pages: of clients, and of who attaches */
    uint32_t n_borrowed;         /* copies of life pages, of those who attach again */
    uint32_t n_user_tickets_max; /* as ticket.h says */
    uint32_t n_user_lives_max;   /* of a user who is no admin: a client outlives its connection */
    struct session_list sessions;
    struct session_queue releasing;          /* WAIT_RELEASE */
    struct session_queue publishing;         /* WAIT_PUBLISH */
    struct session_queue naming;             /* WAIT_NAME */
    bool is_naming;                          /* a job, for one of them */
    struct own *own;                         /* how users' own tenants are; NULL: there are none */
    uint32_t n_jobs;                         /* submitted, not done */
    uint64_t yielding_bytes;                 /* orphaned in the ledger, and soon free; yield.c */
    uint64_t retiring_bytes;                 /* of segments, still charged; retire.c */
    uint64_t shared_limits, shared_orphaned; /* as of the last look at the shares; room.c */
    uint64_t scarce_until_ns;                /* somebody demands what others have */
    uint64_t told_ns;                        /* when all were told what they have too much */
    uint64_t room_at_ns;                     /* when to look for room; UINT64_MAX: never */
    uint32_t room_next;                      /* whose turn it is to get some */
    uint64_t now_ns, started_ns, tick_at_ns;
    uint32_t next_heap_no, next_life_no; /* of the kept descriptors; kept.h */
    int bell_fd;                         /* an epoll of pidfds, or -1 */
    bool is_configured;                  /* for the first time, at least: reload.c */
    bool is_stopping;                    /* nothing new is begun */
    bool makes_room;                     /* for another worker: now */
    const char *mode;                    /* "system" or "user" */
    const struct config_source *source;  /* of the configuration; NULL: it cannot be read again */
    uint32_t next_served;                /* of the tenants: whose ticket comes next */
    struct zombie *zombies;              /* segments of dropped heaps that somebody may map */
    tag_t *tags;                         /* scratch for one slab's owner map */
};

/* -ENOMEM */
int core_init(struct core *core, const struct core_io *io, uint64_t capacity_bytes,
              const char *mode, uint64_t now_ns);
/* All sessions have been hung up and all jobs are done. */
void core_deinit(struct core *core);
/* Of a heap that goes as it is. */
void core_forget_clients(struct tenant *tenant);

/* Who may anything: with all tenants, and with the daemon itself. */
bool core_is_admin(const struct core *core, const struct creds *creds);

/* Takes access: who may attach. -EEXIST, -ENOMEM. */
int core_add_tenant(struct core *core, const char *name, const struct tenant_wish *wish,
                    struct access_list *access);
/* One that has no heap, and of which nobody maps anything: nobody but who looks knows it. */
void core_remove_tenant(struct core *core, uint32_t at);
struct tenant *core_find_tenant(const struct core *core, const char *name);

/* There is more room than before: who wants more ready may have it. */
void core_changed(struct core *core);

/* Deferred work: when it is due (UINT64_MAX never), and doing it. */
uint64_t core_deadline(const struct core *core);
void core_tick(struct core *core, uint64_t now_ns);

void core_submit(struct core *core, struct job *job);
/* The driver's: job->work() has run. */
void core_job_done(struct core *core, struct job *job, uint64_t now_ns);

/* Live bytes that belong to the heaps and to no client. Walks all owner maps. */
uint64_t core_published_bytes(const struct core *core);

void core_assert_valid(const struct core *core);

#endif
