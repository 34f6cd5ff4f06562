/* SPDX-License-Identifier: Apache-2.0 */
/* dispatch.h - requests to operations on tenants, and replies. Sessions: one for each
 * connection. */
#ifndef ACRE_DAEMON_DISPATCH_H
#define ACRE_DAEMON_DISPATCH_H

#include "daemon/core.h"
#include "proto/msg.h"

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

#endif
