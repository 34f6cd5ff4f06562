/* SPDX-License-Identifier: Apache-2.0 */
/* event.h - clients that sleep hear that something has changed. Theory in event.c. */
#ifndef ACRE_DAEMON_EVENT_H
#define ACRE_DAEMON_EVENT_H

#include "proto/msg.h"
#include "shm/base.h"

struct client;
struct core;
struct session;
struct tenant;

/* The heap's control page says something new that its clients should hear of, asleep or not. At any
 * time; without a heap there is nobody to hear. */
void event_ring(struct tenant *tenant);

/* MSG_WATCH of an attached client. */
void event_watch(struct core *core, struct session *session, const struct msg_request *req);
/* Its connection is another's, or nobody's. */
void event_disarm(struct client *client);

/* When event_tick() is due. */
uint64_t event_deadline(const struct tenant *tenant);
void event_tick(struct tenant *tenant);

void event_assert_valid(const struct tenant *tenant);

#endif
