/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hostile client for as long as one likes: do the daemon and the other tenants notice?
 *
 * WHO. Tenant `evil`: LANES processes at a time, user nobody if root starts this, each drawing
 * deeds from hostile.c's table and killed at random instants (a lane also stops some for a while).
 * Their forks and execs go on without them. Tenant `good`: processes with checked content that
 * publish, take and free each other's blocks. Tenant `probe`: a request each millisecond, timed.
 *
 * WHAT MUST HOLD. Each CHECK_S, with good and probe held still and evil going on: what they hold is
 * what acrectl says, to the byte; acrectl check finds nothing; evil is within its max. Each REST_S
 * evil is killed as a whole, its heap dropped: then daemon and keeper have as many descriptors and
 * mappings as before evil came, threads for as many jobs as there can be at once, and no more
 * private memory than at some rest in the first half of the time, but for GROWTH_KIB (malloc keeps
 * what as many peers as a user may have took at once). Always: the same daemon.
 *
 * THE TIME OF A REQUEST on a busy machine with few CPUs is mostly waiting for one. So it is given
 * three times: as timed; less what daemon and probe waited for a CPU meanwhile (soak_probe.c),
 * which is what the daemon's loop was busy or blocked, since a stall is met by one request at
 * least; and that of a pair of processes which do nothing but answer. A request sent while the
 * daemon already waits for a CPU is credited with all of that wait, too much by what had passed of
 * it. Times are printed, and no reason to fail.
 *
 * Usage: hostile-soak [SECONDS [SEED]]
 */
#include "tests/misuse/soak.h"

#include <fcntl.h>
#include <jansson.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>

#define LANES        3u
#define SECONDS      6u
#define CHECK_S      10u
#define REST_S       60.0 /* less in a short run */
#define REST_S_MIN   5.0
#define SETTLE_TRIES 200u /* of 50 ms */
#ifdef __SANITIZE_ADDRESS__
#define GROWTH_KIB 262144l /* what is freed is kept back to be watched */
#else
#define GROWTH_KIB 2048l
#endif
#define CLIENTS     (SOAK_GOODS + 1) /* that mean well */
#define THREADS_MAX (1 + 3 * 6)      /* the loop, and a tenant's kinds of jobs */

static const char *const config = "capacity = \"512M\"\n"
                                  "tenant evil { max = \"128M\" users = {\"*\"} }\n"
                                  "tenant good { max = \"64M\" }\n"
                                  "tenant probe { max = \"8M\" }\n";

struct soak *soak;
static unsigned n_faults;

static __attribute__((format(printf, 1, 2))) void fault(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "FAULT at %.1f s: ", (double)(wire_now_ns() - soak->began_ns) / 1e9);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    n_faults++;
}

/* ---- processes ---- */

static struct {
    bool (*fn)(void *arg);
    void *arg;
} started;

static bool without_alarm(void *arg)
{
    (void)arg;
    alarm(0);
    return started.fn(started.arg);
}

pid_t soak_start(bool (*fn)(void *arg), void *arg)
{
    started.fn = fn;
    started.arg = arg;
    return child_start(without_alarm, NULL);
}

/* Keeps one hostile process alive at a time, and not for long. */
static bool lane(void *arg)
{
    static const int for_ever = 1;
    uint64_t rng = soak->seed ^ (uint64_t)(uintptr_t)arg << 32 ^ (uint64_t)getpid() << 16;
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    while (for_ever) {
        uint64_t seed = rnd(&rng);
        pid_t pid = fork();
        if (pid == 0)
            hostile_be(&soak->orders, seed);
        usleep((useconds_t)(rnd(&rng) % 800000));
        if (rnd(&rng) % 8 == 0) {
            (void)kill(pid, SIGSTOP);
            usleep((useconds_t)(rnd(&rng) % 300000));
            (void)kill(pid, SIGCONT);
        }
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        __atomic_fetch_add(&soak->n_deaths, 1, __ATOMIC_RELAXED);
    }
    return true;
}

static pid_t lanes[LANES];

static void start_lanes(void)
{
    for (uintptr_t i = 0; i < LANES; i++) {
        lanes[i] = soak_start(lane, (void *)(i + 1));
        (void)setpgid(lanes[i], lanes[i]);
    }
}

static void stop_lanes(void)
{
    for (unsigned i = 0; i < LANES; i++) {
        (void)kill(-lanes[i], SIGKILL);
        (void)waitpid(lanes[i], NULL, 0);
    }
}

/* ---- what the others say ---- */

/* acrectl's exit status; what it says goes to ret_said, if that is not NULL. */
static int acrectl(const char *words, char *ret_said, size_t n)
{
    char command[256], rest[512];
    snprintf(command, sizeof(command), "%s %s --socket %s 2>&1", getenv("ACRECTL"), words,
             the_daemon.socket);
    FILE *f = popen(command, "r");
    if (!f)
        return -1;
    size_t got = ret_said ? fread(ret_said, 1, n - 1, f) : 0;
    if (ret_said)
        ret_said[got] = 0;
    while (fgets(rest, sizeof(rest), f))
        ;
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static long long figure(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

static unsigned daemon_clients(void)
{
    json_t *root = acrectl_json(&the_daemon, "status");
    unsigned n = (unsigned)figure(root, "clients");
    json_decref(root);
    return n;
}

static void check_budgets(void)
{
    json_t *root = acrectl_json(&the_daemon, "status"), *t;
    long long sealed_bytes = 0;
    size_t i;
    json_array_foreach(json_object_get(root, "memory"), i, t)
    {
        sealed_bytes += figure(t, "sealed_bytes");
        if (figure(t, "sealed_bytes") > figure(t, "max_bytes") ||
            figure(t, "granted_bytes") > figure(t, "sealed_bytes"))
            fault("tenant %s: %lld granted, %lld sealed, max %lld",
                  json_string_value(json_object_get(t, "name")), figure(t, "granted_bytes"),
                  figure(t, "sealed_bytes"), figure(t, "max_bytes"));
    }
    if (sealed_bytes > figure(root, "capacity_bytes"))
        fault("%lld bytes are sealed", sealed_bytes);
    json_decref(root);
}

static void check_tenant(const char *tenant)
{
    char words[96], said[4096];
    snprintf(words, sizeof(words), "check %s", tenant);
    int code = acrectl(words, said, sizeof(said));
    if (code != 0 || strstr(said, "not compared"))
        fault("acrectl check %s: %d: %s", tenant, code, said);
}

static void check_good(void)
{
    struct tenant_stats s = tenant_stats(&the_daemon, "good");
    long long held_bytes = 0, board_bytes = (long long)soak->board_bytes;
    for (unsigned i = 0; i < SOAK_GOODS; i++)
        held_bytes += (long long)soak->goods[i].held_bytes;
    if (s.live_bytes != held_bytes + board_bytes || s.published_bytes != board_bytes)
        fault("tenant good: %lld live bytes, %lld published, expected %lld and %lld", s.live_bytes,
              s.published_bytes, held_bytes + board_bytes, board_bytes);
    if (s.n_clients != SOAK_GOODS || s.granted_bytes < s.live_bytes)
        fault("tenant good: %u clients, %lld bytes granted", s.n_clients, s.granted_bytes);
    check_tenant("good");
}

static void check_probe(void)
{
    struct tenant_stats s = tenant_stats(&the_daemon, "probe");
    /* What it has not cut others may have: not more, then. */
    if (s.granted_bytes > (long long)soak->probe.held_bytes || s.n_clients != 1 ||
        s.live_bytes != 0)
        fault("tenant probe: %lld bytes granted, expected %lld; %lld live, %u clients",
              s.granted_bytes, (long long)soak->probe.held_bytes, s.live_bytes, s.n_clients);
    check_tenant("probe");
}

/* ---- all together ---- */

static bool wait_held(const struct soak_worker *w, const char *what)
{
    for (unsigned i = 0; i < SETTLE_TRIES; i++, pause_us(50000)) {
        if (__atomic_load_n(&w->is_held, __ATOMIC_SEQ_CST))
            return true;
        if (w->has_failed)
            break;
    }
    fault("%s %s", what, w->has_failed ? "failed" : "does not answer");
    return false;
}

static bool hold(void)
{
    bool ok = true;
    __atomic_store_n(&soak->hold, 1, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < SOAK_GOODS; i++)
        ok = wait_held(&soak->goods[i], "a good client") && ok;
    return wait_held(&soak->probe, "the probe") && ok;
}

static void go_on(void)
{
    __atomic_store_n(&soak->hold, 0, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < SOAK_GOODS; i++)
        while (__atomic_load_n(&soak->goods[i].is_held, __ATOMIC_SEQ_CST) &&
               !soak->goods[i].has_failed)
            pause_us(500);
    while (__atomic_load_n(&soak->probe.is_held, __ATOMIC_SEQ_CST) && !soak->probe.has_failed)
        pause_us(500);
}

/* False: there is no sense in going on. */
static bool check_all(void)
{
    if (waitpid(the_daemon.pid, NULL, WNOHANG) != 0 || daemon_worker(&the_daemon) != soak->worker) {
        fault("the daemon has died");
        return false;
    }
    bool ok = hold();
    if (ok) {
        check_budgets();
        check_good();
        check_probe();
    }
    go_on();
    return ok;
}

/* ---- the daemon at rest ---- */

struct rest {
    double at_s;
    unsigned n_fds, n_maps, n_threads, n_keeper_fds;
    long private_kib, cpu_ms;
};

static long cpu_ms_of(pid_t pid)
{
    char path[48];
    unsigned long long ran_ns = 0;
    snprintf(path, sizeof(path), "/proc/%d/schedstat", (int)pid);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%llu", &ran_ns) != 1)
        ran_ns = 0;
    if (f)
        fclose(f);
    return (long)(ran_ns / 1000000);
}

static struct rest look(void)
{
    return (struct rest){.at_s = (double)(wire_now_ns() - soak->began_ns) / 1e9,
                         .n_fds = daemon_fds(&the_daemon),
                         .n_maps = daemon_maps(&the_daemon),
                         .n_threads = (unsigned)pid_status(soak->worker, "Threads:"),
                         .n_keeper_fds = pid_fds(the_daemon.pid),
                         .private_kib = pid_status(soak->worker, "RssAnon:"),
                         .cpu_ms = cpu_ms_of(soak->worker)};
}

static bool is_as(const struct rest *now, const struct rest *base)
{
    return now->n_fds <= base->n_fds && now->n_maps <= base->n_maps &&
           now->n_threads <= THREADS_MAX && now->n_keeper_fds <= base->n_keeper_fds;
}

/* Without evil: its clients have been reaped, its heap has gone. */
static void empty_evil(void)
{
    unsigned n, before = 0;
    char said[512];
    for (unsigned i = 0; (n = daemon_clients()) != CLIENTS && i < SETTLE_TRIES; i++) {
        if (n < before) /* thousands, on a busy machine: as long as they become fewer */
            i = 0;
        before = n;
        pause_us(50000);
    }
    if (n != CLIENTS)
        fault("%u clients are left where %u were", n, CLIENTS);
    unsigned i;
    for (i = 0; i < 3 * SETTLE_TRIES && acrectl("tenant drop evil", said, sizeof(said)) != 0; i++)
        pause_us(50000);
    if (i == 3 * SETTLE_TRIES)
        fault("evil's heap cannot be dropped: %s", said);
}

static struct rest rest_as(const struct rest *base)
{
    struct rest now = look();
    for (unsigned i = 0; i < SETTLE_TRIES && !is_as(&now, base); i++) {
        pause_us(50000); /* a request of the dead, read last, may have opened the heap again */
        (void)acrectl("tenant drop evil", NULL, 0);
        pause_us(50000);
        now = look();
    }
    if (!is_as(&now, base))
        fault("%u descriptors, %u mappings, %u threads, the keeper has %u descriptors; before evil "
              "came %u, %u, %u, %u",
              now.n_fds, now.n_maps, now.n_threads, now.n_keeper_fds, base->n_fds, base->n_maps,
              base->n_threads, base->n_keeper_fds);
    return now;
}

/* ---- the report ---- */

static void print_times(const char *what, const struct times *t)
{
    printf("%-34s %9llu %8.3f %8.3f %8.3f %8.3f %7llu\n", what, (unsigned long long)t->n,
           times_ms(t, 0.5), times_ms(t, 0.99), times_ms(t, 0.9999), (double)t->max_ns / 1e6,
           (unsigned long long)t->n_late);
}

static void print_busy(void)
{
    for (uint32_t i = 0; i < MIN(soak->n_busy, SOAK_BUSY); i++) {
        const struct soak_busy *b = &soak->busy[i];
        printf("  at %.3f s %s took %.1f ms: its loop ran for %.1f, waited for a CPU for %.1f; the "
               "probe for %.1f\n",
               (double)b->at_ns / 1e9, b->is_status ? "a status" : "a grow or release",
               (double)b->took_ns / 1e6, (double)b->loop_ran_ns / 1e6,
               (double)b->loop_waited_ns / 1e6, (double)b->probe_waited_ns / 1e6);
    }
    printf("%llu of the %llu requests over 10 ms waited for a CPU, and else took less than that\n",
           (unsigned long long)(soak->raw.n_late - soak->own.n_late),
           (unsigned long long)soak->raw.n_late);
}

static void print_rest(const char *what, const struct rest *r)
{
    printf("%-22s %8.1f %8ld %6u %6u %8u %11u %8ld\n", what, r->at_s, r->private_kib, r->n_fds,
           r->n_maps, r->n_threads, r->n_keeper_fds, r->cpu_ms);
}

static void report(const struct rest *base, const struct rest *early, const struct rest *end)
{
    uint64_t n_rounds = 0, n_deeds = 0;
    for (unsigned k = 0; k < n_hostile_deeds; k++) {
        n_deeds += soak->orders.n_done[k];
        printf("%-30s %9llu%s", hostile_deeds[k].name, (unsigned long long)soak->orders.n_done[k],
               k % 2 && k + 1 < n_hostile_deeds ? "\n" : "    ");
    }
    for (unsigned i = 0; i < SOAK_GOODS; i++)
        n_rounds += soak->goods[i].n_rounds;
    printf("\n%.0f s, seed %llu: %llu deeds, %llu deaths; %llu rounds of the good ones\n\n",
           end->at_s, (unsigned long long)soak->seed, (unsigned long long)n_deeds,
           (unsigned long long)soak->n_deaths, (unsigned long long)n_rounds);
    printf("%-34s %9s %8s %8s %8s %8s %7s\n", "ms", "n", "p50", "p99", "p99.99", "max", ">10 ms");
    print_times("probe's requests", &soak->raw);
    print_times("  less waiting for a CPU", &soak->own);
    print_times("two processes without a daemon", &soak->echo);
    print_busy();
    printf("\n%-22s %8s %8s %6s %6s %8s %11s %8s\n", "daemon", "at s", "KiB", "fds", "maps",
           "threads", "keeper fds", "loop ms");
    print_rest("before evil came", base);
    print_rest("most of the first half", early);
    print_rest("at the end", end);
    printf("faults: %u\n", n_faults);
}

/* ---- */

/* All segments are there, and evil's tenant is as it will be again. */
static void warm_up(void)
{
    struct acre_heap *heap = heap_open(&the_daemon, "good");
    while (acre_alloc(heap, 1 << 20))
        ;
    acre_close(heap);
    acre_close(heap_open(&the_daemon, "evil"));
    for (unsigned i = 0; i < SETTLE_TRIES && daemon_clients() != 0; i++)
        pause_us(50000);
}

static struct rest stable(void)
{
    struct rest now = look();
    for (unsigned n_same = 0, i = 0; i < SETTLE_TRIES && n_same < 10; i++) {
        struct rest before = now;
        pause_us(50000);
        now = look();
        n_same = is_as(&now, &before) && is_as(&before, &now) ? n_same + 1 : 0;
    }
    return now;
}

static void progress(double at_s, double all_s)
{
    if (isatty(STDOUT_FILENO)) {
        printf("\r%.0f of %.0f s, %llu deaths, slowest request %.1f ms, %u faults  ", at_s, all_s,
               (unsigned long long)soak->n_deaths, (double)soak->raw.max_ns / 1e6, n_faults);
        fflush(stdout);
    }
}

/* Evil at work for so long, with checks. False: no sense in going on. */
static bool round_of_evil(double until_s, double all_s)
{
    double at_s = 0, check_s = 0;
    bool ok = true;
    start_lanes();
    for (; ok && at_s < until_s; pause_us(200000)) {
        at_s = (double)(wire_now_ns() - soak->began_ns) / 1e9;
        progress(at_s, all_s);
        if (at_s < check_s)
            continue;
        check_s = at_s + CHECK_S;
        ok = check_all();
        if (ok && acrectl("check evil", NULL, 0) > 1)
            fault("acrectl check evil does not come to an end");
    }
    stop_lanes();
    return ok;
}

static void run(double all_s)
{
    warm_up();
    soak->worker = daemon_worker(&the_daemon);
    for (unsigned i = 0; i < SOAK_GOODS; i++)
        (void)soak_start(soak_good, &soak->goods[i]);
    (void)soak_start(soak_probe, &soak->probe);
    (void)soak_start(soak_echo, NULL);
    soak->began_ns = wire_now_ns();
    pause_us(900000);
    empty_evil();
    struct rest base = stable(), early = base, end = base;
    double at_s = 0;
    bool ok = check_all();
    for (unsigned n_rests = 0; ok && at_s < all_s; n_rests++) {
        at_s = MIN(at_s + MAX(MIN(REST_S, all_s / 6), REST_S_MIN), all_s);
        ok = round_of_evil(at_s, all_s);
        if (!ok)
            break;
        empty_evil();
        end = rest_as(&base);
        if (n_rests == 0 || (at_s <= all_s / 2 && end.private_kib > early.private_kib))
            early = end;
    }
    ok = ok && check_all();
    if (ok && end.private_kib > early.private_kib + GROWTH_KIB)
        fault("%ld KiB of private memory, at most %ld in the first half", end.private_kib,
              early.private_kib);
    report(&base, &early, &end);
}

static void stop_all(void)
{
    __atomic_store_n(&soak->stop, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&soak->hold, 0, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < SOAK_GOODS + 2; i++) {
        int status = 0;
        if (wait(&status) < 0 || status != 0)
            fault("one of those that mean well ended with status 0x%x", (unsigned)status);
    }
}

int main(int argc, char **argv)
{
    double all_s = argc > 1 ? strtod(argv[1], NULL) : SECONDS;
    if (argc > 2)
        setenv("ACRE_TEST_SEED", argv[2], 1);
    soak = shared_page(sizeof(*soak));
    soak->seed = test_seed(11);
    strcpy(soak->orders.tenant, "evil");
    soak->orders.as_nobody = true;
    soak->began_ns = wire_now_ns();
    daemon_up(&the_daemon, config);
    (void)chmod(the_daemon.dir, 0755);
    run(all_s);
    stop_all();
    if (n_faults == 0) {
        expect_settled(&the_daemon, "good", (long long)soak->board_bytes, 0);
        daemon_down(&the_daemon);
        return 0;
    }
    (void)kill(the_daemon.pid, SIGTERM); /* no questions asked */
    (void)waitpid(the_daemon.pid, NULL, 0);
    daemon_remove(&the_daemon);
    return 1;
}
