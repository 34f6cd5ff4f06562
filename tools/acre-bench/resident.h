/* SPDX-License-Identifier: Apache-2.0 */
/* resident.h - how much memory a participant keeps from others. */
#ifndef BENCH_RESIDENT_H
#define BENCH_RESIDENT_H

#include <sys/types.h>

#include "measure.h"

/* This process's anonymous pages. */
uint64_t resident_private(void);

/* A line of a process's smaps_rollup: "Rss:", say. */
uint64_t resident_of(pid_t pid, const char *name);

/* This process's page tables. */
uint64_t resident_tables(void);

/* The pages of all of the tenant's segments, whoever touched them; asks acrectl. 0 for other
 * participants. */
uint64_t resident_shared(const struct child *child);

/* Has Acre's daemon prepared what its tenant is to have ready? Asks acrectl. */
bool resident_is_prepared(const struct child *child);

#endif
