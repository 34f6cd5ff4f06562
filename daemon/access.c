/* SPDX-License-Identifier: Apache-2.0 */
/* access.c - see access.h. */
#include "daemon/access.h"

const char *const access_keys[ACCESS_RIGHTS] = {
    [ACCESS_LOOK] = "read_users or read_groups",
    [ACCESS_ATTACH] = "users or groups",
    [ACCESS_ADMIN] = "admin_users or admin_groups",
};

int access_add_user(struct access_list *list, uid_t uid)
{
    uid_t *users = reallocarray(list->users, list->n_users + 1, sizeof(*users));
    if (!users)
        return -ENOMEM;
    list->users = users;
    list->users[list->n_users++] = uid;
    return 0;
}

int access_add_group(struct access_list *list, gid_t gid)
{
    gid_t *groups = reallocarray(list->groups, list->n_groups + 1, sizeof(*groups));
    if (!groups)
        return -ENOMEM;
    list->groups = groups;
    list->groups[list->n_groups++] = gid;
    return 0;
}

void access_list_deinit(struct access_list *list)
{
    free(list->users);
    free(list->groups);
    *list = (struct access_list){0};
}

static bool in_group(const struct creds *creds, gid_t gid)
{
    if (creds->gid == gid)
        return true;
    for (uint32_t i = 0; i < creds->n_groups; i++)
        if (creds->groups[i] == gid)
            return true;
    return false;
}

bool access_list_has(const struct access_list *list, const struct creds *creds)
{
    if (list->everyone)
        return true;
    for (uint32_t i = 0; i < list->n_users; i++)
        if (list->users[i] == creds->uid)
            return true;
    for (uint32_t i = 0; i < list->n_groups; i++)
        if (in_group(creds, list->groups[i]))
            return true;
    return false;
}

bool access_list_is_empty(const struct access_list *list)
{
    return !list->everyone && list->n_users == 0 && list->n_groups == 0;
}

bool access_list_equals(const struct access_list *list, const struct access_list *other)
{
    if (list->everyone != other->everyone || list->n_users != other->n_users ||
        list->n_groups != other->n_groups)
        return false;
    for (uint32_t i = 0; i < list->n_users; i++)
        if (list->users[i] != other->users[i])
            return false;
    for (uint32_t i = 0; i < list->n_groups; i++)
        if (list->groups[i] != other->groups[i])
            return false;
    return true;
}

/* ---- rights ---- */

void access_deinit(struct access *access)
{
    for (unsigned i = 0; i < ACCESS_RIGHTS; i++)
        access_list_deinit(&access->of[i]);
}

bool access_allows(const struct access *access, enum access_right right, const struct creds *creds)
{
    for (unsigned i = right; i < ACCESS_RIGHTS; i++)
        if (access_list_has(&access->of[i], creds))
            return true;
    return false;
}

bool access_is_admin(const struct creds *creds)
{
    return creds->uid == 0 || creds->uid == geteuid();
}
