/* SPDX-License-Identifier: Apache-2.0 */
/* acrectl map: what it says of a heap that this file has made, unit for unit, and how it looks. */
#include "tests/system/harness.h"

#include <jansson.h>
#include <pty.h>

#include "shm/segment.h"
#include "shm/sizeclass.h"

#define N_SMALL     3000u
#define N_LARGE     12u
#define N_SCRIBBLES 40u
#define N_SLOTS     8u /* at most */

/* ---- what it says ---- */

static long long num(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value))
        fail_msg("%s is missing or no integer", key);
    return json_integer_value(value);
}

static bool is_kind(const json_t *run, const char *kind)
{
    return strcmp(json_string_value(json_object_get(run, "kind")), kind) == 0;
}

struct said {
    json_t *root, *tenant, *figures, *segments;
    long long n_runs;
};

static struct said map(void)
{
    struct said m = {.root = acrectl_json(&the_daemon, "map default")};
    json_t *segment;
    size_t i;
    m.tenant = json_array_get(json_object_get(m.root, "tenants"), 0);
    m.figures = json_object_get(m.tenant, "figures");
    m.segments = json_object_get(m.tenant, "segments");
    assert_non_null(m.figures);
    json_array_foreach(m.segments, i, segment) m.n_runs +=
        (long long)json_array_size(json_object_get(segment, "runs"));
    return m;
}

typedef void (*run_fn)(void *ctx, long long slot, const json_t *run);

static void each_run(const struct said *m, run_fn fn, void *ctx)
{
    json_t *segment, *run;
    size_t i, k;
    json_array_foreach(m->segments, i, segment)
        json_array_foreach(json_object_get(segment, "runs"), k, run)
            fn(ctx, num(segment, "slot"), run);
}

/* A cell of its own for each unit, all units, and the bytes of each kind. */
static void expect_whole(const struct said *m)
{
    json_t *segment, *run;
    size_t i, k;
    long long all = 0, told = 0;
    json_array_foreach(m->segments, i, segment)
    {
        long long unit = 0;
        json_array_foreach(json_object_get(segment, "runs"), k, run)
        {
            assert_int_equal(num(run, "unit"), unit);
            assert_true(num(run, "units") > 0);
            unit += num(run, "units");
        }
        assert_int_equal(unit, num(segment, "units"));
        all += unit * (long long)UNIT_BYTES;
    }
    json_t *bytes = json_object_get(m->figures, "bytes"), *value;
    const char *kind;
    json_object_foreach(bytes, kind, value) told += json_integer_value(value);
    assert_int_equal(told, all);
}

/* ---- a known heap ---- */

struct known {
    struct acre_heap *heap;
    unsigned n;
    void *blocks[N_SMALL + N_LARGE];
    long long n_live; /* of the runs looked at */
};

static void known_add(struct known *k, size_t bytes)
{
    k->blocks[k->n] = acre_alloc(k->heap, bytes);
    assert_non_null(k->blocks[k->n++]);
}

static void known_free(struct known *k, unsigned i)
{
    acre_free(k->heap, k->blocks[i]);
    k->blocks[i] = NULL;
}

/* 64 bytes, any size, large ones; holes in all of them. */
static void known_make(struct known *k)
{
    uint64_t rng = test_seed(7);
    *k = (struct known){.heap = heap_open(&the_daemon, "default")};
    for (unsigned i = 0; i < N_SMALL; i++)
        known_add(k, i < N_SMALL / 2 ? 64 : 1 + rnd(&rng) % 3000);
    for (unsigned i = 0; i < N_LARGE; i++)
        known_add(k, 65537 + i * 20000);
    for (unsigned i = 0; i < N_SMALL; i++)
        if (i % 1000 > 300 && rnd(&rng) % 8)
            known_free(k, i);
        else if (i % 5 == 0)
            assert_int_equal(acre_publish(k->heap, k->blocks[i]), 0);
    for (unsigned i = 0; i < N_LARGE; i += 3)
        known_free(k, N_SMALL + i);
}

static void expect_my_blocks(void *ctx, long long slot, const json_t *run)
{
    struct known *k = ctx;
    long long n = 0, n_published = 0, bytes = 0, id = (long long)(acre_self(k->heap) & 0xffff);
    uint64_t from = ((uint64_t)slot << SLOT_SHIFT) + (uint64_t)num(run, "unit") * UNIT_BYTES,
             end = from + (uint64_t)num(run, "units") * UNIT_BYTES;
    for (unsigned i = 0; i < k->n; i++) {
        uint64_t off = k->blocks[i] ? acre_offset(k->heap, k->blocks[i]) : 0;
        if (!k->blocks[i] || off < from || off >= end)
            continue;
        n++;
        n_published += acre_owner(k->heap, k->blocks[i]) != acre_self(k->heap);
        bytes = (long long)acre_usable_size(k->heap, k->blocks[i]);
        if (is_kind(run, "large")) {
            assert_int_equal(off, from);
            assert_int_equal(bytes, end - from);
            assert_int_equal(num(run, "owner"), id);
        } else {
            assert_int_equal(bytes, num(run, "block_bytes"));
        }
    }
    k->n_live += n;
    if (!is_kind(run, "slab") && !is_kind(run, "large")) {
        assert_int_equal(n, 0);
        return;
    }
    assert_int_equal(num(run, "live_blocks"), n);
    assert_int_equal(num(run, "live_bytes"), n * bytes);
    assert_int_equal(num(run, "published_blocks"), n_published);
    assert_int_equal(num(run, "client"), id);
}

static void each_block_is_in_the_unit_where_it_lies_and_nothing_else_is(void **state)
{
    static struct known k;
    (void)state;
    known_make(&k);
    struct said m = map();
    expect_whole(&m);
    each_run(&m, expect_my_blocks, &k);
    long long n = 0;
    for (unsigned i = 0; i < k.n; i++)
        n += k.blocks[i] != NULL;
    assert_int_equal(k.n_live, n);
    assert_int_equal(num(m.figures, "live_blocks"), n);
    assert_int_equal(num(m.figures, "large_blocks"), N_LARGE - N_LARGE / 3);
    assert_true(json_is_true(json_object_get(m.tenant, "still")));
    json_t *client = json_array_get(json_object_get(m.tenant, "clients"), 0);
    assert_int_equal(num(client, "pid"), getpid());
    assert_int_equal(num(client, "live_bytes"), num(m.figures, "live_bytes"));
    json_decref(m.root);
    acre_close(k.heap);
}

static void the_map_and_the_statistics_agree(void **state)
{
    static struct known k;
    (void)state;
    known_make(&k);
    struct said m = map();
    struct tenant_stats s = tenant_stats(&the_daemon, "default");
    json_t *bytes = json_object_get(m.figures, "bytes");
    assert_int_equal(num(m.figures, "live_bytes"), s.live_bytes);
    assert_int_equal(num(m.figures, "live_blocks"), s.live_blocks);
    assert_int_equal(num(m.figures, "published_bytes"), s.published_bytes);
    assert_int_equal(num(bytes, "slab") + num(bytes, "large") + num(bytes, "kept") +
                         num(bytes, "cut") + num(bytes, "reserve"),
                     s.granted_bytes);
    json_decref(m.root);
    acre_close(k.heap);
}

/* ---- figures ---- */

struct naive {
    bool is_free[N_SLOTS * SLOT_UNITS];
    long long n_sparse, sparse_bytes, sparse_live, free_blocks, slab_bytes, slab_live;
};

static void count_naively(void *ctx, long long slot, const json_t *run)
{
    struct naive *c = ctx;
    long long n = num(run, "units");
    assert_true(slot < N_SLOTS);
    for (long long i = 0; is_kind(run, "free") && i < n; i++)
        c->is_free[slot * SLOT_UNITS + num(run, "unit") + i] = true;
    if (!is_kind(run, "slab"))
        return;
    long long live = num(run, "live_blocks"), all = num(run, "blocks");
    c->slab_bytes += n * (long long)UNIT_BYTES;
    c->slab_live += num(run, "live_bytes");
    c->free_blocks += (all - live) * num(run, "block_bytes");
    if (live * 4 >= all)
        return;
    c->n_sparse++;
    c->sparse_bytes += n * (long long)UNIT_BYTES;
    c->sparse_live += num(run, "live_bytes");
}

/* Takes each aligned span that is free as a whole, the largest first. */
static long long take_spans(struct naive *c, unsigned order)
{
    long long n = 0;
    for (uint32_t at = 0; at < N_SLOTS * SLOT_UNITS; at += 1u << order) {
        uint32_t i = 0;
        while (i < 1u << order && c->is_free[at + i])
            i++;
        if (i < 1u << order)
            continue;
        memset(&c->is_free[at], 0, i);
        n++;
    }
    return n;
}

static void fragmentation_is_what_a_plain_count_says(void **state)
{
    static struct known k;
    static struct naive c;
    (void)state;
    known_make(&k);
    struct said m = map();
    each_run(&m, count_naively, &c);
    json_t *spans = json_object_get(m.figures, "free_spans");
    assert_true(c.n_sparse > 0 && c.sparse_live > 0);
    assert_int_equal(num(m.figures, "sparse_slabs"), c.n_sparse);
    assert_int_equal(num(m.figures, "sparse_bytes"), c.sparse_bytes);
    assert_int_equal(num(m.figures, "sparse_live_bytes"), c.sparse_live);
    assert_int_equal(num(m.figures, "free_block_bytes"), c.free_blocks);
    assert_int_equal(num(m.figures, "overhead_bytes"), c.slab_bytes - c.slab_live - c.free_blocks);
    for (unsigned order = (unsigned)json_array_size(spans); order-- > 0;)
        assert_int_equal(json_integer_value(json_array_get(spans, order)), take_spans(&c, order));
    json_t *stats = acrectl_json(&the_daemon, "stats --tenant default");
    json_t *tenant = json_array_get(json_object_get(stats, "tenants"), 0);
    assert_int_equal(num(m.figures, "longest_free_bytes"), num(tenant, "largest_free_bytes"));
    json_decref(stats);
    json_decref(m.root);
    acre_close(k.heap);
}

/* ---- of the dead ---- */

static bool leave_some(void *arg)
{
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    (void)arg;
    for (unsigned i = 0; i < 500; i++) {
        void *block = acre_alloc(heap, i == 100 ? 200000 : 100);
        CHECK(block);
        if (i % 10 == 0)
            CHECK(acre_publish(heap, block) == 0);
    }
    return true;
}

struct left {
    long long n_small, n_large;
};

static void count_left(void *ctx, long long slot, const json_t *run)
{
    struct left *l = ctx;
    (void)slot;
    if (!is_kind(run, "slab") && !is_kind(run, "large"))
        return;
    assert_int_equal(num(run, "client"), 0);
    assert_int_equal(num(run, "published_blocks"), num(run, "live_blocks"));
    *(is_kind(run, "slab") ? &l->n_small : &l->n_large) += num(run, "live_blocks");
}

static void what_the_dead_have_published_is_of_no_client(void **state)
{
    struct left left = {0};
    (void)state;
    RUN_CHILD(leave_some, NULL);
    expect_settled(&the_daemon, "default", 49 * 112 + 25 * (long long)UNIT_BYTES, 0);
    struct said m = map();
    expect_whole(&m);
    each_run(&m, count_left, &left);
    assert_int_equal(left.n_small, 49);
    assert_int_equal(left.n_large, 1);
    assert_int_equal(json_array_size(json_object_get(m.tenant, "clients")), 0);
    json_decref(m.root);
}

/* ---- how it looks ---- */

static char *output_of(FILE *f, size_t *ret_n)
{
    size_t n = 0, room = 1 << 16;
    char *text = malloc(room);
    for (size_t got = 1; got > 0; n += got) {
        if (n + 4096 > room)
            text = realloc(text, room *= 2);
        assert_non_null(text);
        got = fread(text + n, 1, 4095, f);
    }
    text[n] = '\0';
    *ret_n = n;
    return text;
}

/* Of acrectl in a pipe, to be freed. */
static char *piped(const char *args, int code)
{
    char command[400];
    size_t n;
    snprintf(command, sizeof(command), "TERM=xterm %s --socket %s %s 2>&1", getenv("ACRECTL"),
             the_daemon.socket, args);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    char *text = output_of(f, &n);
    int status = pclose(f);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code)
        fail_msg("%s ended with %x: %s", args, (unsigned)status, text);
    return text;
}

static void expect_narrow(const char *text)
{
    int column = 0;
    for (const char *c = text; *c; c++) {
        column = *c == '\n' ? 0 : column + 1;
        if (column > 80 || *c & 0x80 || (*c < ' ' && *c != '\n'))
            fail_msg("column %d, sign %d: %.100s", column, *c, c);
    }
}

static void in_a_pipe_it_is_plain_and_80_columns_wide(void **state)
{
    static const char *const ways[] = {"map default", "map default --by client",
                                       "map default --by class", "map --tenant default"};
    static struct known k;
    (void)state;
    known_make(&k);
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
            char *text = piped(ways[w], 0);
            expect_narrow(text);
            assert_non_null(strstr(text, i == 0 ? "a sign is 8.0 KiB\n" : "what most of it is"));
            assert_non_null(strstr(text, i == 0 ? "tables of the segment" : " rows like this"));
            free(text);
        }
        assert_non_null(acre_alloc(k.heap, 70 << 20)); /* more units than cells */
    }
    acre_close(k.heap);
}

/* On a terminal, to be freed. */
static char *on_terminal(const char *no_color)
{
    char *text = NULL;
    int master, status;
    size_t n;
    pid_t pid = forkpty(&master, NULL, NULL, NULL);
    assert_true(pid >= 0);
    if (pid == 0) {
        setenv("TERM", "xterm", 1);
        setenv("LC_ALL", "C.UTF-8", 1);
        setenv("NO_COLOR", no_color, 1);
        execl(getenv("ACRECTL"), "acrectl", "--socket", the_daemon.socket, "map", "default", NULL);
        _exit(127);
    }
    FILE *f = fdopen(master, "r");
    assert_non_null(f);
    text = output_of(f, &n);
    fclose(f);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return text;
}

static void on_a_terminal_it_has_colours_if_they_are_wanted(void **state)
{
    static struct known k;
    (void)state;
    known_make(&k);
    char *text = on_terminal(""), *plain = on_terminal("1");
    assert_non_null(strstr(text, "\033[36m"));
    assert_non_null(strstr(text, "\033[0m"));
    assert_null(strchr(plain, '\033'));
    assert_non_null(strstr(plain, "tables of the segment"));
    free(plain);
    free(text);
    acre_close(k.heap);
}

static unsigned count_of(const char *text, const char *word)
{
    unsigned n = 0;
    while ((text = strstr(text, word))) {
        text += strlen(word);
        n++;
    }
    return n;
}

static void expect_inside(const char *svg)
{
    double width, height, x, y, w, h;
    assert_int_equal(sscanf(strstr(svg, "viewBox=\""), "viewBox=\"0 0 %lf %lf", &width, &height),
                     2);
    for (const char *at = svg; (at = strstr(at, "<rect x=")); at++) {
        assert_int_equal(
            sscanf(at, "<rect x=\"%lf\" y=\"%lf\" width=\"%lf\" height=\"%lf\"", &x, &y, &w, &h),
            4);
        if (x < 0 || y < 0 || w <= 0 || h <= 0 || x + w > width || y + h > height)
            fail_msg("out of %g x %g: %.60s", width, height, at);
    }
}

static void expect_xml(const char *svg)
{
    if (system("command -v python3 >/dev/null") != 0)
        return;
    FILE *f = popen("python3 -c 'import sys, xml.dom.minidom as m; m.parse(sys.stdin)'", "w");
    assert_true(f && fputs(svg, f) >= 0);
    assert_int_equal(pclose(f), 0);
}

static void the_svg_has_a_cell_for_each_run_and_none_outside(void **state)
{
    static struct known k;
    (void)state;
    known_make(&k);
    struct said m = map();
    char *svg = piped("map default --svg", 0);
    expect_xml(svg);
    expect_inside(svg);
    assert_int_equal(count_of(svg, "<g><title>"), m.n_runs);
    assert_int_equal(count_of(svg, "</title><rect"), m.n_runs);
    assert_non_null(strstr(svg, "slab of 64 B: "));
    free(svg);
    json_decref(m.root);
    assert_non_null(acre_alloc(k.heap, 70 << 20));
    svg = piped("map default --svg", 0);
    expect_xml(svg);
    expect_inside(svg);
    free(svg);
    acre_close(k.heap);
}

/* ---- what is wrong ---- */

static void who_is_not_there_has_no_map(void **state)
{
    static const char sentence[] = "acrectl: there is no tenant \"nobody\"";
    (void)state;
    char *text = piped("map nobody", 1);
    assert_int_equal(strncmp(text, sentence, sizeof(sentence) - 1), 0);
    assert_int_equal(count_of(text, "\n"), 1);
    free(text);
    text = piped("map default", 0); /* nobody has opened it yet */
    assert_int_equal(strncmp(text, "tenant default\n0 B in 0 segments", 32), 0);
    free(text);
    free(piped("map default --svg", 0));
    free(piped("map", 2));
    free(piped("map default default", 2));
    free(piped("map default --by size", 2));
}

/* ---- while it moves ---- */

static bool churn(void *arg)
{
    _Atomic int *stop = arg;
    struct acre_heap *heap = heap_open(&the_daemon, "default");
    uint64_t rng = (uint64_t)getpid();
    void *blocks[200] = {0};
    while (!*stop) {
        unsigned i = rnd(&rng) % 200;
        if (blocks[i])
            acre_free(heap, blocks[i]);
        blocks[i] = acre_alloc(heap, 1 + rnd(&rng) % (i % 8 ? 5000 : 300000));
        if (rnd(&rng) % 3000 == 0)
            (void)acre_trim(heap);
    }
    return true;
}

static void a_heap_that_moves_is_drawn_whole_and_its_dead_disappear(void **state)
{
    _Atomic int *stop = shared_page(sizeof(*stop));
    pid_t pids[2];
    (void)state;
    for (unsigned i = 0; i < 2; i++)
        pids[i] = child_start(churn, (void *)stop);
    for (unsigned i = 0; i < 30; i++) {
        if (i == 15)
            kill(pids[0], SIGKILL);
        struct said m = map();
        expect_whole(&m);
        json_decref(m.root);
        free(piped("map default", 0));
    }
    *stop = 1;
    assert_int_equal(child_signal(pids[0]), SIGKILL);
    assert_true(child_ok(pids[1]));
    expect_settled(&the_daemon, "default", 0, 0);
    struct said m = map();
    assert_int_equal(num(m.figures, "live_blocks"), 0);
    assert_int_equal(num(json_object_get(m.figures, "bytes"), "unclear"), 0);
    json_decref(m.root);
}

/* ---- a client that scribbles ---- */

struct beside {
    _Atomic int may_come, is_there;
};

/* With a name that is no XML. */
static bool sit_beside(void *arg)
{
    struct beside *b = arg;
    struct acre_options options = {.size = sizeof(options), .name = "<a&b>\""};
    struct acre_heap *heap;
    options.address = the_daemon.socket;
    while (!b->may_come)
        pause_us(1000);
    CHECK(acre_open_with(&heap, &options) == 0);
    for (unsigned i = 0; i < 300; i++)
        CHECK(acre_alloc(heap, 1000));
    b->is_there = true;
    while (true)
        pause();
}

struct larges {
    long long id, n;
};

static void count_larges(void *ctx, long long slot, const json_t *run)
{
    struct larges *l = ctx;
    (void)slot;
    l->n += is_kind(run, "large") && num(run, "client") == l->id;
}

struct place {
    long long id, slot, unit; /* the first run of the client: the first client that is not `not` */
    long long not, only;      /* only: this slot; -1: any */
};

static void find_first(void *ctx, long long slot, const json_t *run)
{
    struct place *p = ctx;
    if (p->id != 0 || (p->only >= 0 && slot != p->only) || !is_kind(run, "slab") ||
        num(run, "client") == p->not )
        return;
    *p = (struct place){num(run, "client"), slot, num(run, "unit"), p->not, p->only};
}

/* A block or slab says that it is a large block, up to the end of the segment. */
static void claim_all(struct acre_heap *heap, const struct place *p)
{
    char *base = (char *)acre_pointer(heap, ((acre_off)p->slot << SLOT_SHIFT) + 16) - 16;
    struct segment_shape shape = segment_shape(((struct seg_header *)(void *)base)->n_units);
    assert_true(p->id != 0);
    segment_entries(base, &shape)[p->unit] =
        unit_entry_large(shape.n_units - (uint32_t)p->unit, (tag_t)p->id);
}

static void what_a_client_says_makes_no_unit_its_own(void **state)
{
    static struct known k;
    struct beside *b = shared_page(sizeof(*b));
    (void)state;
    pid_t pid = child_start(sit_beside, b); /* of a parent that is no client yet */
    known_make(&k);
    b->may_come = true;
    while (!b->is_there)
        pause_us(1000);
    struct said before = map();
    struct place its = {.not = (long long)(acre_self(k.heap) & 0xffff), .only = -1}, mine = {0},
                 last = {0};
    each_run(&before, find_first, &its);
    mine.not = its.id;
    mine.only = its.slot;
    each_run(&before, find_first, &mine);
    assert_true(mine.id != 0 && mine.unit < its.unit);
    the_daemon.is_scribbled = true;
    claim_all(k.heap, &mine);
    last.only = num(json_array_get(before.segments, json_array_size(before.segments) - 1), "slot");
    each_run(&before, find_first, &last); /* of whomever; behind it much is free */
    claim_all(k.heap, &last);
    struct said now = map();
    char *svg = piped("map default --svg", 0);
    expect_xml(svg);
    assert_non_null(strstr(svg, "&#60;a&#38;b&#62;&#34;"));
    expect_whole(&now);
    assert_true(num(json_object_get(now.figures, "bytes"), "unclear") > 0);
    assert_int_equal(num(json_object_get(now.figures, "bytes"), "free"),
                     num(json_object_get(before.figures, "bytes"), "free"));
    for (size_t i = 0; i < 2; i++) {
        json_t *then = json_array_get(json_object_get(before.tenant, "clients"), i),
               *client = json_array_get(json_object_get(now.tenant, "clients"), i);
        struct larges larges = {.id = num(client, "id")};
        assert_int_equal(larges.id, num(then, "id"));
        assert_int_equal(num(client, "units"), num(then, "units"));
        each_run(&now, count_larges, &larges);
        if (larges.id == its.id)
            assert_int_equal(larges.n, last.id == its.id);
    }
    free(svg);
    json_decref(before.root);
    json_decref(now.root);
    kill(pid, SIGKILL); /* the heap is of no use to anybody any more: it is left as it is */
    assert_int_equal(child_signal(pid), SIGKILL);
}

/* A word of any kind, most of them nearly right. */
static uint64_t any_entry(uint64_t *rng, uint64_t right)
{
    switch (rnd(rng) % 5) {
    case 0:
        return rnd(rng);
    case 1:
        return unit_entry_slab(rnd(rng) % U_STATES, rnd(rng) % N_GEOS, rnd(rng) % 4,
                               (uint32_t)(right >> 32));
    case 2:
        return unit_entry_large((uint32_t)(rnd(rng) % 5000), (tag_t)(rnd(rng) % 4)) | rnd(rng) % 2;
    case 3:
        return unit_entry_plain(rnd(rng) % 32, (uint32_t)(right >> 32));
    default:
        return right ^ 1ull << rnd(rng) % 64;
    }
}

static void garbage_in_the_unit_table_is_looked_at_all_the_same(void **state)
{
    static struct known k;
    uint64_t rng = test_seed(9);
    (void)state;
    known_make(&k);
    the_daemon.is_scribbled = true;
    char *base = (char *)k.blocks[0] - (acre_offset(k.heap, k.blocks[0]) & (SLOT_BYTES - 1));
    struct segment_shape shape = segment_shape(((struct seg_header *)(void *)base)->n_units);
    uint64_t *entries = segment_entries(base, &shape);
    for (unsigned i = 0; i < N_SCRIBBLES; i++) {
        for (uint32_t n = 0; n < (i < 5 ? 3 : shape.n_units); n++) {
            uint32_t unit = (uint32_t)(rnd(&rng) % shape.n_units);
            entries[unit] = any_entry(&rng, entries[unit]);
        }
        struct said m = map();
        expect_whole(&m);
        json_decref(m.root);
        char *text = piped("map default", 0), *svg = piped("map default --svg", 0);
        expect_narrow(text);
        expect_inside(svg);
        free(svg);
        free(text);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, harness_up, harness_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_block_is_in_the_unit_where_it_lies_and_nothing_else_is),
        TEST(the_map_and_the_statistics_agree),
        TEST(fragmentation_is_what_a_plain_count_says),
        TEST(what_the_dead_have_published_is_of_no_client),
        TEST(in_a_pipe_it_is_plain_and_80_columns_wide),
        TEST(on_a_terminal_it_has_colours_if_they_are_wanted),
        TEST(the_svg_has_a_cell_for_each_run_and_none_outside),
        TEST(who_is_not_there_has_no_map),
        TEST(a_heap_that_moves_is_drawn_whole_and_its_dead_disappear),
        TEST(what_a_client_says_makes_no_unit_its_own),
        TEST(garbage_in_the_unit_table_is_looked_at_all_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
