/* SPDX-License-Identifier: Apache-2.0 */
#include "crew.h"

#include <assert.h>

#include "say.h"

static void *member_main(void *arg)
{
    struct crew_member *member = arg;
    struct crew *crew = member->crew;
    for (;;) {
        pthread_barrier_wait(&crew->begin);
        member->loop(crew->mem, member->arg, crew->n_steps);
        pthread_barrier_wait(&crew->end);
    }
    return NULL;
}

void crew_start(struct crew *crew, struct mem mem, unsigned n)
{
    assert(n >= 1 && n <= CREW_MAX);
    crew->mem = mem;
    crew->n = n;
    pthread_barrier_init(&crew->begin, NULL, n + 1);
    pthread_barrier_init(&crew->end, NULL, n + 1);
    for (unsigned i = 0; i < n; i++) {
        struct crew_member *member = &crew->members[i];
        member->crew = crew;
        if (pthread_create(&member->thread, NULL, member_main, member))
            give_up("cannot start a thread");
    }
}

void crew_loop(struct mem mem, void *arg, uint64_t n)
{
    struct crew *crew = arg;
    (void)mem;
    crew->n_steps = n;
    pthread_barrier_wait(&crew->begin);
    pthread_barrier_wait(&crew->end);
}
