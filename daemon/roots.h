/* SPDX-License-Identifier: Apache-2.0 */
/* roots.h - names of blocks by which processes find their first one. They live in the books. */
#ifndef ACRE_DAEMON_ROOTS_H
#define ACRE_DAEMON_ROOTS_H

#include "daemon/tenant.h"
#include "proto/msg.h"

/*
 * One root operation for the client; *ret_off is what the root names afterwards (get), or named
 * (cas that fails). Setting publishes the block by the same step. -EINVAL, -EPERM, -ENOENT,
 * -EEXIST, -EAGAIN, -ENOSPC: see acre.h.
 */
int roots_do(struct tenant *tenant, const struct client *client, const struct msg_request *req,
             uint64_t *ret_off);

#endif
