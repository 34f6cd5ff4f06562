/* SPDX-License-Identifier: Apache-2.0 */
/* waiters.h - who waits for memory of a tenant, in the order in which they will be served. */
#ifndef ACRECTL_WAITERS_H
#define ACRECTL_WAITERS_H

#include "tools/look/peer.h"

struct waiters {
    char name[TENANT_NAME_BYTES]; /* of the tenant */
    int error;                    /* then nothing below is known, and why says it */
    char why[MSG_TEXT_BYTES];
    char wall[MSG_WALL_BYTES]; /* what is in the way */
    size_t n;
    struct msg_waiter *all;
};

/* A tenant that cannot be looked at has its own error. */
int waiters_take(struct waiters *ret_waiters, struct peer *peer, const char *tenant);
void waiters_deinit(struct waiters *waiters);

#endif
