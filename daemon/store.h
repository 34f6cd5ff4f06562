/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.h - descriptors kept by somebody who outlives this process, so that the next worker gets
 * them: a service manager's store (the sd_notify protocol: FDSTORE, FDSTOREREMOVE, BARRIER), or the
 * keeper, which speaks the same over an inherited socket (keeper.h).
 */
#ifndef ACRE_DAEMON_STORE_H
#define ACRE_DAEMON_STORE_H

#include "shm/base.h"

/* Short: a service manager hands the names of all over in one environment variable of 128 KiB. */
#define STORE_NAME_BYTES 24u
#define STORE_KEEPER     "keeper" /* name of the inherited socket that the keeper reads */
/* The keeper's second one, a memory file: the names of all others, since there may be more than an
 * environment variable holds (128 KiB: some 14,000 of ours, for a service manager). */
#define STORE_NAMES      "names"
#define STORE_IS_KEPT    "." /* the keeper's answer to a barrier */

struct store {
    int sock; /* -1: nobody keeps anything */
    bool is_keeper;
};

struct store_item {
    char name[STORE_NAME_BYTES];
    int fd;
};
struct store_items {
    struct store_item *all;
    uint32_t n;
};

/* Who keeps what, and what has been kept: from $LISTEN_FDS, $LISTEN_FDNAMES, $NOTIFY_SOCKET, which
 * are unset. Once in a process's life, before there are threads. -EINVAL: they make no sense;
 * -ENOMEM. */
int store_open(struct store *ret_store, struct store_items *ret_items);
void store_close(struct store *store);
/* The descriptor of that name, which is the caller's from now on, or -1. */
int store_take(struct store_items *items, const char *name);
/* Closes what has not been taken. */
void store_items_free(struct store_items *items);

/* From any thread. Returns when it is kept; fd stays the caller's. -ETIMEDOUT: no answer within 5
 * s; -EIO: it is not, and the keeper says so; others of the socket. 0 if nobody keeps anything. */
int store_put(const struct store *store, const char *name, int fd);
/* From any thread; never waits. A later put of the same name comes after it. */
void store_drop(const struct store *store, const char *name);
/* "READY=1", "STOPPING=1" */
void store_say(const struct store *store, const char *state);

#endif
