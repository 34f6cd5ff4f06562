/* SPDX-License-Identifier: Apache-2.0 */
/* who.h - which process is which tenant's client, as the daemon says. */
#ifndef ACRE_TRACE_WHO_H
#define ACRE_TRACE_WHO_H

#include "tools/look/peer.h"

struct who_client {
    uint32_t pid, id, gen;
    char tenant[TENANT_NAME_BYTES], name[CLIENT_NAME_BYTES];
    uint64_t granted_bytes;
    bool is_gone; /* it was there at an earlier look */
};

struct who {
    struct peer peer;
    size_t n, capacity;
    struct who_client *list;
};

/* address as of peer_open(). Negative errno: there is no daemon to ask, peer.why says it. */
int who_init(struct who *who, const char *address);
void who_deinit(struct who *who);

/* Asks the daemon, where clients still are; a tenant that may not be looked at has none for us. */
int who_look(struct who *who);
/* The next client of the process behind `after` (NULL: the first), or NULL. Valid until the next
 * look. */
struct who_client *who_next(struct who *who, uint32_t pid, struct who_client *after);
/* Forgets a process. */
void who_forget(struct who *who, uint32_t pid);

#endif
