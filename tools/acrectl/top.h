/* SPDX-License-Identifier: Apache-2.0 */
/* top.h - acrectl top: who holds how much, as it changes; from tenants down to clients and classes. */
#ifndef ACRECTL_TOP_H
#define ACRECTL_TOP_H

#include "tools/look/peer.h"

/* Until the user has enough. Negative errno: peer->why. */
int top_run(struct peer *peer, unsigned refresh_ms);

#endif
