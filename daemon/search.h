/* SPDX-License-Identifier: Apache-2.0 */
/* search.h - looks for memory that nobody uses, before anybody is refused. Theory in search.c. */
#ifndef ACRE_DAEMON_SEARCH_H
#define ACRE_DAEMON_SEARCH_H

#include "daemon/tenant.h"

/* The round that must be over (search.n_rounds) before the one who asks now may be refused. */
uint64_t search_begin(const struct tenant *tenant);
/* One step, after which units may be free. false: not now, who asks has to wait. */
bool search_step(struct tenant *tenant, const struct client *asking);

/* Of the loop's turn, for all that this heap looks for: are any left? If not it is hungry: who waits
 * is tried again in the next one. */
bool search_has_steps(struct tenant *tenant);
void search_spend(struct tenant *tenant, uint64_t n_steps);

/* What this client was granted and has not begun on, its pool and what it has not been told of, is
 * free afterwards, or parked again. */
void search_take_unknown(struct tenant *tenant, const struct client *of);
/* The same of a run, of which some may be another's by now. */
void search_take_run(struct tenant *tenant, struct seg *seg, uint32_t unit, uint32_t n, tag_t of);

#endif
