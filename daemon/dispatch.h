/* SPDX-License-Identifier: Apache-2.0 */
/* dispatch.h - requests to operations on tenants, and replies. Sessions: one for each connection.
 */
#ifndef ACRE_DAEMON_DISPATCH_H
#define ACRE_DAEMON_DISPATCH_H

#include "daemon/core.h"
#include "proto/msg.h"

struct attach;

/* ---- for the driver ---- */

void dispatch_accept(struct core *core, struct session *session, void *peer,
                     const struct creds *creds);
/*
 * One request; fd (or -1) came along and is the core's now. Not while session->wait is other than
 * WAIT_NONE. error: what codec_unpack_request() said; then only req->serial is looked at.
 */
void dispatch_request(struct core *core, struct session *session, const struct msg_request *req,
                      int error, int fd, uint64_t now_ns);
/* The connection is gone; the session may be freed afterwards. */
void dispatch_hangup(struct core *core, struct session *session, uint64_t now_ns);

/* ---- for the rest of the core ---- */

/* The life page of an attach has answered. Takes attach. */
void dispatch_attach_answer(struct core *core, struct attach *attach, bool is_alive,
                            bool other_cgroup);
/* What the session waited for has been done: replies 0. */
void dispatch_done(struct session *session);
/* Memory may have come back to the tenant: tries the waiting Grows again. */
void dispatch_wake(struct tenant *tenant);
/* The next of them, in the next turn: while tenant->n_to_wake > 0. */
void dispatch_wake_more(struct tenant *tenant);
/* Hangs up on a session whose client is no longer its own. Its pending request gets no reply. */
void dispatch_abandon(struct session *session);

#endif
