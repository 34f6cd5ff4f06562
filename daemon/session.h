/* SPDX-License-Identifier: Apache-2.0 */
/* session.h - a connection as the core sees it: replies, waiting, hanging up. struct session stands
 * in core.h. */
#ifndef ACRE_DAEMON_SESSION_H
#define ACRE_DAEMON_SESSION_H

#include "daemon/core.h"
#include "proto/msg.h"

/* A reply of kind op, to be filled in. */
struct msg_reply *reply_of(struct msg_reply *reply, enum msg_op op);

/* Each ends the wait for the session's request. fd (or -1) is given away; it sets an ack_nonce. */
void session_reply(struct core *core, struct session *session, struct msg_reply *reply, int fd);
void session_fail(struct core *core, struct session *session, int error, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void session_ok(struct core *core, struct session *session);
/* What the session waited for has been done: replies 0. */
void session_done(struct session *session);

void session_close(struct core *core, struct session *session);
/* Hangs up on a session whose client is no longer its own. Its pending request gets no reply. */
void session_abandon(struct session *session);

/* In the tenant's queue until memory_wake(). */
void session_wait_memory(struct session *session, const struct msg_request *req);
/* For the next turn, with what session->request says. */
void session_wait_release(struct session *session);
/* In the core's queue until a sweep has published what its client owns. */
void session_wait_publish(struct session *session);
void session_stop_waiting(struct session *session);

/* A descriptor (or -1) from the peer. */
void session_close_unwanted(struct core *core, const struct session *session, int fd);

/* The tenant, if it is there and the peer has the right; else replies. */
struct tenant *session_find(struct core *core, struct session *session, const char *name,
                            enum access_right right);
/* And with its heap: to look, or to attach anew. */
struct tenant *session_admit(struct core *core, struct session *session, const char *name,
                             enum access_right right);
/* Replies: whom the configuration would have to name, and where. what: "reload", say. */
void session_refuse(struct core *core, struct session *session, const char *what);

#endif
