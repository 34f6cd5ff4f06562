/* SPDX-License-Identifier: Apache-2.0 */
/* retire.h - segments that clients map leave the heap, by and by, when others need their room.
 * Theory in retire.c. */
#ifndef ACRE_DAEMON_RETIRE_H
#define ACRE_DAEMON_RETIRE_H

#include "daemon/tenant.h"

#define RETIRE_LATE_NS 200000000ull

/* Nobody has a unit of it, and it is not on its way already. */
bool retire_may(const struct seg *seg);
/* Or is: its bytes are as good as given back. */
bool retire_could(const struct seg *seg);
void retire_begin(struct tenant *tenant, struct seg *seg);
/* It is used after all; nobody is letting go of it. */
void retire_not(struct tenant *tenant, struct seg *seg);
/* What nobody maps any more goes. */
void retire_finish(struct tenant *tenant);
/* Is a client other than this one to let go of something? */
bool retire_others_map(const struct tenant *tenant, const struct client *asking);

/* MSG_RETIRE of an attached client. */
void retire_request(struct core *core, struct session *session, const struct msg_request *req);

bool retire_maps(const struct client *client, const struct seg *seg);
/* The client is about to have a descriptor of the segment. */
void retire_mapped(struct client *client, struct seg *seg);
/* It has ended. */
void retire_forget(struct client *client);
/* All clients and segments are restored: any of them may map any. */
void retire_restored(struct tenant *tenant);

/* Who has not heard is told again. */
void retire_tick(struct tenant *tenant);

#endif
