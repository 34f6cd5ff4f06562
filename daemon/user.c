/* SPDX-License-Identifier: Apache-2.0 */
/* user.c - see user.h. */
#include "daemon/user.h"

#include <stdlib.h>

struct user {
    LIST_ENTRY(user) in_users;
    uid_t uid;
    uint32_t n[USER_THINGS];
};

static struct user *find(const struct users *users, uid_t uid)
{
    struct user *u;
    LIST_FOREACH (u, &users->list, in_users)
        if (u->uid == uid)
            return u;
    return NULL;
}

static struct user *get(struct users *users, uid_t uid)
{
    struct user *u = find(users, uid);
    if (u)
        return u;
    u = calloc(1, sizeof(*u));
    if (!u)
        return NULL;
    u->uid = uid;
    LIST_INSERT_HEAD(&users->list, u, in_users);
    return u;
}

void users_init(struct users *users)
{
    *users = (struct users){0};
    LIST_INIT(&users->list);
}

void users_deinit(struct users *users)
{
    acre_assert(LIST_EMPTY(&users->list));
    for (unsigned i = 0; i < USER_THINGS; i++)
        acre_assert(users->n[i] == 0);
}

int user_add(struct users *users, uid_t uid, enum user_thing thing)
{
    struct user *u = get(users, uid);
    if (!u)
        return -ENOMEM;
    u->n[thing]++;
    users->n[thing]++;
    return 0;
}

void user_drop(struct users *users, uid_t uid, enum user_thing thing)
{
    struct user *u = find(users, uid);
    acre_assert(u && u->n[thing] > 0);
    u->n[thing]--;
    users->n[thing]--;
    for (unsigned i = 0; i < USER_THINGS; i++)
        if (u->n[i] > 0)
            return;
    LIST_REMOVE(u, in_users);
    free(u);
}

uint32_t user_count(const struct users *users, uid_t uid, enum user_thing thing)
{
    const struct user *u = find(users, uid);
    return u ? u->n[thing] : 0;
}
