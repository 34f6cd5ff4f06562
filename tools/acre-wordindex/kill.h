/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill.h - the steps between which a worker can be told to kill itself: the example's own crash
 * test. map.c's theory says for each what a successor finds. Remove the calls when you copy the
 * map.
 */
#ifndef WORDINDEX_KILL_H
#define WORDINDEX_KILL_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define KILL_POINTS(X)                                                                             \
    X(NONE, "at a random instant")                                                                 \
    X(ALLOCATED, "inside an update (new block allocated)")                                         \
    X(FILLED, "inside an update (new block filled)")                                               \
    X(NOTED, "inside an update (new block noted)")                                                 \
    X(GIVEN, "inside an update (new block given to the parent)")                                   \
    X(PLACED, "inside an update (place in the list found)")                                        \
    X(LINKED, "inside an update (new block linked)")                                               \
    X(FREED, "inside an update (surplus block freed)")                                             \
    X(CLEARED, "inside an update (note cleared)")                                                  \
    X(BUCKET, "inside an update (bucket set)")                                                     \
    X(GROWN, "inside an update (table doubled)")                                                   \
    X(FOUND, "inside an update (word found)")                                                      \
    X(HALF_LINE, "inside an update (line half written)")                                           \
    X(LINE, "inside an update (line written)")                                                     \
    X(COMMITTED, "inside an update (line committed)")                                              \
    X(COUNTED, "after an update")                                                                  \
    X(REPEATED, "while taking over (count repeated)")                                              \
    X(RESOLVED, "while taking over (note looked at)")                                              \
    X(END, "at the end of its part")

enum kill_point {
#define X(name, text) POINT_##name,
    KILL_POINTS(X)
#undef X
        N_KILL_POINTS
};

static inline const char *kill_point_text(uint32_t point)
{
    static const char *const text[] = {
#define X(name, words) words,
        KILL_POINTS(X)
#undef X
    };
    return point < N_KILL_POINTS ? text[point] : "at an unknown step";
}

struct kill_plan {
    uint64_t countdown; /* die at this kill point, counting from 1; 0: go on */
    uint64_t from;      /* ... counted from this position in the text on */
    bool counting;
    bool must;                   /* die at the end of the part at the latest */
    bool linger;                 /* at the end of the part wait for the parent's SIGKILL */
    _Atomic uint32_t *ret_point; /* where: for the parent's report */
};

static inline void kill_here(struct kill_plan *plan, enum kill_point point)
{
    atomic_store(plan->ret_point, (uint32_t)point);
    raise(SIGKILL);
}

static inline void kill_point(struct kill_plan *plan, enum kill_point point)
{
    if (plan->counting && --plan->countdown == 0)
        kill_here(plan, point);
}

#endif
