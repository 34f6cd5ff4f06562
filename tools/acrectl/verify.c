/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verifying, theory. The heap goes on while it is looked at, by pread and by asking the daemon, who
 * answers each request in bounded time between two others: nobody waits for us.
 *
 * FIRST LOOK. All records, then all entries and tags. What disagrees is a *suspect*: most of what a
 * busy heap shows here has only changed between the two, so it is looked at as a whole some times
 * more, while many remain: what is not found each time is no suspect.
 *
 * LOOKING AGAIN, at suspects alone: records, clients, then the segment's words (check_table() over
 * the suspect's scope), then the daemon's count of changes. If that is not what it was with the
 * records, this look is void and taken again, QUICK_TRIES times. So a look pairs the words with
 * records that were true while they were read, and a word that disagrees is wrong: it takes no
 * second look. What takes two words could be torn (check.c), so SAME_LOOKS looks in a row must show
 * the same, byte for byte, some milliseconds apart: a client would have to take the same slab apart
 * and put its head back between two reads 100 ns apart, each time. What changes is followed; what
 * never lets itself be seen twice is counted as unsure, and is no finding.
 *
 * SUMS need all records at one count of changes. A heap that does not stand still for a walk over
 * its records within STILL_TRIES is not summed up.
 *
 * COST. A round trip for 512 runs of units (an idle GiB: 8), one for 256 clients, 4 KiB for 512
 * units, each slab's map once; for a suspect 3 round trips a look.
 */
#include "verify.h"

#include "picture.h"

#include <sys/stat.h>
#include <time.h>

#define SUSPECTS_MAX    4096u
#define SUSPECTS_FEW    16u
#define WHOLE_LOOKS     6u
#define CLOSE_LOOKS_MAX VERIFY_FINDINGS_MAX /* a heap of garbage has more */
#define SAME_LOOKS      6u
#define ROUNDS_MAX      18u
#define QUICK_TRIES     64u
#define STILL_TRIES     16u
#define PAUSE_NS        7000000L /* and a bit more each time: nothing periodic meets us always */

struct suspect {
    struct check_finding finding;
    uint32_t n_same;
    bool is_gone, is_found; /* for good; by the look that is on */
};

struct work {
    struct verify *verify;
    struct picture picture;
    uint32_t n_suspects, n_passed; /* by find_again() */
    struct suspect suspects[SUSPECTS_MAX];
    struct check_record *scope; /* records of one suspect */
};

static void rest(uint32_t round)
{
    struct timespec pause = {.tv_nsec = PAUSE_NS + (long)(round * 1234567u % 5000000u)};
    (void)nanosleep(&pause, NULL);
}

/* ---- suspects ---- */

static uint64_t place_of(const struct check_finding *f)
{
    return (uint64_t)f->slot << 32 | f->unit;
}

/* Suspects and findings both come in the order of their places, one at each. */
static int find_again(void *ctx, const struct check_finding *finding)
{
    struct work *w = ctx;

    while (w->n_passed < w->n_suspects &&
           place_of(&w->suspects[w->n_passed].finding) < place_of(finding))
        w->n_passed++;
    if (w->n_passed < w->n_suspects) {
        struct suspect *s = &w->suspects[w->n_passed];
        s->is_found =
            place_of(&s->finding) == place_of(finding) && s->finding.kind == finding->kind;
    }
    return 0;
}

static void drop_others(struct work *w)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < w->n_suspects; i++) {
        if (!w->suspects[i].is_found)
            continue;
        w->suspects[n] = w->suspects[i];
        w->suspects[n++].is_found = false;
    }
    w->n_suspects = n;
}

static int suspect(void *ctx, const struct check_finding *finding)
{
    struct work *w = ctx;

    if (w->n_suspects < ARRAY_LEN(w->suspects))
        w->suspects[w->n_suspects++] = (struct suspect){.finding = *finding};
    else
        w->verify->n_unsure++;
    return 0;
}

static int look_with(struct work *w, check_fn fn)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < w->picture.n_segments; i++) {
        struct check_table table = picture_table(&w->picture, &w->picture.segments[i]);
        if (w->picture.segments[i].is_gone)
            continue;
        r = check_table(&table, fn, w);
        if (r < 0)
            return peer_fail(w->picture.peer, r, "segment %u cannot be read", table.slot);
    }
    return r;
}

/* With the picture that was just taken; *ret_still is that of the last one. */
static int look(struct work *w, bool *ret_still)
{
    uint32_t i = 0;
    int r;

    do { /* again if there is no room for all that a heap in a hurry shows */
        w->n_suspects = w->verify->n_unsure = 0;
        r = i == 0 ? 0 : picture_take(&w->picture, ret_still);
        if (r == 0)
            r = look_with(w, suspect);
    } while (r == 0 && w->verify->n_unsure > 0 && ++i < WHOLE_LOOKS);
    for (i = 1; r == 0 && w->n_suspects > SUSPECTS_FEW && i < WHOLE_LOOKS; i++) {
        rest(i);
        r = picture_take(&w->picture, ret_still);
        w->n_passed = 0;
        if (r == 0)
            r = look_with(w, find_again);
        if (r == 0)
            drop_others(w);
    }
    return r;
}

static bool is_same(const struct check_finding *a, const struct check_finding *b)
{
    return a->kind == b->kind && a->unit == b->unit && a->from == b->from && a->to == b->to &&
           a->entry == b->entry && a->head == b->head && a->record.owner == b->record.owner &&
           a->record.place == b->record.place && a->id == b->id && a->idx == b->idx &&
           a->n_bad == b->n_bad;
}

struct again {
    const struct check_finding *before;
    struct check_finding now;
    bool is_found;
};

static int compare(void *ctx, const struct check_finding *finding)
{
    struct again *a = ctx;

    if (finding->kind != a->before->kind || finding->unit != a->before->unit)
        return 0;
    a->now = *finding;
    a->is_found = true;
    return 1;
}

/* One look that is not void, else *ret_still is false. */
static int look_once(struct work *w, struct picture_segment *s, struct again *a, bool *ret_still)
{
    struct check_table table = picture_table(&w->picture, s);

    a->is_found = *ret_still = false;
    table.from = a->before->from;
    table.to = a->before->to;
    table.records = w->scope;
    int r = picture_records(&w->picture, s, table.from, table.to, w->scope, true);
    if (r == 0)
        r = picture_clients(&w->picture, false);
    table.span_units = s->span_units;
    if (r == 0 && s->is_gone) {
        *ret_still = true; /* and with it what looked wrong */
    } else if (r == 0 && !w->picture.has_moved) {
        r = check_table(&table, compare, a);
        if (r < 0)
            return peer_fail(w->picture.peer, r, "segment %u cannot be read", s->slot);
        r = picture_still(&w->picture, ret_still);
    }
    return r;
}

static int look_again(struct work *w, struct suspect *suspect)
{
    struct picture_segment *s = picture_find(&w->picture, suspect->finding.slot);
    struct again a = {.before = &suspect->finding};
    bool is_still = false;
    int r = 0;

    if (!s) {
        suspect->is_gone = true;
        return 0;
    }
    for (uint32_t i = 0; r == 0 && !is_still && i < QUICK_TRIES; i++)
        r = look_once(w, s, &a, &is_still);
    if (r < 0 || !is_still)
        return r;
    suspect->is_gone = !a.is_found;
    if (a.is_found && !is_same(&a.now, &suspect->finding))
        *suspect = (struct suspect){.finding = a.now};
    suspect->n_same += a.is_found;
    return 0;
}

static void find(struct work *w, const struct check_finding *finding)
{
    struct verify *v = w->verify;

    if (v->n_found < ARRAY_LEN(v->found))
        v->found[v->n_found++] = *finding;
    else
        v->n_more++;
}

static int try_suspects(struct work *w)
{
    uint32_t n = MIN(w->n_suspects, CLOSE_LOOKS_MAX), n_open = n;
    int r = 0;

    w->verify->n_unsure += w->n_suspects - n;
    for (uint32_t round = 0; r == 0 && n_open > 0 && round < ROUNDS_MAX; round++) {
        rest(round);
        n_open = 0;
        for (uint32_t i = 0; r == 0 && i < n; i++) {
            struct suspect *s = &w->suspects[i];
            if (!s->is_gone && s->n_same < SAME_LOOKS)
                r = look_again(w, s);
            n_open += !s->is_gone && s->n_same < SAME_LOOKS;
        }
    }
    for (uint32_t i = 0; r == 0 && i < n; i++) {
        const struct suspect *s = &w->suspects[i];
        if (s->n_same == SAME_LOOKS)
            find(w, &s->finding);
        else
            w->verify->n_unsure += !s->is_gone;
    }
    return r;
}

/* ---- sums ---- */

static int sum_found(void *ctx, const struct check_finding *finding)
{
    find(ctx, finding);
    return 0;
}

static int sum_up(struct work *w, bool is_still)
{
    struct stat st;
    int r = 0;

    for (uint32_t i = 0; r == 0 && !is_still && i < STILL_TRIES; i++) {
        rest(i);
        r = picture_take(&w->picture, &is_still);
    }
    w->verify->sums_seen = is_still;
    if (r < 0 || !is_still)
        return r;
    for (uint32_t i = 0; i < w->picture.n_segments; i++) {
        struct picture_segment *s = &w->picture.segments[i];
        if (fstat(s->fd, &st) == 0)
            s->figures.resident_bytes = (uint64_t)st.st_blocks * 512;
        (void)check_segment(&s->figures, sum_found, w);
    }
    return check_sums(&w->picture.sums, sum_found, w);
}

/* ---- a tenant ---- */

static int work_on(struct work *w)
{
    bool is_still = false;
    int r = picture_take(&w->picture, &is_still);

    if (r == 0)
        r = look(w, &is_still);
    if (r == 0)
        r = sum_up(w, is_still); /* before clients are asked for again */
    if (r == 0)
        r = try_suspects(w);
    w->verify->n_segments = w->picture.n_segments;
    w->verify->n_units = w->picture.n_units;
    return r;
}

static int work_in_all(struct verify *verify, struct peer *peer)
{
    struct work *w = calloc(1, sizeof(*w));
    struct check_record *scope = calloc(SLOT_UNITS, sizeof(*scope));
    int r = -ENOMEM;

    if (w && scope) {
        w->verify = verify;
        w->scope = scope;
        r = picture_open(&w->picture, peer, verify->name);
        if (r == 0)
            r = work_on(w);
        picture_close(&w->picture);
    }
    free(scope);
    free(w);
    return r;
}

int verify_tenant(struct verify *ret, struct peer *peer, const char *name)
{
    *ret = (struct verify){.n_found = 0};
    (void)snprintf(ret->name, sizeof(ret->name), "%s", name);
    int r = work_in_all(ret, peer);
    if (r == -ENOMEM)
        return peer_fail(peer, r, "out of memory");
    if (r >= 0 || peer->is_broken)
        return r;
    ret->error = r;
    (void)snprintf(ret->why, sizeof(ret->why), "%.*s", (int)sizeof(ret->why) - 1, peer->why);
    return 0;
}
