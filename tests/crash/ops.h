/* SPDX-License-Identifier: Apache-2.0 */
/* ops.h - the operations that victims die in, a row each. */
#ifndef ACRE_TESTS_CRASH_OPS_H
#define ACRE_TESTS_CRASH_OPS_H

#include "tests/crash/stage.h"

enum op_flags {
    OP_UNOPENED = 1,  /* the operation is the first that the victim does */
    OP_IN_THREAD = 2, /* a second thread prepares and runs it */
    OP_IN_CHILD = 4,  /* a forked child of who prepared runs it */
    OP_FORKS = 8,     /* no breakpoints: a child would inherit them */
    OP_LINKS = 16,    /* it has its effect in a block, where no point is seen: `after` judges */
};

struct op {
    const char *name;
    size_t size;                   /* the survivor uses the same class */
    bool (*hand)(struct world *w); /* by the survivor, before: may be NULL */
    bool (*leave)(void);   /* by a process that exits before the victim comes; may be NULL */
    bool (*prepare)(void); /* by the victim; may be NULL */
    void (*run)(void);     /* by the victim, instruction by instruction */
    bool (*after)(struct world *w); /* by the survivor, after the comparison; may be NULL */
    unsigned flags;
    unsigned n_strays;    /* published blocks that nobody knows may be left */
    unsigned n_published; /* at least so many published ones are left (not counting the ballast) */
};

extern const struct op ops[];
extern const unsigned n_ops;
extern struct acre_heap *victim_heap;

#endif
