/* SPDX-License-Identifier: Apache-2.0 */
/* tenant.h - what is done to one tenant: its limits are set, its heap is dropped. */
#ifndef ACRECTL_TENANT_H
#define ACRECTL_TENANT_H

#include "tools/look/peer.h"

/* NAME, then "max=64M" and others. -EINVAL: one sentence in why. */
int tenant_parse(struct msg_request *ret, char *const words[], int n_words,
                 char why[MSG_TEXT_BYTES]);
/* As parsed. waits: until the tenant has no more than its max; shows how far it is on a terminal. */
int tenant_set(struct peer *peer, struct msg_request *req, bool waits);
int tenant_drop(struct peer *peer, const char *name);

#endif
