/* SPDX-License-Identifier: Apache-2.0 */
/*
 * closer.h - closes what is foreign: descriptors that clients have sent, and connections in whose
 * queues such descriptors may still lie. The last close of a file can block for as long as its
 * owner likes (SO_LINGER, FUSE), so that neither the loop nor the pool that all tenants share may
 * do it. Each user has a thread of its own, while there is something to close: who sends what
 * cannot be closed waits for it alone.
 */
#ifndef ACRE_DAEMON_CLOSER_H
#define ACRE_DAEMON_CLOSER_H

#include <sys/types.h>

#include "shm/base.h"

struct closer;

/* -ENOMEM */
int closer_new(struct closer **ret_closer);
/* Waits a second at most for what is being closed: it may never be. */
void closer_leave(struct closer *closer);

/* Takes fd (-1: nothing). is_connection: empties its queue first. */
void closer_close(struct closer *closer, int fd, uid_t uid, bool is_connection);
/* What is not closed yet: descriptors that the user has sent; everything. */
uint32_t closer_n_foreign(struct closer *closer, uid_t uid);
uint32_t closer_n_all(const struct closer *closer);

#endif
