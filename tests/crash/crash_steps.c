/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/*
 * Promise P1 by exhaustion: a client is killed at every single instruction of every operation.
 *
 * MODEL. For each operation one life is recorded step by step: how many instructions n, and after
 * which of them something shared was different (segment tables, owner maps) or a system call had
 * been made: the points. Then a fresh process for each k in [0, n]: it attaches, prepares, is
 * brought to its k-th instruction, and is killed by SIGKILL. A system call is one step.
 *
 * WHAT IS ASKED after each death (world.h): the survivor allocates at once, in the victim's class,
 * with the victim stopped in the middle and again with it dead; the victim's client is gone; the
 * set of all blocks with an owner equals the ballast plus what was tracked: in the state before the
 * operation up to the first point, in the one after it behind the last, in either between; patterns
 * are whole. Memory that victims get is full of garbage. After every BATCH deaths and at the end:
 * granted bytes are what they were before the first death; at the end of an operation: the whole
 * budget can be allocated to the last unit, and the daemon has as many descriptors and mappings as
 * before.
 *
 * WHICH k. --every: all, but of those that are more than STEPS_MAX steps away from where a
 * breakpoint can stand (the inside of long loops over private memory) a sample. --full: of those
 * that are no points FULL_OTHERS at most, evenly: that is all of them in the operations up to 2,000
 * instructions. Otherwise, for a short run: before and after each point, as far as QUICK_POINTS go,
 * and QUICK_OTHERS evenly from the rest. Between two points nothing shared changes, so nothing
 * shared can tell one k from the next; the others are there because that argument might be wrong.
 *
 * COST. A death is 1 to 3 ms. Reaching k: see trace.h.
 *
 * Usage: crash-steps [--full | --every] [--list] [OPERATION [K]]     (number or part of the name; one k)
 */
#include "tests/crash/ops.h"
#include "tests/crash/trace.h"
#include "tests/system/step.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#if defined(__x86_64__) || defined(__aarch64__)

#define MAX_MIB         32u
#define BATCH           64u
#define STEPS_MAX       1024u
#define FULL_OTHERS     2000u
#define FULL_FAR        32u
#define FULL_POINTS_FAR 1000u
#define QUICK_POINTS    80u
#define QUICK_FAR       8u
#define QUICK_OTHERS    32u
#define SKIPPED         77

enum depth { QUICK, FULL, EVERY };

static struct world world;
static struct nursery nursery;
static struct trace trace;
static char *shadow;
static const struct op *op;

/* ---- the victim ---- */

/* The rest of the operation's process: it is killed in here at the latest. */
static void perform(void)
{
    __atomic_store_n(&stage->pid, (uint32_t)getpid(), __ATOMIC_RELAXED);
    __atomic_store_n(&stage->tid, (uint32_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
    while (!__atomic_load_n(&stage->go, __ATOMIC_ACQUIRE))
        sched_yield();
    trace_begin_marker();
    ops[stage->op].run();
    if (ops[stage->op].flags & OP_IN_THREAD)
        return;
    trace_end_marker();
    for (;;)
        sched_yield(); /* who is stepped further than here must not hang */
}

static void *perform_in_thread(void *arg)
{
    if (ops[stage->op].prepare())
        perform();
    else
        __atomic_store_n(&stage->has_failed, 1, __ATOMIC_RELEASE);
    return arg;
}

static bool lead(const struct op *o)
{
    pthread_t thread;

    if (!(o->flags & OP_UNOPENED))
        CHECK(acre_open(&victim_heap, stage->socket, WORLD_TENANT) == 0);
    if (stage->is_leaver)
        return o->leave();
    if (o->flags & OP_IN_THREAD) {
        CHECK(pthread_create(&thread, NULL, perform_in_thread, NULL) == 0);
        for (;;)
            pause();
    }
    if (o->prepare && !o->prepare())
        return false;
    if ((o->flags & OP_IN_CHILD) && fork() != 0)
        for (;;)
            pause();
    perform();
    return true;
}

static void victim(void)
{
    if (!lead(&ops[stage->op]))
        __atomic_store_n(&stage->has_failed, 1, __ATOMIC_RELEASE);
    __atomic_store_n(&stage->has_left, 1, __ATOMIC_RELEASE);
}

/* ---- a death ---- */

static __attribute__((format(printf, 1, 2))) bool bad(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(world.why, sizeof(world.why), format, args);
    va_end(args);
    return false;
}

static bool wait_for(const uint32_t *word)
{
    for (unsigned i = 0; !__atomic_load_n(word, __ATOMIC_ACQUIRE); i++) {
        if (__atomic_load_n(&stage->has_failed, __ATOMIC_ACQUIRE))
            return bad("the victim could not prepare");
        if (i > 20000)
            return bad("the victim does not come");
        if (i > 200)
            usleep(1000);
        sched_yield();
    }
    return true;
}

static void stage_reset(void)
{
    char socket[sizeof(stage->socket)];

    memcpy(socket, world.daemon.socket, sizeof(socket));
    memset(stage, 0, sizeof(*stage));
    memcpy(stage->socket, socket, sizeof(socket));
    stage->op = (unsigned)(op - ops);
    stage->survivor = world.self;
}

/* Whom the victim inherits from has come and gone. */
static bool leaver_left(void)
{
    if (!op->leave)
        return true;
    stage->is_leaver = true;
    if (nursery_fork(&nursery) == 0 || !wait_for(&stage->has_left) || !world_settle(&world))
        return false;
    stage->is_leaver = false;
    stage->has_left = 0;
    return true;
}

/* A victim that stands at its marker. */
static bool birth(pid_t *ret_leader)
{
    stage_reset();
    if (!world_soil(&world) || (op->hand && !op->hand(&world)) || !leaver_left())
        return false;
    *ret_leader = nursery_fork(&nursery);
    if (*ret_leader == 0 || !wait_for(&stage->tid))
        return bad("no victim: %s", world.why);
    if (!trace_seize((pid_t)stage->tid))
        return bad("the victim cannot be traced");
    trace_share_cpu((pid_t)stage->tid);
    __atomic_store_n(&stage->go, 1, __ATOMIC_RELEASE);
    return trace_wait_marker((pid_t)stage->tid) || bad("the victim ended before its operation");
}

/* The stepped process, then whoever is left of its group. */
static bool death(pid_t leader)
{
    bool ok = true;

    kill((pid_t)stage->pid, SIGKILL);
    trace_reap((pid_t)stage->tid);
    trace_leave_cpu();
    if ((pid_t)stage->pid != leader)
        ok = world_burst(&world, op->size);
    kill(-leader, SIGKILL);
    return ok;
}

static bool aftermath(enum progress progress)
{
    if (!world_burst(&world, op->size) || !world_settle(&world) ||
        !world_compare(&world, stage->tracked, stage->n_tracked, progress, op->n_strays,
                       op->n_published))
        return false;
    if (op->after && !op->after(&world))
        return bad("the operation's own check failed: see above");
    return world_dispose(&world) && world_burst(&world, op->size);
}

struct tally {
    uint32_t n_points, n_failed, n_elsewhere;
};

static void complain(uint32_t k, uint64_t pc, const char *what)
{
    char name[400];

    trace_name(pc, name, sizeof(name));
    fprintf(stderr, "FAILED: operation %u \"%s\", k = %u of %u, before %s\n    %s: %s\n",
            (unsigned)(op - ops), op->name, k, trace.n, name, what, world.why);
}

/* Before the first point or after the last, nothing is left to chance. */
static enum progress progress_at(uint32_t k, uint64_t pc)
{
    if (pc != trace.pc[k] || op->flags & OP_LINKS)
        return WAS_INSIDE;
    return k <= trace.first_point ? WAS_BEFORE : k > trace.last_point ? WAS_AFTER : WAS_INSIDE;
}

static bool die_at(uint32_t k, struct tally *tally)
{
    pid_t leader;
    uint64_t pc = 0;

    tally->n_points++;
    bool ok = birth(&leader);
    if (ok) {
        enum trace_end end = trace_go(&trace, (pid_t)stage->tid, k);
        pc = end == TRACE_LOST ? 0 : step_pc((pid_t)stage->tid);
        tally->n_elsewhere += pc != trace.pc[k];
        ok = world_burst(&world, op->size);
        ok = death(leader) && ok && aftermath(progress_at(k, pc));
    }
    if (!ok) {
        tally->n_failed++;
        complain(k, pc, "after this death");
    }
    return ok;
}

/* ---- which deaths ---- */

static bool has_changed(void *ctx)
{
    (void)ctx;
    return world_has_changed(&world, shadow);
}

static bool record(void)
{
    pid_t leader;

    shadow = malloc(world_shadow_bytes(&world));
    bool ok = shadow && birth(&leader);
    if (ok) {
        ok = trace_record(&trace, (pid_t)stage->tid, has_changed, NULL) || bad("no end of it");
        ok = death(leader) && ok && aftermath(WAS_AFTER);
    }
    free(shadow);
    if (!ok)
        complain(trace.n, 0, "in the recorded life");
    return ok;
}

enum kind { PLAIN, POINT, PLAIN_FAR, POINT_FAR };

/* far: farther from where stepping begins. */
static enum kind kind_of(uint32_t k)
{
    bool is_point = trace.is_point[k] || k == trace.n || (k > 0 && trace.is_point[k - 1]);
    bool is_far = k - trace.anchor[k] > STEPS_MAX;

    return is_point ? (is_far ? POINT_FAR : POINT) : (is_far ? PLAIN_FAR : PLAIN);
}

/* Marks all of that kind, or n_max of them, evenly. */
static void choose_some(uint8_t *chosen, enum kind kind, uint32_t n_max)
{
    uint32_t n = 0, i = 0;

    for (uint32_t k = 0; k <= trace.n; k++)
        n += kind_of(k) == kind;
    for (uint32_t k = 0; k <= trace.n; k++)
        if (kind_of(k) == kind && (n <= n_max || (uint64_t)i++ * n_max % n < n_max))
            chosen[k] = true;
}

static uint8_t *choose(enum depth depth)
{
    bool full = depth != QUICK;
    uint32_t n_others = depth == QUICK ? QUICK_OTHERS : depth == FULL ? FULL_OTHERS : UINT32_MAX;
    uint8_t *chosen = calloc(trace.n + 1, 1);

    assert_non_null(chosen);
    choose_some(chosen, POINT, full ? UINT32_MAX : QUICK_POINTS);
    choose_some(chosen, POINT_FAR, full ? FULL_POINTS_FAR : QUICK_FAR);
    choose_some(chosen, PLAIN, n_others);
    choose_some(chosen, PLAIN_FAR, full ? FULL_FAR : 0);
    return chosen;
}

/* ---- an operation ---- */

static double now_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* What has been lost shows only when all is counted. */
static bool batch_is_over(struct tally *tally, uint32_t k)
{
    if (world_check(&world))
        return true;
    tally->n_failed++;
    complain(k, trace.pc[k], "after the batch that ends with this death");
    return false;
}

static bool die_everywhere(struct tally *tally, const uint8_t *chosen, long only_k)
{
    bool whole = true;

    for (uint32_t k = 0; k <= trace.n && whole; k++) {
        if (only_k >= 0 ? k != (uint32_t)only_k : !chosen[k])
            continue;
        whole = die_at(k, tally) && (tally->n_points % BATCH != 0 || batch_is_over(tally, k));
    }
    return whole && batch_is_over(tally, trace.n);
}

static bool is_whole_again(struct tally *tally)
{
    if (world_is_full_size(&world) && world_check(&world) && world_daemon_is_lean(&world) &&
        world_down(&world))
        return true;
    tally->n_failed++;
    complain(trace.n, 0, "after all deaths");
    return false;
}

/* A world of its own: what one operation breaks does not follow the next. */
static void run_op(enum depth depth, long only_k, struct tally *total)
{
    struct tally tally = {0};
    uint32_t n_marks = 0;
    double from_s = now_s();
    bool ok = world_up(&world, MAX_MIB, "4k");

    if (!ok)
        complain(0, 0, "before any death");
    ok = ok && record();
    if (ok) {
        uint8_t *chosen = choose(depth);
        for (uint32_t k = 0; k < trace.n; k++)
            n_marks += trace.is_point[k];
        world_note_daemon(&world);
        ok = die_everywhere(&tally, chosen, only_k) && is_whole_again(&tally);
        free(chosen);
    }
    if (!ok)
        world_abandon(&world);
    tally.n_failed += !ok && tally.n_failed == 0;
    printf("%3u  %-34s %8u %7u %8u %9u %7u %7.1f\n", (unsigned)(op - ops), op->name, trace.n,
           n_marks, tally.n_points, tally.n_elsewhere, tally.n_failed, now_s() - from_s);
    fflush(stdout);
    total->n_points += tally.n_points;
    total->n_failed += tally.n_failed;
    total->n_elsewhere += tally.n_elsewhere;
}

/* ---- the program ---- */

struct options {
    enum depth depth;
    bool list;
    const char *only;
    long only_k;
};

static bool is_wanted(const struct options *o, unsigned i)
{
    char number[12];

    snprintf(number, sizeof(number), "%u", i);
    return !o->only || strcmp(o->only, number) == 0 || strstr(ops[i].name, o->only);
}

static struct options options_of(int argc, char **argv)
{
    struct options o = {.only_k = -1};

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--full") == 0)
            o.depth = FULL;
        else if (strcmp(argv[i], "--every") == 0)
            o.depth = EVERY;
        else if (strcmp(argv[i], "--list") == 0)
            o.list = true;
        else if (!o.only)
            o.only = argv[i];
        else
            o.only_k = strtol(argv[i], NULL, 0);
    }
    return o;
}

/* Symbols are bound before, or the first call of each function would be thousands of steps. */
static void bind_all_symbols(char **argv)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (n <= 0 || getenv("LD_BIND_NOW"))
        return;
    self[n] = '\0';
    setenv("LD_BIND_NOW", "1", 1);
    execv(self, argv);
}

static int run_all(const struct options *o)
{
    struct tally total = {0};

    printf("%3s  %-34s %8s %7s %8s %9s %7s %7s\n", "", "operation", "instr.", "points", "killed",
           "elsewhere", "failed", "s");
    for (unsigned i = 0; i < n_ops; i++) {
        if (!is_wanted(o, i))
            continue;
        op = &ops[i];
        trace.from_start = op->flags & OP_FORKS;
        run_op(o->depth, o->only_k, &total);
    }
    printf("%u kill points tried, %u failed\n", total.n_points, total.n_failed);
    return total.n_failed != 0 || total.n_points == 0;
}

int main(int argc, char **argv)
{
    struct options o = options_of(argc, argv);

    bind_all_symbols(argv);
    for (unsigned i = 0; i < n_ops && o.list; i++)
        printf("%3u  %s\n", i, ops[i].name);
    if (o.list)
        return 0;
    int r = trace_probe();
    if (r < 0) {
        printf("skipped: the kernel refuses ptrace (%s)\n", strerror(-r));
        return SKIPPED;
    }
    stage = shared_page(sizeof(*stage));
    trace_init(&trace);
    nursery_start(&nursery, victim);
    r = run_all(&o);
    nursery_stop(&nursery);
    trace_deinit(&trace);
    return r;
}

#else

int main(void)
{
    printf("skipped: it is written for x86-64 and ARM64\n");
    return 77;
}

#endif
