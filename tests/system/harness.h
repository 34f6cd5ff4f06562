/* SPDX-License-Identifier: Apache-2.0 */
/* harness.h - a real daemon on a temporary socket, child processes with a verdict, and what acrectl
 * says about it. */
#ifndef ACRE_TESTS_HARNESS_H
#define ACRE_TESTS_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <unistd.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <cmocka.h>

#include <acre.h>

#include "tests/random.h"

struct daemon {
    pid_t pid;
    char dir[64], socket[96], config[96];
    bool is_scribbled; /* the test has damaged a heap: daemon_down() is not to find fault with it */
};

/* Starts $ACRE_DAEMON with this configuration text (NULL: none) and waits until it listens. */
void daemon_up(struct daemon *on, const char *config);
/* Its heaps must agree with its books. Then SIGTERM; it must exit with 0 and leave no socket
 * behind. */
void daemon_down(struct daemon *on);
/* The files of one that has ended in another way. */
void daemon_remove(struct daemon *on);

/* Fails the test with what acrectl check says, unless that is nothing. */
void expect_checked(const struct daemon *on);

/* Does somebody listen at this path? */
bool harness_listens(const char *path);

/* The process that serves: the child of the one that was started. Waits until it is there. */
pid_t daemon_worker(const struct daemon *on);
/* What the worker has open and mapped (entries of /proc/PID/fd and lines of maps). */
unsigned daemon_fds(const struct daemon *on);
unsigned daemon_maps(const struct daemon *on);
/* Of any process: entries of /proc/PID/fd; the number behind a key in status, 0 without one. */
unsigned pid_fds(pid_t pid);
long pid_status(pid_t pid, const char *key);

/* The daemon of a file's tests: of all, or of each that has harness_up and harness_down around
 * it. */
extern struct daemon the_daemon;
extern const char *harness_config; /* NULL: none */
int harness_up(void **state);
int harness_down(void **state);
#define run_beside_daemon(tests, config)                                                           \
    (harness_config = (config), cmocka_run_group_tests(tests, harness_up, harness_down))

/* What `acrectl WHAT --json` prints, a json_t; fails the test if that fails. */
struct json_t *acrectl_json(const struct daemon *on, const char *what);

/* Less than a second. */
void pause_us(uint64_t us);

struct tenant_stats {
    long long max_bytes, granted_bytes, resident_bytes, live_bytes, live_blocks, published_bytes;
    unsigned n_clients;
};
/* From acrectl stats --json; fails the test if that fails. */
struct tenant_stats tenant_stats(const struct daemon *on, const char *tenant);
/* Polls until live bytes and clients are as expected; fails the test after 20 s with both
 * figures. */
void expect_settled(const struct daemon *on, const char *tenant, long long live_bytes,
                    unsigned n_clients);

/* Runs fn in a forked child that must return true. Children are killed by SIGALRM after
 * $ACRE_TEST_CHILD_SECONDS, or 100 s: emulated machines are slow. */
pid_t child_start(bool (*fn)(void *arg), void *arg);
/* Waits; true if the child returned true. */
bool child_ok(pid_t pid);
/* Waits; the signal that ended it, 0 if none. */
int child_signal(pid_t pid);
#define RUN_CHILD(fn, arg) assert_true(child_ok(child_start(fn, arg)))

/* In children, where cmocka's asserts do not reach: says what failed and where, and returns
 * false. */
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: failed: %s (errno %d %s; acre: %s)\n", __FILE__, __LINE__,     \
                    #cond, errno, strerror(errno), acre_last_error());                             \
            return false;                                                                          \
        }                                                                                          \
    } while (0)

/* Zeroed memory shared with children, for verdicts; never freed. At most 64 KiB. */
void *shared_page(size_t bytes);

/* Opens or fails the test. */
struct acre_heap *heap_open(const struct daemon *on, const char *tenant);
struct acre_heap *heap_open_at(const char *socket, const char *tenant);

/* Words counting up from a key; whoever reads finds out by the first word alone. */
void pattern_fill(void *block, size_t bytes, uint64_t key);
bool pattern_is_whole(const void *block, size_t bytes);
#define PATTERN 0x9e3779b97f4a7c15ull

/* $ACRE_TEST_SEED, else the default; printed so that a failure can be repeated. */
uint64_t test_seed(uint64_t fallback);

#endif
