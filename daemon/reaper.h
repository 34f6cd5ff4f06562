/* SPDX-License-Identifier: Apache-2.0 */
/* reaper.h - who is dead, and what becomes of what was theirs. Theory in reaper.c. */
#ifndef ACRE_DAEMON_REAPER_H
#define ACRE_DAEMON_REAPER_H

#include "daemon/tenant.h"

/* A page that must answer before its sender is a client (or is it again). */
struct attach {
    TAILQ_ENTRY(attach) in_queue;
    struct tenant *tenant;
    struct session *session; /* NULL: it has hung up while the page was asked */
    bool is_asked;           /* a worker has the page */
    uint64_t resume;         /* handle of the client that it wants to be again; 0: a new client */
    uid_t uid;               /* of the new client's user, whose life pages it counts among */
    int life_fd;             /* of the new client; or a copy of the old one's while it is asked */
    uint32_t life_no;        /* of the new client: kept.h */
    char name[CLIENT_NAME_BYTES];
};

/* Something says that the client may have gone: ask its page soon, and again until it has answered
 * "gone". */
void reaper_ring(struct client *client);
/* A restored client of which the books say that it is dead. */
void reaper_restore_dying(struct client *client);
/* core->bell_fd is readable: processes have exited. */
void reaper_bells(struct core *core, uint64_t now_ns);

/* The page of an attach is to be asked. The answer goes to attach_answer(). */
void reaper_ask_attach(struct attach *attach);
/* Its session hangs up. A page that no worker has goes at once: else connections that come and go
 * could pile up descriptors behind pages that take long. */
void reaper_forget_attach(struct attach *attach);

/* The clients in WAIT_PUBLISH are waiting. */
void reaper_publish(struct tenant *tenant);

/* Starts what is due: questions, a sweep. */
void reaper_pump(struct tenant *tenant);
/* When reaper_tick() is due: starts and continues what was put off. */
uint64_t reaper_deadline(const struct tenant *tenant);
void reaper_tick(struct tenant *tenant);

#endif
