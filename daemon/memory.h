/* SPDX-License-Identifier: Apache-2.0 */
/* memory.h - Grow, Release and FreeLarge, and the sessions that wait for memory. */
#ifndef ACRE_DAEMON_MEMORY_H
#define ACRE_DAEMON_MEMORY_H

#include "daemon/core.h"
#include "proto/msg.h"

void memory_grow(struct core *core, struct session *session, const struct msg_request *req);
void memory_release(struct core *core, struct session *session, const struct msg_request *req);
void memory_free_large(struct core *core, struct session *session, const struct msg_request *req);

/* What is left of them, in the next turn: while core->releasing is not empty. */
void memory_release_more(struct core *core);

/* Memory may have come back to the tenant: tries the waiting Grows again. */
void memory_wake(struct tenant *tenant);
/* To the daemon. */
void memory_wake_all(struct core *core);
/* The next of them, in the next turn: while tenant->n_to_wake > 0. */
void memory_wake_more(struct tenant *tenant);

#endif
