/* SPDX-License-Identifier: Apache-2.0 */
/* retire.h - segments that clients map leave the heap, by and by, when others need their room.
 * Theory in retire.c. */
#ifndef ACRE_DAEMON_RETIRE_H
#define ACRE_DAEMON_RETIRE_H

#include "daemon/tenant.h"

/* The client wants a segment of n_units, and max, the capacity or the slots leave no room. true:
 * others have been asked for what they do not use, and the answer may still come; memory_wake()
 * follows then or at the end of the time for it. */
bool retire_room(const struct client *client, uint64_t n_units);
/* It got what it asked for. */
void retire_satisfied(struct tenant *tenant);
/* It is used after all; nobody is letting go of it. */
void retire_not(struct tenant *tenant, struct seg *seg);

/* MSG_RETIRE of an attached client. */
void retire_request(struct core *core, struct session *session, const struct msg_request *req);

/* The client is about to have a descriptor of the segment. */
void retire_mapped(struct client *client, struct seg *seg);
/* It has ended. */
void retire_forget(struct client *client);
/* All clients and segments are restored: any of them may map any. */
void retire_restored(struct tenant *tenant);

/* At core->retire_at_ns, in the loop. */
void retire_pump(struct core *core);
/* Who has not heard is told again. */
void retire_tick(struct tenant *tenant);

#endif
