/* SPDX-License-Identifier: Apache-2.0 */
/* worker.h - runs the core's jobs in threads of the loop's pool. One of the three files that know
 * libuv. */
#ifndef ACRE_DAEMON_WORKER_H
#define ACRE_DAEMON_WORKER_H

struct job;
struct server;

void worker_submit(struct server *server, struct job *job);

#endif
