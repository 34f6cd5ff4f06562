/* SPDX-License-Identifier: Apache-2.0 */
/* prepare.h - pages made before anybody asks for them. Theory in prepare.c. */
#ifndef ACRE_DAEMON_PREPARE_H
#define ACRE_DAEMON_PREPARE_H

#include "daemon/tenant.h"

/* A client has been granted n units; exactly as many as it asked for, or about half of what it has.
 */
void prepare_granted(struct tenant *tenant, uint32_t n, bool exact);

/* Begins the next job if there is anything to prepare and none runs. After whatever may have
 * changed that. */
void prepare_pump(struct tenant *tenant);

/* One tick: what was granted lately is so long ago; what failed may be tried again. */
void prepare_tick(struct tenant *tenant);
/* Is there anything for a later tick? */
bool prepare_is_due(const struct tenant *tenant);

/* Stale units that are to stay prepared are not stale. */
void prepare_spare(struct tenant *tenant);

#endif
