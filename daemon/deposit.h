/* SPDX-License-Identifier: Apache-2.0 */
/* deposit.h - what the next daemon must have is kept before anybody owns anything of it. */
#ifndef ACRE_DAEMON_DEPOSIT_H
#define ACRE_DAEMON_DEPOSIT_H

#include "daemon/tenant.h"

/* A heap's books and control segment. In a worker; errors of store_put(). */
int deposit_heap(const struct tenant *tenant);
/* A segment that was just added: seg->is_kept some time later, and who waits is woken. */
void deposit_seg(struct tenant *tenant, struct seg *seg);
/* Those that have failed, once more. */
void deposit_again(struct tenant *tenant);

#endif
