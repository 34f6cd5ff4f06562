/* SPDX-License-Identifier: Apache-2.0 */
/* ledger.h - the daemon's capacity and the tree of budgets below it. Theory in ledger.c. */
#ifndef ACRE_DAEMON_LEDGER_H
#define ACRE_DAEMON_LEDGER_H

#include <sys/queue.h>

#include "shm/base.h"
#include "shm/layout.h"

#define LIMIT_BYTES_MIN (8u * UNIT_BYTES) /* the smallest segment */
#define HIGH_NONE       UINT64_MAX
#define WEIGHT_DEFAULT  100u
#define WEIGHT_MAX      10000u

/* As in cgroup v2. */
struct limits {
    uint64_t min_bytes, max_bytes;
    uint64_t high_bytes; /* 0 is none */
    uint32_t weight;     /* up to WEIGHT_MAX, 0 is the default */
};

/* share.h */
struct share {
    uint64_t use_bytes;  /* said: charged to it itself, but for segments that are free as a whole */
    uint64_t want_bytes; /* said: beyond that */
    uint64_t need_bytes; /* said: so much of it in one piece */
    uint64_t stuck_bytes;             /* said: of what it uses, what does not come back; mostly 0 */
    uint64_t fair_bytes, reach_bytes; /* the answers */
    uint64_t due_bytes;               /* fair_bytes, if nothing were stuck */
    uint64_t promised_bytes, demand_bytes, floor_bytes, kept_bytes;
    uint64_t all_bytes; /* used by it and all below it */
    bool wants;         /* it, or one below it */
    bool is_too_large;  /* what it needs in one piece, for its share */
};

LIST_HEAD(budget_list, budget);

struct budget {
    struct ledger *ledger;
    struct budget *parent; /* NULL: the capacity alone is above it */
    struct budget_list children;
    LIST_ENTRY(budget) beside; /* below the same parent */
    struct limits limits;
    struct share share;
    uint64_t charged_bytes;  /* itself */
    uint64_t total_bytes;    /* and all below it */
    uint64_t orphaned_bytes; /* given up by it, and perhaps still mapped by somebody */
    uint64_t haunted_bytes;  /* and by all below it */
    uint64_t held_bytes;     /* kept free for it: what it was promised, and has not used */
    uint64_t below_bytes;    /* the sum of its children's held_bytes */
    uint64_t ceiling_bytes, ceiling_limits; /* budget_ceiling(), as of so many changes of limits */
};

struct ledger {
    uint64_t capacity_bytes;
    /* Of all budgets, and of no budget: what a dropped heap still may use. */
    uint64_t charged_bytes;
    uint64_t orphaned_bytes;
    uint64_t held_bytes;
    struct budget_list roots;
    uint64_t n_limits; /* changes of tree, min, max and capacity */
};

/* What nobody may wish, with so much kept ready: NULL, or what it would have, as "more min than its
 * max". No high is HIGH_NONE. */
const char *limits_wrong(const struct limits *limits, uint64_t ready_bytes);
/* "1024 KiB", or "none" */
const char *limit_text(char ret[32], uint64_t bytes);

void ledger_init(struct ledger *ledger, uint64_t capacity_bytes);
/* At any time: what is charged stays. */
void ledger_set_capacity(struct ledger *ledger, uint64_t capacity_bytes);
/* Asserts that all has come back. */
void ledger_deinit(struct ledger *ledger);

void budget_init(struct budget *budget, struct ledger *ledger, struct budget *parent);
/* It has no children. */
void budget_deinit(struct budget *budget);
/* At any time: what is charged stays. */
void budget_set(struct budget *budget, const struct limits *limits);
void budget_move(struct budget *budget, struct budget *parent);

/* What budget_charge() would grant at most: by the walls of the budget and of those above it, and
 * by the capacity. */
uint64_t budget_left(const struct budget *budget);
uint64_t budget_capacity_left(const struct budget *budget);
/* Of the capacity, promised or not. */
uint64_t ledger_left(const struct ledger *ledger);
/* The sum of all min, whatever is used of it. */
uint64_t ledger_promised(const struct ledger *ledger);
/* What it and all below it were promised. */
uint64_t budget_promise(const struct budget *budget);
/* If all others had nothing but what they were promised: what it could ever have. */
uint64_t budget_ceiling(struct budget *budget);
/* What `other` could have if this one gave it all back: not what it has been promised. */
uint64_t budget_spare(const struct budget *budget, const struct budget *other);
/* Until it, or a group above it, has more than its high. */
uint64_t budget_high_left(const struct budget *budget);
/* A group has both below it. */
bool budget_shares_wall(const struct budget *budget, const struct budget *other);

/* -ENOMEM: nothing charged. */
int budget_charge(struct budget *budget, uint64_t n_bytes);
/* What is there already, whatever the walls are by now. */
void budget_restore(struct budget *budget, uint64_t n_bytes);
void budget_refund(struct budget *budget, uint64_t n_bytes);
/* The budget is free of it, the capacity is not: until budget_refund_orphaned(). */
void budget_orphan(struct budget *budget, uint64_t n_bytes);
void budget_refund_orphaned(struct budget *budget, uint64_t n_bytes);
/* The same of an earlier daemon's, which no budget knows. */
void ledger_restore_orphaned(struct ledger *ledger, uint64_t n_bytes);
void ledger_refund_orphaned(struct ledger *ledger, uint64_t n_bytes);

void ledger_assert_valid(const struct ledger *ledger);

#endif
