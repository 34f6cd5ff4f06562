/* SPDX-License-Identifier: Apache-2.0 */
/* peer.h - one connection: packets in, at most one reply waiting to go out. One of the three files
 * that know libuv. */
#ifndef ACRE_DAEMON_PEER_H
#define ACRE_DAEMON_PEER_H

#include "daemon/core.h"

struct peer;
struct server;

LIST_HEAD(peer_list, peer);

/* Takes sock (non-blocking). -ENOMEM, -EACCES (no credentials): sock is closed. */
int peer_new(struct server *server, struct peer_list *list, int sock);
/* Closes; freed in the loop. */
void peer_close(struct peer *peer);
uid_t peer_uid(const struct peer *peer);
struct peer *peer_next(const struct peer *peer);

/* struct core_io */
void peer_io_reply(void *peer, const struct msg_reply *reply, int fd);
void peer_io_close(void *peer);
int peer_io_open_pidfd(void *peer);

#endif
