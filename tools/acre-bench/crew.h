/* SPDX-License-Identifier: Apache-2.0 */
/* crew.h - threads that stay from round to round, so that no allocator's thread set-up is part of a
 * steady load. */
#ifndef BENCH_CREW_H
#define BENCH_CREW_H

#include <pthread.h>

#include "mem.h"

#define CREW_MAX 2u

struct crew_member {
    struct crew *crew;
    pthread_t thread;
    heap_loop *loop;
    void *arg;
};

struct crew {
    struct mem mem;
    unsigned n;
    uint64_t n_steps; /* of the round that runs */
    pthread_barrier_t begin, end;
    struct crew_member members[CREW_MAX];
};

/* Set members' loop and arg first. They run until the process ends. */
void crew_start(struct crew *crew, struct mem mem, unsigned n);

/* A heap_loop whose arg is a crew: each member makes n steps. */
void crew_loop(struct mem mem, void *arg, uint64_t n);

#endif
