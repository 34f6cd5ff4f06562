/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/system/harness.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

bool harness_listens(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    bool yes = connect(sock, (struct sockaddr *)&a, sizeof(a)) == 0;
    close(sock);
    return yes;
}

static const char *program(const char *variable)
{
    const char *path = getenv(variable);

    if (!path)
        fail_msg("$%s is not set: run by ctest", variable);
    return path;
}

static void write_config(struct daemon *on, const char *text)
{
    snprintf(on->config, sizeof(on->config), "%s/acre.conf", on->dir);
    FILE *f = fopen(on->config, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* cmocka forgets what fails in the teardown of a group: a daemon that has not come down well makes
 * the whole program fail. */
static unsigned n_up;
static pid_t up_pid;

static void judge_daemons(void)
{
    if (n_up > 0 && getpid() == up_pid) {
        fprintf(stderr, "%u daemons did not come down as they should\n", n_up);
        _exit(1);
    }
}

void daemon_up(struct daemon *on, const char *config)
{
    const char *path = program("ACRE_DAEMON");

    if (up_pid != getpid())
        assert_int_equal(atexit(judge_daemons), 0);
    up_pid = getpid();
    n_up++;
    memset(on, 0, sizeof(*on));
    strcpy(on->dir, "/tmp/acre-test-XXXXXX");
    assert_non_null(mkdtemp(on->dir));
    snprintf(on->socket, sizeof(on->socket), "%s/acred.sock", on->dir);
    if (config)
        write_config(on, config);
    on->pid = fork();
    if (on->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (config)
            execl(path, "acred", "--socket", on->socket, "--config", on->config, (char *)NULL);
        else
            execl(path, "acred", "--socket", on->socket, (char *)NULL);
        _exit(127);
    }
    for (unsigned i = 0; i < 2000 && !harness_listens(on->socket); i++) {
        if (waitpid(on->pid, NULL, WNOHANG) != 0)
            fail_msg("%s ended before it listened", path);
        pause_us(10000);
    }
    assert_true(harness_listens(on->socket));
}

void expect_checked(const struct daemon *on)
{
    char command[256], said[4096];

    snprintf(command, sizeof(command), "%s check --socket %s 2>&1", program("ACRECTL"), on->socket);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(said, 1, sizeof(said) - 1, f);
    said[n] = 0;
    while (fgetc(f) != EOF) /* so that it does not end by a broken pipe */
        ;
    if (pclose(f) != 0)
        fail_msg("acrectl check:\n%s", said);
}

void daemon_down(struct daemon *on)
{
    int status;

    if (!on->is_scribbled)
        expect_checked(on);
    assert_int_equal(kill(on->pid, SIGTERM), 0);
    assert_int_equal(waitpid(on->pid, &status, 0), on->pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("acred ended with status 0x%x", status);
    assert_int_not_equal(access(on->socket, F_OK), 0);
    daemon_remove(on);
}

void daemon_remove(struct daemon *on)
{
    unlink(on->socket);
    if (on->config[0])
        unlink(on->config);
    assert_int_equal(rmdir(on->dir), 0);
    n_up--;
}

void pause_us(uint64_t us)
{
    nanosleep(&(struct timespec){.tv_nsec = (long)us * 1000}, NULL);
}

struct daemon the_daemon;
const char *harness_config;

int harness_up(void **state)
{
    (void)state;
    daemon_up(&the_daemon, harness_config);
    return 0;
}

int harness_down(void **state)
{
    (void)state;
    daemon_down(&the_daemon);
    return 0;
}

pid_t daemon_worker(const struct daemon *on)
{
    char path[64];
    int worker = 0;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)on->pid, (int)on->pid);
    for (unsigned tries = 0; tries < 1000 && worker == 0; tries++) {
        FILE *f = fopen(path, "r");
        if (f && fscanf(f, "%d", &worker) != 1)
            pause_us(5000);
        if (f)
            fclose(f);
    }
    assert_int_not_equal(worker, 0);
    return worker;
}

unsigned pid_fds(pid_t pid)
{
    char path[64];
    unsigned n = 0;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

long pid_status(pid_t pid, const char *key)
{
    char path[48], line[256];
    long value = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof(line), f))
        if (strncmp(line, key, strlen(key)) == 0)
            value = strtol(line + strlen(key) + 1, NULL, 10);
    if (f)
        fclose(f);
    return value;
}

unsigned daemon_fds(const struct daemon *on)
{
    return pid_fds(daemon_worker(on));
}

unsigned daemon_maps(const struct daemon *on)
{
    char path[64], line[512];
    unsigned n = 0;

    snprintf(path, sizeof(path), "/proc/%d/maps", (int)daemon_worker(on));
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        n += strstr(line, "memfd:") != NULL; /* shared ones: the heap of malloc comes and goes */
    fclose(f);
    return n;
}

static long long json_int(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    if (!json_is_integer(v))
        fail_msg("acrectl stats --json: %s is missing", key);
    return json_integer_value(v);
}

json_t *acrectl_json(const struct daemon *on, const char *what)
{
    char command[256];
    json_error_t error;

    snprintf(command, sizeof(command), "%s %s --json --socket %s", program("ACRECTL"), what,
             on->socket);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    json_t *root = json_loadf(f, 0, &error);
    if (pclose(f) != 0 || !root)
        fail_msg("%s failed: %s", command, error.text);
    return root;
}

struct tenant_stats tenant_stats(const struct daemon *on, const char *tenant)
{
    struct tenant_stats s = {0};
    char command[96]; /* of the others, one may be scribbled over */
    snprintf(command, sizeof(command), "stats --tenant %s", tenant);
    json_t *root = acrectl_json(on, command), *t;
    size_t i;
    bool found = false;

    json_array_foreach(json_object_get(root, "tenants"), i, t)
    {
        if (strcmp(json_string_value(json_object_get(t, "name")), tenant) != 0)
            continue;
        found = true;
        s.max_bytes = json_int(t, "max_bytes");
        s.granted_bytes = json_int(t, "granted_bytes");
        s.resident_bytes = json_int(t, "resident_bytes");
        s.live_bytes = json_int(t, "live_bytes");
        s.live_blocks = json_int(t, "live_blocks");
        s.published_bytes = json_int(t, "published_bytes");
        s.n_clients = (unsigned)json_array_size(json_object_get(t, "clients"));
    }
    json_decref(root);
    if (!found)
        fail_msg("acrectl stats --json has no tenant %s", tenant);
    return s;
}

void expect_settled(const struct daemon *on, const char *tenant, long long live_bytes,
                    unsigned n_clients)
{
    struct tenant_stats s;

    for (unsigned i = 0; i < 400; i++) {
        s = tenant_stats(on, tenant);
        if (s.live_bytes == live_bytes && s.n_clients == n_clients)
            return;
        pause_us(50000);
    }
    fail_msg("tenant %s: %lld live bytes and %u clients, expected %lld and %u", tenant,
             s.live_bytes, s.n_clients, live_bytes, n_clients);
}

pid_t child_start(bool (*fn)(void *arg), void *arg)
{
    const char *seconds = getenv("ACRE_TEST_CHILD_SECONDS");

    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGABRT, SIG_DFL); /* cmocka's handlers belong to the parent */
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    signal(SIGILL, SIG_DFL);
    alarm(seconds ? (unsigned)atoi(seconds) : 100);
    bool ok = fn(arg);
    fflush(NULL);
    _exit(ok ? 0 : 1);
}

bool child_ok(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status))
        fprintf(stderr, "child %d ended by signal %d\n", (int)pid, WTERMSIG(status));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int child_signal(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

void *shared_page(size_t bytes)
{
    assert_true(bytes <= 65536);
    void *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    return p;
}

struct acre_heap *heap_open(const struct daemon *on, const char *tenant)
{
    return heap_open_at(on->socket, tenant);
}

struct acre_heap *heap_open_at(const char *socket, const char *tenant)
{
    struct acre_heap *heap = NULL;
    int r = acre_open(&heap, socket, tenant);

    if (r < 0)
        fail_msg("acre_open: %d: %s", r, acre_last_error());
    return heap;
}

void pattern_fill(void *block, size_t bytes, uint64_t key)
{
    uint64_t *word = block;

    for (size_t i = 0; i < bytes / sizeof(*word); i++)
        word[i] = key + i * PATTERN;
}

bool pattern_is_whole(const void *block, size_t bytes)
{
    const uint64_t *word = block;

    for (size_t i = 1; i < bytes / sizeof(*word); i++)
        if (word[i] != word[0] + i * PATTERN)
            return false;
    return true;
}

uint64_t test_seed(uint64_t fallback)
{
    const char *env = getenv("ACRE_TEST_SEED");
    uint64_t seed = env ? strtoull(env, NULL, 0) : fallback;

    printf("seed %llu (ACRE_TEST_SEED repeats it)\n", (unsigned long long)seed);
    return seed ? seed : 1;
}
