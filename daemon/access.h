/* SPDX-License-Identifier: Apache-2.0 */
/* access.h - who a peer is (as the kernel says), and who may do what with a tenant. */
#ifndef ACRE_DAEMON_ACCESS_H
#define ACRE_DAEMON_ACCESS_H

#include <sys/types.h>

#include "shm/base.h"

#define CREDS_GROUPS_MAX 64u /* more groups of a peer than these are not looked at */

struct creds {
    pid_t pid;
    uid_t uid;
    gid_t gid;
    uint32_t n_groups; /* supplementary */
    gid_t groups[CREDS_GROUPS_MAX];
};

struct access_list {
    bool everyone;
    uid_t *users;
    gid_t *groups;
    uint32_t n_users, n_groups;
};

/* Who has one has those before it. The configuration's keys: access_keys. */
enum access_right { ACCESS_LOOK, ACCESS_ATTACH, ACCESS_ADMIN, ACCESS_RIGHTS };

extern const char *const access_keys[ACCESS_RIGHTS];

struct access {
    struct access_list of[ACCESS_RIGHTS];
};

/* -ENOMEM */
int access_add_user(struct access_list *list, uid_t uid);
int access_add_group(struct access_list *list, gid_t gid);
void access_list_deinit(struct access_list *list);
bool access_list_has(const struct access_list *list, const struct creds *creds);
bool access_list_is_empty(const struct access_list *list);
/* In the same order, too. */
bool access_list_equals(const struct access_list *list, const struct access_list *other);

void access_deinit(struct access *access);
bool access_allows(const struct access *access, enum access_right right, const struct creds *creds);

/* root and the daemon's own user, who always may. */
bool access_is_admin(const struct creds *creds);

#endif
