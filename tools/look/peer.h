/* SPDX-License-Identifier: Apache-2.0 */
/* peer.h - the connection to the daemon, and the sentence for what went wrong. */
#ifndef ACRE_LOOK_PEER_H
#define ACRE_LOOK_PEER_H

#include <limits.h>

#include "proto/address.h"
#include "proto/msg.h"

struct peer {
    int sock;
    uint64_t serial;
    bool is_broken;       /* no use asking anything more */
    uint64_t patience_ns; /* for an answer; 0: as long as a busy daemon may take */
    char path[ADDRESS_BYTES];
    char why[PATH_MAX + 512]; /* of the last failure */
};

/* Connects, and keeps the patience that was set. address NULL: $ACRE_SOCKET, else the system daemon's, else this user's own. Never starts one. */
int peer_open(struct peer *peer, const char *address);
void peer_close(struct peer *peer);

/* A request and its reply. The daemon's refusal is an error like any other, its text in why. ret_fd
 * (may be NULL) is the caller's. -EPROTO also if the reply is to another operation, or a
 * descriptor was wanted and none came. */
int peer_call(struct peer *peer, struct msg_request *req, struct msg_reply *ret_reply, int *ret_fd);

/* Sets why; returns error. */
__attribute__((format(printf, 3, 4))) int peer_fail(struct peer *peer, int error,
                                                    const char *format, ...);

#endif
