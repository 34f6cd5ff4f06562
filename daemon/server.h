/* SPDX-License-Identifier: Apache-2.0 */
/* server.h - the loop: listens, accepts, keeps time. One of the three files that know libuv. */
#ifndef ACRE_DAEMON_SERVER_H
#define ACRE_DAEMON_SERVER_H

#include "daemon/core.h"
#include "daemon/store.h"

struct server;

struct server_options {
    int listen_fd;
    uint64_t capacity_bytes;
    const char *mode;
    const struct store *store;
    uint64_t idle_ns;                   /* leaves after so long without a client; 0: never */
    const struct config_source *source; /* of the configuration: read again on SIGHUP */
};

int server_new(struct server **ret_server, const struct server_options *options);
struct core *server_core(struct server *server);
/* Until SIGTERM or SIGINT, or idle. */
int server_run(struct server *server);
void server_free(struct server *server);

/* ---- between peer.c, worker.c and server.c ---- */

struct uv_loop_s *server_loop(struct server *server);
uint64_t server_now_ns(struct server *server);
/* A peer is gone: there is room for another. */
void server_peer_gone(struct server *server, uid_t uid);
void server_close_connection(struct server *server, int sock, uid_t uid);
void server_close_foreign(void *server, int fd, uid_t uid);
/* Something has happened: set timers anew at the end of the turn. */
void server_touch(struct server *server);
/* *turn: of the last time that there was something to read for it. */
void server_meet(struct server *server, uint64_t *turn);
/* It has sent so many descriptors that are not closed yet (closer.h) that it is not to be heard. */
bool server_is_clogged(struct server *server, uid_t uid);
/* May more of the user's packets be read in this turn? What reading took. */
bool server_has_turn(struct server *server, uid_t uid);
void server_spend(struct server *server, uid_t uid, uint64_t ns);

#endif
