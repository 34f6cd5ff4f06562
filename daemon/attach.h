/* SPDX-License-Identifier: Apache-2.0 */
/* attach.h - Attach and Detach. Nothing is owned before the life page has answered once. */
#ifndef ACRE_DAEMON_ATTACH_H
#define ACRE_DAEMON_ATTACH_H

#include "daemon/core.h"
#include "proto/msg.h"

struct attach;

/* fd (or -1) came along and is taken. Replies later, by attach_answer(). */
void attach_request(struct core *core, struct session *session, const struct msg_request *req,
                    int fd);
/* One more life page of the session's user, who has to drop it again. false: that would be too many,
 * replied. */
bool attach_count(struct core *core, struct session *session);
/* The life page of an attach has answered: it is mapped (0), or not (-EPROTO), or cannot be kept
 * (-EIO). Takes attach. */
void attach_answer(struct core *core, struct attach *attach, int error, bool other_cgroup);
/* Replies when the client has been buried. */
void attach_detach(struct core *core, struct session *session);

#endif
