/* SPDX-License-Identifier: Apache-2.0 */
/* pressure.h - which tenants have more than they should, and that they hear of it. */
#ifndef ACRE_DAEMON_PRESSURE_H
#define ACRE_DAEMON_PRESSURE_H

#include "daemon/tenant.h"

/* By their limits, and (is_scarce) by the shares as they were found last: what stands in the control
 * pages; who has more to give than it was told is woken. Returns what those who want have less than
 * their shares. */
uint64_t pressure_tell(struct core *core, bool is_scarce);

#endif
