/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two walls, one book. Every byte of a sealed segment is charged once, when the segment is made, to
 * its tenant's budget and to the daemon's capacity: a hostile client can touch all of a segment, so
 * that its whole size counts, not what was granted.
 *
 * INVARIANTS
 *   1. charged of a budget <= its max; charged of the ledger <= capacity.
 *   2. ledger.charged = sum of budgets' charged + orphaned.
 *   3. orphaned: bytes of dropped heaps that somebody may still have mapped. They are nobody's, and
 * not free.
 *
 * Private memory, derived from the books: nothing here survives, nothing needs to.
 */
#include "daemon/ledger.h"

#include <inttypes.h>

void ledger_init(struct ledger *ledger, uint64_t capacity_bytes)
{
    *ledger = (struct ledger){.capacity_bytes = capacity_bytes};
}

void ledger_deinit(struct ledger *ledger)
{
    ledger_assert_valid(ledger);
    acre_assert(ledger->budgets == NULL);
    acre_assert(ledger->charged_bytes == 0);
}

void budget_init(struct budget *budget, struct ledger *ledger, uint64_t max_bytes)
{
    *budget = (struct budget){.ledger = ledger, .next = ledger->budgets, .max_bytes = max_bytes};
    ledger->budgets = budget;
}

void budget_deinit(struct budget *budget)
{
    struct budget **at = &budget->ledger->budgets;
    acre_assert(budget->charged_bytes == 0);
    while (*at != budget) {
        acre_assert(*at != NULL);
        at = &(*at)->next;
    }
    *at = budget->next;
}

uint64_t budget_left(const struct budget *budget)
{
    return budget->max_bytes - budget->charged_bytes;
}

uint64_t ledger_left(const struct ledger *ledger)
{
    return ledger->capacity_bytes - ledger->charged_bytes;
}

int budget_charge(struct budget *budget, uint64_t n_bytes)
{
    if (n_bytes > budget_left(budget) || n_bytes > ledger_left(budget->ledger))
        return -ENOMEM;
    budget->charged_bytes += n_bytes;
    budget->ledger->charged_bytes += n_bytes;
    return 0;
}

static void ledger_restore(struct ledger *ledger, uint64_t n_bytes)
{
    ledger->charged_bytes += n_bytes;
    ledger->capacity_bytes = MAX(ledger->capacity_bytes, ledger->charged_bytes);
}

void budget_restore(struct budget *budget, uint64_t n_bytes)
{
    ledger_restore(budget->ledger, n_bytes);
    budget->charged_bytes += n_bytes;
    budget->max_bytes = MAX(budget->max_bytes, budget->charged_bytes);
}

void ledger_restore_orphaned(struct ledger *ledger, uint64_t n_bytes)
{
    ledger_restore(ledger, n_bytes);
    ledger->orphaned_bytes += n_bytes;
}

void budget_refund(struct budget *budget, uint64_t n_bytes)
{
    acre_assert(n_bytes <= budget->charged_bytes);
    acre_assert(n_bytes <= budget->ledger->charged_bytes);
    budget->charged_bytes -= n_bytes;
    budget->ledger->charged_bytes -= n_bytes;
}

void budget_orphan(struct budget *budget, uint64_t n_bytes)
{
    acre_assert(n_bytes <= budget->charged_bytes);
    budget->charged_bytes -= n_bytes;
    budget->ledger->orphaned_bytes += n_bytes;
}

void ledger_refund_orphaned(struct ledger *ledger, uint64_t n_bytes)
{
    acre_assert(n_bytes <= ledger->orphaned_bytes);
    ledger->orphaned_bytes -= n_bytes;
    ledger->charged_bytes -= n_bytes;
}

void ledger_assert_valid(const struct ledger *ledger)
{
    uint64_t sum = ledger->orphaned_bytes;
    for (const struct budget *b = ledger->budgets; b; b = b->next) {
        acre_assert(b->charged_bytes <= b->max_bytes);
        sum += b->charged_bytes;
    }
    if (sum != ledger->charged_bytes)
        fprintf(stderr, "ledger: budgets say %" PRIu64 ", the ledger %" PRIu64 "\n", sum,
                ledger->charged_bytes);
    acre_assert(sum == ledger->charged_bytes);
    acre_assert(ledger->charged_bytes <= ledger->capacity_bytes);
}
