/* SPDX-License-Identifier: Apache-2.0 */
/* own.h - tenants that come and go with their users: "user-%u" in the configuration. Theory in
 * own.c. */
#ifndef ACRE_DAEMON_OWN_H
#define ACRE_DAEMON_OWN_H

#include "daemon/tenant.h"
#include "proto/msg.h"

#define OWN_MARK    "%u"
#define OWN_DEFAULT "default" /* no user's own is called so */

/* The configuration's pattern, and what it says of each user's tenant. */
struct own {
    char name[TENANT_NAME_BYTES];
    struct tenant_wish wish;
    struct access access; /* but for its user, who may attach */
};

/* "" is no pattern: NULL. Takes access. -ENOMEM. */
int own_new(struct own **ret_own, const char *name, const struct tenant_wish *wish,
            struct access *access);
void own_free(struct own *own);

/* May it stand in the configuration? */
bool own_valid_pattern(const char *pattern);
/* Could it be the name of some user's tenant? */
bool own_fits(const char *pattern, const char *name);
/* user: the account's name, "" if it has none. One that no tenant can be called by goes by its
 * number. */
void own_name(const char *pattern, const char *user, uid_t uid, char ret[TENANT_NAME_BYTES]);

/* Does it say no tenant in particular? */
bool own_is_default(const char *name);
/* What a peer means by a tenant's name: its own, perhaps, where it says none. */
const char *own_meant(const struct core *core, uid_t uid, const char *name);
/* Would attaching to what was meant make a new one? */
bool own_is_to_come(const struct core *core, const char *meant);
/* Then its user's name is asked for, and the session waits, or is refused. fd came along. */
void own_ask(struct core *core, struct session *session, const struct msg_request *req, int fd);

/* A user's tenant by the configuration's pattern. -ENOMEM. */
int own_add(struct core *core, const char *name, uid_t uid);

/* Does it go with the next tick? */
bool own_goes(const struct tenant *tenant);
/* Those go of which there is nothing left. */
void own_sweep(struct core *core);

#endif
