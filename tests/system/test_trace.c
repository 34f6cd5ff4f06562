/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 200
 * acre-trace, for real: this program does what is known, and each command must tell it. Where the
 * kernel lets nobody load a program (no root, no BPF) the tests are skipped. */
#include "tests/system/harness.h"

#define OUTPUT_BYTES 65536u
#define LEAK_BYTES   500u
#define N_ROUNDS     400u
#define N_PAGES      3000u
#define SKIPPED      77

static char self[4096];
static struct daemon *const d = &the_daemon;

/* ---- what is looked at: this program, as another process ---- */

#define WORK         __attribute__((noipa))
#define NO_TAIL_CALL __asm__ volatile("") /* else its frame is gone when the probe looks */

static WORK void *planted_leak(struct acre_heap *heap)
{
    void *block = acre_alloc(heap, LEAK_BYTES);

    NO_TAIL_CALL;
    return block;
}

static WORK void *tidy_site(struct acre_heap *heap)
{
    void *block = acre_alloc(heap, 300);

    NO_TAIL_CALL;
    return block;
}

static WORK void *tidy_calloc(struct acre_heap *heap)
{
    void *block = acre_calloc(heap, 3, 100);

    NO_TAIL_CALL;
    return block;
}

static WORK void *planted_growth(struct acre_heap *heap)
{
    void *block = acre_alloc(heap, 16 << 20);

    NO_TAIL_CALL;
    return block;
}

static WORK void *small_growth(struct acre_heap *heap)
{
    void *block = acre_alloc(heap, 1 << 20);

    NO_TAIL_CALL;
    return block;
}

static struct acre_heap *open_here(void)
{
    struct acre_heap *heap;

    if (acre_open(&heap, getenv("TRACED_SOCKET"), "default") < 0) {
        fprintf(stderr, "the traced program: %s\n", acre_last_error());
        exit(1);
    }
    return heap;
}

static int leak(void)
{
    struct acre_heap *heap = open_here();

    for (unsigned i = 0; i < N_ROUNDS; i++) {
        void *a = tidy_site(heap), *b = tidy_calloc(heap), *c = planted_leak(heap);
        b = acre_realloc(heap, b, 40000); /* moves */
        if (!a || !b || !c)
            return 1;
        acre_free(heap, a);
        acre_free(heap, b);
    }
    pause_us(300000); /* its maps are read meanwhile */
    return 0;
}

/* What it allocates, its child frees, which is another client. */
static int hand_over(void)
{
    acre_off *offs = shared_page(N_ROUNDS * sizeof(*offs));
    struct acre_heap *heap = open_here();
    int gate[2], status;

    if (pipe(gate) < 0)
        return 1;
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        if (read(gate[0], &byte, 1) != 1)
            _exit(1);
        for (unsigned i = 0; i < N_ROUNDS; i++)
            acre_free(heap, acre_pointer(heap, offs[i]));
        _exit(0);
    }
    for (unsigned i = 0; i < N_ROUNDS; i++)
        offs[i] = acre_offset(heap, tidy_site(heap));
    if (write(gate[1], "", 1) != 1 || waitpid(pid, &status, 0) != pid)
        return 1;
    pause_us(300000);
    return status;
}

static int grow(void)
{
    struct acre_heap *heap = open_here();

    if (!small_growth(heap) || !planted_growth(heap))
        return 1;
    pause_us(300000);
    return 0;
}

/* Asks for more than the tenant may have, and waits for it. */
static int wait_in_vain(void)
{
    struct acre_heap *heap = open_here();
    void *most = acre_alloc(heap, 48 << 20);

    return !most || acre_alloc_wait(heap, 32 << 20, 150) ? 1 : 0;
}

static int fault(void)
{
    struct acre_heap *heap = open_here();
    volatile char *block = acre_alloc(heap, (size_t)N_PAGES * 4096);

    for (unsigned i = 0; block && i < N_PAGES; i++)
        block[(size_t)i * 4096] = 1;
    pause_us(300000);
    return !block;
}

static int be_killed(void)
{
    struct acre_heap *heap = open_here();

    if (!acre_alloc(heap, 5 << 20))
        return 1;
    sleep(2); /* until the daemon has been asked who is who */
    raise(SIGKILL);
    return 1;
}

static const struct job {
    const char *name;
    int (*run)(void);
} jobs[] = {{"leak", leak},         {"hand-over", hand_over}, {"grow", grow},
            {"wait", wait_in_vain}, {"fault", fault},         {"be-killed", be_killed}};

/* ---- looking ---- */

struct said {
    char out[OUTPUT_BYTES], err[OUTPUT_BYTES];
    int code;
};

static void read_file(const char *path, char text[static OUTPUT_BYTES])
{
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, OUTPUT_BYTES - 1, f) : 0;

    text[n] = '\0';
    if (f)
        fclose(f);
}

/* What acre-trace says to these arguments. */
static const struct said *trace(const char *arguments)
{
    static struct said said;
    char command[8192], out[128], err[128];

    (void)snprintf(out, sizeof(out), "/tmp/acre-traced-%d.out", (int)getpid());
    (void)snprintf(err, sizeof(err), "/tmp/acre-traced-%d.err", (int)getpid());
    (void)snprintf(command, sizeof(command), "'%s' %s >%s 2>%s", getenv("ACRE_TRACE"), arguments,
                   out, err);
    int status = system(command);
    assert_true(WIFEXITED(status));
    said.code = WEXITSTATUS(status);
    read_file(out, said.out);
    read_file(err, said.err);
    unlink(out);
    unlink(err);
    return &said;
}

static const struct said *trace_job(const char *command, const char *job)
{
    char arguments[8192];

    setenv("TRACED_SOCKET", d->socket, 1);
    (void)snprintf(arguments, sizeof(arguments), "%s -- '%s' %s", command, self, job);
    const struct said *said = trace(arguments);
    if (said->code != 0)
        fail_msg("acre-trace %s: exit %d: %s", arguments, said->code, said->err);
    return said;
}

static void expect(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" is not in:\n%s", part, text);
}

static void expect_not(const char *text, const char *part)
{
    if (strstr(text, part))
        fail_msg("\"%s\" is in:\n%s", part, text);
}

/* Of the table's line that begins with it: its number in this column (0: behind the name). */
static unsigned long cell(const char *text, const char *name, unsigned column)
{
    char head[64];
    unsigned long number = 0;

    (void)snprintf(head, sizeof(head), "\n%s ", name);
    const char *line = strstr(text, head);
    if (!line)
        fail_msg("no line of \"%s\" in:\n%s", name, text);
    line += strlen(head);
    for (unsigned i = 0; i <= column; i++)
        number = strtoul(line, (char **)&line, 10);
    return number;
}

static bool is_possible(void)
{
    const char *program = getenv("ACRE_TRACE");

    if (!program || access(program, X_OK) != 0) {
        printf("acre-trace was not built\n");
        return false;
    }
    const struct said *said = trace("latency -d 0.1");
    if (said->code != 0) {
        printf("%s", said->err);
        return false;
    }
    return true;
}

/* ---- the tests ---- */

static void a_planted_leak_is_found_by_name(void **state)
{
    (void)state;
    char first[64];
    const struct said *said = trace_job("leaks --every 1", "leak");

    (void)snprintf(first, sizeof(first), "%.1f KiB in %u blocks", LEAK_BYTES * N_ROUNDS / 1024.0,
                   N_ROUNDS);
    assert_ptr_equal(strstr(said->out, first), said->out); /* it leads */
    expect(said->out, "    planted_leak (test_trace.c:");
    expect_not(said->out, "tidy_site");
    expect_not(said->out, "tidy_calloc");
}

static void a_sample_of_allocations_finds_it_too(void **state)
{
    (void)state;
    const struct said *said = trace_job("leaks --every 4096", "leak");
    double kib = 0;

    if (sscanf(said->out, "about %lf KiB", &kib) != 1)
        fail_msg("no estimate in:\n%s", said->out);
    expect(said->out, "    planted_leak (");
    /* About 48 samples stand for 195 KiB: five standard deviations. */
    assert_true(kib > 195 * 0.25 && kib < 195 * 1.75);
}

static void what_another_process_frees_is_no_leak(void **state)
{
    (void)state;
    const struct said *said = trace_job("leaks --every 1", "hand-over");
    char last[80];

    (void)snprintf(last, sizeof(last), "%u blocks sampled, %u of them freed; ", N_ROUNDS, N_ROUNDS);
    assert_ptr_equal(strstr(said->out, last), said->out);
}

static void a_planted_hot_site_leads_the_growth(void **state)
{
    (void)state;
    const struct said *said = trace_job("growth", "grow");
    unsigned long long bytes = 0;
    const char *end = strchr(said->out, '\n');

    assert_non_null(end);
    const char *name = strstr(said->out, ";planted_growth;libacre.so");
    if (!name || name > end)
        fail_msg("planted_growth does not lead:\n%s", said->out);
    for (name = end; name[-1] != ' '; name--)
        ;
    assert_int_equal(sscanf(name, "%llu", &bytes), 1);
    assert_true(bytes >= 16 << 20 && bytes < 17 << 20);
    expect(said->out, ";small_growth;libacre.so");
    expect(said->err, "bytes granted to");
}

static void slow_paths_are_told_apart(void **state)
{
    (void)state;
    const struct said *said = trace_job("latency", "leak");

    assert_true(cell(said->out, "window", 0) > 0);
    assert_true(cell(said->out, "extent", 0) > 0);
    assert_true(cell(said->out, "daemon", 0) > 0);
    assert_true(cell(said->out, "  grow", 0) >= cell(said->out, "daemon", 0));
    expect_not(said->out, "\nwait ");

    said = trace_job("latency", "wait");
    assert_int_equal(cell(said->out, "wait", 0), 1);
    assert_int_equal(cell(said->out, "wait", 1), 1); /* in vain */
    assert_true(cell(said->out, "  ticket", 0) >= 1);
}

static void faults_are_counted_where_they_happen(void **state)
{
    (void)state;
    char arguments[256];

    (void)snprintf(arguments, sizeof(arguments), "faults --socket %s", d->socket);
    const struct said *said = trace_job(arguments, "fault");
    unsigned long n = 0;
    const char *line = strstr(said->out, "\ndefault ");
    if (!line || sscanf(line, "\ndefault %*u %*u %*s %lu", &n) != 1)
        fail_msg("no line of the tenant in:\n%s", said->out);
    /* Each page once, and the tables'. */
    assert_true(n >= N_PAGES && n < N_PAGES + 64);
}

static void a_death_is_told_with_tenant_and_cause(void **state)
{
    (void)state;
    char arguments[256];

    (void)snprintf(arguments, sizeof(arguments), "deaths --socket %s", d->socket);
    const struct said *said = trace_job(arguments, "be-killed");
    expect(said->out, " killed by KILL: client ");
    expect(said->out, " of tenant default, granted 5.");
    expect(said->out, "\n1 clients ended, ");
}

static void refusals_are_one_sentence(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"latency -p 4194305", "process 4194305: there is none"},
        {"latency -p 0", "--pid 0: a whole number from 1"},
        {"latency -d -1", "--duration -1: seconds are wanted"},
        {"sideways", "sideways: no such command"},
        {"", "which of latency"},
        {"growth --library /bin/true", "/bin/true: no program or library with libacre's probes"},
        {"leaks -- ./no/such/program", "./no/such/program: no such program"},
        {"leaks -p 1 -- /bin/true", "either --pid or a command"},
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const struct said *said = trace(wrong[i][0]);
        assert_int_equal(said->code, 2);
        expect(said->err, wrong[i][1]);
        assert_string_equal(said->out, "");
    }
}

static void who_may_not_is_told_what_is_missing(void **state)
{
    (void)state;
    char command[8192], err[128], text[OUTPUT_BYTES];

    (void)snprintf(err, sizeof(err), "/tmp/acre-traced-%d.err", (int)getpid());
    (void)snprintf(command, sizeof(command),
                   "cp '%s' /tmp/acre-trace-%d && setpriv --reuid 65534 --clear-groups "
                   "/tmp/acre-trace-%d deaths -d 1 2>%s; e=$?; rm -f /tmp/acre-trace-%d; exit $e",
                   getenv("ACRE_TRACE"), (int)getpid(), (int)getpid(), err, (int)getpid());
    int status = system(command);
    read_file(err, text);
    unlink(err);
    assert_int_equal(WEXITSTATUS(status), 3);
    expect(text, "this takes CAP_BPF and CAP_PERFMON");
    expect(text, "acrectl");
}

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof(jobs) / sizeof(jobs[0]); i++)
        if (strcmp(argv[1], jobs[i].name) == 0)
            return jobs[i].run();
    if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0 || !is_possible())
        return SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_planted_leak_is_found_by_name),
        cmocka_unit_test(a_sample_of_allocations_finds_it_too),
        cmocka_unit_test(what_another_process_frees_is_no_leak),
        cmocka_unit_test(a_planted_hot_site_leads_the_growth),
        cmocka_unit_test(slow_paths_are_told_apart),
        cmocka_unit_test(faults_are_counted_where_they_happen),
        cmocka_unit_test(a_death_is_told_with_tenant_and_cause),
        cmocka_unit_test(refusals_are_one_sentence),
        cmocka_unit_test(who_may_not_is_told_what_is_missing),
    };
    return run_beside_daemon(tests, "tenant default { max = \"64M\" }\n");
}
