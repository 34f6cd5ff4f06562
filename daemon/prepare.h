/* SPDX-License-Identifier: Apache-2.0 */
/* prepare.h - pages made before anybody asks for them. Theory in prepare.c. */
#ifndef ACRE_DAEMON_PREPARE_H
#define ACRE_DAEMON_PREPARE_H

#include "daemon/tenant.h"

/* In a worker: makes the pages of a run of the file, changing no content; huge: huge ones, where
 * the system has them and the run covers them. -ENOMEM and others of the system. */
int prepare_pages(int fd, uint32_t unit, uint32_t n, bool huge);

/* A client has been granted n units; exactly as many as it asked for, or about half of what it
 * has. */
void prepare_granted(struct tenant *tenant, uint32_t n, bool exact);

/* Begins the next job if there is anything to prepare and none runs. After whatever may have
 * changed that. */
void prepare_pump(struct tenant *tenant);

/* One tick: what was granted lately is so long ago; what failed may be tried again. */
void prepare_tick(struct tenant *tenant);

/* Stale units that are to stay prepared are not stale. */
void prepare_spare(struct tenant *tenant);

#endif
