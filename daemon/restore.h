/* SPDX-License-Identifier: Apache-2.0 */
/* restore.h - a new daemon takes over what was kept of the one before it. */
#ifndef ACRE_DAEMON_RESTORE_H
#define ACRE_DAEMON_RESTORE_H

#include "daemon/core.h"
#include "daemon/store.h"

/* Into a core with its tenants and nothing else. Takes of the items what is a heap's; what makes no
 * sense is said in the log, and dropped. An error: a heap is another version's (-EPROTO), or the
 * system has no room for it; nothing of that heap is dropped then, and this daemon must not go
 * on. */
int restore_all(struct core *core, struct store_items *items);

#endif
