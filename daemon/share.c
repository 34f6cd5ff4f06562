/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shares, theory.
 *
 * MODEL. Each budget has been promised p (its min, or what those below it were promised, if that is
 * more; less what it has given up and somebody may still map), and demands d: what it uses, and
 * what it wants, within its max. What is beyond all promises is shared by weighted max-min
 * fairness: a level L of bytes for each unit of weight rises until nothing is left, and
 *
 *     fair = p + L * weight, but not more than d, nor less than p,
 *
 * first for those without a group out of the capacity, then below each group out of its share. So
 * nobody gets more than it demands; nobody who gets less than it demands could get more without
 * taking from one that has less for its weight. Memory that lies idle is not demanded: who keeps
 * it has it only as long as nobody else wants it.
 *
 * STUCK. Who was told to give, and gives nothing, may be asleep: what it has beyond its share is not
 * there for others until it wakes. They share what can be given back: fair is the same with what is
 * stuck as the least that its user gets. Its user is told what it owes all the same (due).
 *
 * REACH. Nobody can be made to give back. So what may be granted now is the same, with what each
 * uses as the least that it gets: those who have less for their weight grow first, and what comes
 * back is not whoever's asks first.
 *
 * ONE PIECE. Who needs more in one piece than its share leaves, and a SHARE_SLACKth of it, cannot be
 * helped by its share. It demands nothing then, and may have what all the others leave. And a piece
 * that its share has room for, but its reach has not, is for the one who is furthest behind: has
 * least for its weight.
 *
 * INVARIANTS. Siblings' fair is in sum not more than what is above them has, unless promises alone
 * are; fair >= p; so with reach, and what is used. model.shares compares with a naive twin.
 *
 * COST. Two to four passes over all budgets, of some 7 steps for each list of siblings that is
 * short.
 */
#include "daemon/share.h"

#define LEVEL_STEPS 64u
#define LEVEL_SLACK 1024u /* bytes: as good as none */

/* Which least siblings get. */
enum kind { KIND_FAIR, KIND_STUCK, KIND_REACH };

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static uint64_t to_share(const struct ledger *ledger)
{
    return minus(ledger->capacity_bytes, ledger->orphaned_bytes);
}

/* ---- from the leaves up ---- */

static uint64_t least(const struct share *s, enum kind kind)
{
    return kind == KIND_FAIR    ? s->promised_bytes
           : kind == KIND_STUCK ? s->kept_bytes
                                : s->floor_bytes;
}

/* Of those below it no more is demanded than they may have, but what they get at least. */
static void sum_up(struct budget *b, enum kind kind)
{
    struct share *s = &b->share;
    struct budget *c;
    s->wants = s->want_bytes > 0 && !s->is_too_large;
    s->promised_bytes = 0;
    s->all_bytes = s->floor_bytes = s->use_bytes;
    s->kept_bytes = s->stuck_bytes;
    uint64_t demand_bytes = s->use_bytes + (s->wants ? s->want_bytes : 0);
    LIST_FOREACH (c, &b->children, beside) {
        sum_up(c, kind);
        s->wants |= c->share.wants;
        s->all_bytes += c->share.all_bytes;
        s->promised_bytes += c->share.promised_bytes;
        s->floor_bytes += c->share.floor_bytes;
        s->kept_bytes += c->share.kept_bytes;
        demand_bytes += MAX(c->share.demand_bytes, least(&c->share, kind));
    }
    s->promised_bytes = MAX(s->promised_bytes, minus(b->limits.min_bytes, b->haunted_bytes));
    s->demand_bytes = MAX(MIN(demand_bytes, b->limits.max_bytes), s->promised_bytes);
    s->floor_bytes = MAX(s->floor_bytes, s->promised_bytes);
    s->kept_bytes = MAX(s->kept_bytes, s->promised_bytes);
}

/* ---- one list of siblings ---- */

/* level < 0: as much as it demands. */
static uint64_t at_level(const struct budget *b, enum kind kind, double level)
{
    const struct share *s = &b->share;
    uint64_t least_bytes = least(s, kind);
    uint64_t most_bytes = MAX(s->demand_bytes, least_bytes);
    double more = level * b->limits.weight;
    if (level < 0 || more >= (double)most_bytes)
        return most_bytes;
    return MIN(MAX(s->promised_bytes + (uint64_t)more, least_bytes), most_bytes);
}

/* *ret_slope: how much it is more with each level more. */
static uint64_t sum_at_level(const struct budget_list *list, enum kind kind, double level,
                             double *ret_slope)
{
    const struct budget *b;
    uint64_t sum_bytes = 0, weights = 0;
    LIST_FOREACH (b, list, beside) {
        const struct share *s = &b->share;
        uint64_t bytes = at_level(b, kind, level), least_bytes = least(s, kind);
        bool is_rising = bytes > least_bytes || least_bytes == s->promised_bytes;
        sum_bytes += bytes;
        weights += is_rising && bytes < s->demand_bytes ? b->limits.weight : 0;
    }
    *ret_slope = (double)weights;
    return sum_bytes;
}

/* The highest that have_bytes suffices for, nearly; < 0: all demands can be met. The sum is straight
 * but for where somebody begins or ceases to get more: where a tangent leads out of the range that
 * is left, its half is next. */
static double find_level(const struct budget_list *list, enum kind kind, uint64_t have_bytes)
{
    double low = 0, high = (double)have_bytes, level = 0, slope; /* weights are 1 or more */
    uint64_t slack_bytes = MIN(LEVEL_SLACK, have_bytes / 4096);
    if (sum_at_level(list, kind, -1, &slope) <= have_bytes)
        return -1;
    for (unsigned i = 0; i < LEVEL_STEPS; i++) {
        uint64_t bytes = sum_at_level(list, kind, level, &slope);
        if (bytes <= have_bytes && have_bytes - bytes <= slack_bytes)
            return level;
        *(bytes <= have_bytes ? &low : &high) = level;
        if (high == 0)
            return 0;
        level += slope > 0 ? ((double)have_bytes - (double)bytes) / slope : high;
        if (level <= low || level >= high)
            level = (low + high) / 2;
    }
    return low;
}

/* spare_bytes: what nobody demands, here and above. is_short: somebody there has too little. */
static void spread(struct budget_list *list, enum kind kind, uint64_t have_bytes,
                   uint64_t spare_bytes, bool is_short)
{
    double level = find_level(list, kind, have_bytes), slope;
    struct budget *b;
    is_short |= level >= 0;
    spare_bytes = is_short ? 0 : spare_bytes + have_bytes - sum_at_level(list, kind, level, &slope);
    LIST_FOREACH (b, list, beside) {
        struct share *s = &b->share;
        uint64_t bytes = at_level(b, kind, level);
        if (kind == KIND_FAIR)
            s->fair_bytes = s->due_bytes = bytes;
        else if (kind == KIND_STUCK)
            s->fair_bytes = bytes;
        else if (s->is_too_large)
            s->reach_bytes = bytes + spare_bytes;
        else
            s->reach_bytes = is_short ? bytes : UINT64_MAX;
        spread(&b->children, kind, minus(bytes, s->use_bytes), spare_bytes, is_short);
    }
}

/* ---- who is next ---- */

static double behind(const struct budget *b)
{
    return (double)minus(b->share.all_bytes, b->share.promised_bytes) / b->limits.weight;
}

static void reach_for_pieces(struct budget_list *list)
{
    struct budget *b;
    double least = -1;
    LIST_FOREACH (b, list, beside)
        if (b->share.wants && (least < 0 || behind(b) < least))
            least = behind(b);
    LIST_FOREACH (b, list, beside) {
        struct share *s = &b->share;
        if (!s->wants || behind(b) > least)
            continue;
        if (s->want_bytes > 0 && !s->is_too_large)
            s->reach_bytes = MAX(s->reach_bytes, s->use_bytes + s->need_bytes);
        reach_for_pieces(&b->children);
    }
}

/* ---- all ---- */

/* Its share would not do: true, if that is so of any. */
static bool find_too_large(const struct budget_list *list)
{
    struct budget *b;
    bool any = false;
    LIST_FOREACH (b, list, beside) {
        struct share *s = &b->share;
        uint64_t most_bytes = s->fair_bytes + s->fair_bytes / SHARE_SLACK;
        s->is_too_large = s->need_bytes > 0 && s->use_bytes + s->need_bytes > most_bytes;
        any |= s->is_too_large;
        any |= find_too_large(&b->children);
    }
    return any;
}

static void forget_too_large(const struct budget_list *list)
{
    struct budget *b;
    LIST_FOREACH (b, list, beside) {
        b->share.is_too_large = false;
        forget_too_large(&b->children);
    }
}

static bool is_any_stuck(const struct budget_list *list)
{
    const struct budget *b;
    bool any = false;
    LIST_FOREACH (b, list, beside)
        any |= b->share.stuck_bytes > 0 || is_any_stuck(&b->children);
    return any;
}

static void spread_all(struct ledger *ledger, enum kind kind)
{
    struct budget *b;
    LIST_FOREACH (b, &ledger->roots, beside)
        sum_up(b, kind);
    spread(&ledger->roots, kind, to_share(ledger), 0, false);
}

static void find_fair(struct ledger *ledger, enum kind kind)
{
    spread_all(ledger, kind);
    if (find_too_large(&ledger->roots))
        spread_all(ledger, kind);
}

void share_all(struct ledger *ledger)
{
    forget_too_large(&ledger->roots);
    find_fair(ledger, KIND_FAIR);
    if (is_any_stuck(&ledger->roots))
        find_fair(ledger, KIND_STUCK);
    spread_all(ledger, KIND_REACH);
    reach_for_pieces(&ledger->roots);
}

bool share_is_promised(const struct share *share, uint64_t more_bytes)
{
    return share->use_bytes + more_bytes <= share->promised_bytes;
}

uint64_t share_at_least(const struct budget *budget)
{
    const struct budget *b;
    const struct budget_list *list = budget->parent ? &budget->parent->children //
                                                    : &budget->ledger->roots;
    uint64_t have_bytes = to_share(budget->ledger);
    if (budget->parent)
        have_bytes = MIN(share_at_least(budget->parent), budget->parent->limits.max_bytes);
    uint64_t promised_bytes = 0, weights = 0;
    LIST_FOREACH (b, list, beside) {
        promised_bytes += budget_promise(b);
        weights += b->total_bytes > 0 || b == budget ? b->limits.weight : 0;
    }
    double rest = (double)minus(have_bytes, promised_bytes) * budget->limits.weight;
    return budget_promise(budget) + (uint64_t)(rest / (double)weights);
}
