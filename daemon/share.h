/* SPDX-License-Identifier: Apache-2.0 */
/* share.h - who is to have how much when not all can have what they want: weighted max-min
 * fairness over the tree of budgets. Theory in share.c. */
#ifndef ACRE_DAEMON_SHARE_H
#define ACRE_DAEMON_SHARE_H

#include "daemon/ledger.h"

#define SHARE_SLACK 32u /* of a share: what is less is not worth it */

/*
 * From what is said of each budget (struct share), for all:
 *   fair_bytes    its share: what it would have if everybody gave back what is above the own one;
 *   reach_bytes   what it may have in all as long as nobody does: UINT64_MAX, if nobody is short.
 */
void share_all(struct ledger *ledger);

/* Is so much more a part of what it has been promised? */
bool share_is_promised(const struct share *share, uint64_t more_bytes);

/* The least share that it can have as long as nobody else comes: if all that have something wanted
 * all there is. */
uint64_t share_at_least(const struct budget *budget);

#endif
