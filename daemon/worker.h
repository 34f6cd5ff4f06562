/* SPDX-License-Identifier: Apache-2.0 */
/* worker.h - runs the core's jobs in threads. One of the three files that know libuv. */
#ifndef ACRE_DAEMON_WORKER_H
#define ACRE_DAEMON_WORKER_H

struct job;
struct server;
struct workers;

/* -ENOMEM; others of libuv. */
int workers_new(struct workers **ret_workers, struct server *server);
void workers_submit(struct workers *workers, struct job *job);
/* The loop may end when the jobs are done. */
void workers_stop(struct workers *workers);
/* The loop has ended. */
void workers_free(struct workers *workers);

#endif
