/* SPDX-License-Identifier: Apache-2.0 */
/* ledger.h - the daemon's capacity and the tenants' budgets. Theory in ledger.c. */
#ifndef ACRE_DAEMON_LEDGER_H
#define ACRE_DAEMON_LEDGER_H

#include "shm/base.h"

struct budget {
    struct ledger *ledger;
    struct budget *next;
    uint64_t max_bytes;
    uint64_t charged_bytes;
};

struct ledger {
    uint64_t capacity_bytes;
    uint64_t
        charged_bytes; /* of all budgets, and of no budget: what a dropped heap still may use */
    uint64_t orphaned_bytes;
    struct budget *budgets;
};

void ledger_init(struct ledger *ledger, uint64_t capacity_bytes);
/* Asserts that all has come back. */
void ledger_deinit(struct ledger *ledger);

void budget_init(struct budget *budget, struct ledger *ledger, uint64_t max_bytes);
void budget_deinit(struct budget *budget);

/* What budget_charge() would grant at most: by the tenant's max, and by the capacity. */
uint64_t budget_left(const struct budget *budget);
uint64_t ledger_left(const struct ledger *ledger);

/* -ENOMEM: nothing charged. */
int budget_charge(struct budget *budget, uint64_t n_bytes);
/* What is there already: max and capacity give way. */
void budget_restore(struct budget *budget, uint64_t n_bytes);
void budget_refund(struct budget *budget, uint64_t n_bytes);
/* The budget is free of it, the capacity is not: until ledger_refund_orphaned(). */
void budget_orphan(struct budget *budget, uint64_t n_bytes);
void ledger_restore_orphaned(struct ledger *ledger, uint64_t n_bytes);
void ledger_refund_orphaned(struct ledger *ledger, uint64_t n_bytes);

void ledger_assert_valid(const struct ledger *ledger);

#endif
