/* SPDX-License-Identifier: Apache-2.0 */
/* records.h - Extents and Holders: what the books say, for those who compare. */
#ifndef ACRE_DAEMON_RECORDS_H
#define ACRE_DAEMON_RECORDS_H

#include "daemon/tenant.h"
#include "proto/msg.h"

void records_extents(struct core *core, struct session *session, const struct tenant *tenant,
                     const struct msg_request *req);
void records_holders(struct core *core, struct session *session, const struct tenant *tenant,
                     const struct msg_request *req);

#endif
