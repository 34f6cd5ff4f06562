/* SPDX-License-Identifier: Apache-2.0 */
/* user.h - what each user has of what all share. Users who have nothing are not known. */
#ifndef ACRE_DAEMON_USER_H
#define ACRE_DAEMON_USER_H

#include <sys/queue.h>
#include <sys/types.h>

#include "shm/base.h"

enum user_thing {
    USER_PEERS,   /* connections */
    USER_LIVES,   /* life pages: of clients, attached or dying, and of who attaches */
    USER_TICKETS, /* that wait for memory, or for being asked for */
    USER_THINGS
};

struct user;

struct users {
    LIST_HEAD(, user) list;
    uint32_t n[USER_THINGS]; /* of all together */
};

void users_init(struct users *users);
/* Nobody has anything any more. */
void users_deinit(struct users *users);

/* The user has one more. -ENOMEM */
int user_add(struct users *users, uid_t uid, enum user_thing thing);
/* One less. */
void user_drop(struct users *users, uid_t uid, enum user_thing thing);
uint32_t user_count(const struct users *users, uid_t uid, enum user_thing thing);

#endif
