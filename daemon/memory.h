/* SPDX-License-Identifier: Apache-2.0 */
/* memory.h - Grow, Release and FreeLarge, and the sessions that wait for memory. */
#ifndef ACRE_DAEMON_MEMORY_H
#define ACRE_DAEMON_MEMORY_H

#include "daemon/core.h"
#include "daemon/grant.h"
#include "proto/msg.h"

void memory_grow(struct core *core, struct session *session, const struct msg_request *req);
void memory_release(struct core *core, struct session *session, const struct msg_request *req);
void memory_free_large(struct core *core, struct session *session, const struct msg_request *req);

/* The session's client is told of what it has been granted, when it is backed. */
void memory_give(struct core *core, struct session *session, const struct msg_request *req,
                 const struct grant *grant);
/* The wall that is nearest: its tenant's own, a group's above it, or the machine's. */
void memory_name_wall(const struct tenant *tenant, char *ret, size_t n);

/* What is left of them, in the next turn: while core->releasing is not empty. */
void memory_release_more(struct core *core);

/* Memory may have come back to the tenant: tries the tickets (ticket.h), then the waiting Grows
 * again. */
void memory_wake(struct tenant *tenant);
/* To the daemon. */
void memory_wake_all(struct core *core);
/* The next of them, in the next turn: while tenant->n_to_wake > 0. */
void memory_wake_more(struct tenant *tenant);

#endif
