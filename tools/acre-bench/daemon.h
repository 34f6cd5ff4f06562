/* SPDX-License-Identifier: Apache-2.0 */
/* daemon.h - the private acred that Acre is measured with: started on a temporary socket, gone at
 * the end. */
#ifndef BENCH_DAEMON_H
#define BENCH_DAEMON_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

struct daemon {
    bool is_foreign; /* somebody else's: never started, never stopped */
    pid_t pid;
    char program[PATH_MAX], dir[64], socket[108], config[96], log[96];
    char shmem_before[32]; /* of shmem_enabled; "": not changed */
    int shmem_lock;        /* its descriptor, locked meanwhile */
};

/* address: the socket of a running daemon, NULL: start one. Says what is wrong; an exit code. */
int daemon_up(struct daemon *daemon, const char *address);

struct daemon_wish {
    bool pinned;     /* on the second processor */
    bool huge_pages; /* for its tenant */
    bool ready;      /* its tenant has memory kept ready, enough for every load */
};

/* A new one in its place that has served nobody. */
int daemon_renew(struct daemon *daemon, struct daemon_wish wish);

/* Whether it knows shared huge pages and the system gives them. Sets shmem_enabled to "advise" and
 * says so; false says why not. */
bool daemon_allow_huge_pages(struct daemon *daemon);
/* Puts shmem_enabled back as it was. */
void daemon_forbid_huge_pages(struct daemon *daemon);

void daemon_down(struct daemon *daemon);

#endif
