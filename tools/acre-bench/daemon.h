/* SPDX-License-Identifier: Apache-2.0 */
/* daemon.h - the private acred that Acre is measured with: started on a temporary socket, gone at
 * the end. */
#ifndef BENCH_DAEMON_H
#define BENCH_DAEMON_H

#include <stdbool.h>
#include <sys/types.h>

struct daemon {
    bool is_foreign; /* somebody else's: never started, never stopped */
    pid_t pid;
    char program[4096], dir[64], socket[108], config[96], log[96];
};

/* address: the socket of a running daemon, NULL: start one. Says what is wrong; an exit code. */
int daemon_up(struct daemon *daemon, const char *address);

/* A new one in its place that has served nobody, on the second processor if `pinned`. */
int daemon_renew(struct daemon *daemon, bool pinned);

void daemon_down(struct daemon *daemon);

#endif
