/* SPDX-License-Identifier: Apache-2.0 */
/* keeper.h - the parent that outlives the worker, where no service manager does. */
#ifndef ACRE_DAEMON_KEEPER_H
#define ACRE_DAEMON_KEEPER_H

/* The worker's exit status that asks for another worker, of the program as it is on disk by now. */
#define KEEPER_EXIT_AGAIN 75

#define KEEPER_LISTEN "listen" /* name of the kept socket */

/* Runs this program again as a worker with these arguments, and again whenever it dies, until it
 * exits by itself; then returns its exit status. SIGTERM and SIGINT are passed on. The worker finds
 * listen_fd as KEEPER_LISTEN. Negative errno: there was no first worker. */
int keeper_run(char **argv, int listen_fd);

#endif
