/* SPDX-License-Identifier: Apache-2.0 */
/* admin.h - Status, Tenants, Look, Upgrade, Reload and TenantDrop. */
#ifndef ACRE_DAEMON_ADMIN_H
#define ACRE_DAEMON_ADMIN_H

#include "daemon/core.h"
#include "proto/msg.h"

void admin_status(struct core *core, struct session *session);
void admin_tenants(struct core *core, struct session *session, const struct msg_request *req);
void admin_look(struct core *core, struct session *session, const struct msg_request *req);
void admin_upgrade(struct core *core, struct session *session);
void admin_reload(struct core *core, struct session *session);
void admin_tenant_set(struct core *core, struct session *session, const struct msg_request *req);
void admin_tenant_drop(struct core *core, struct session *session, const struct msg_request *req);

#endif
