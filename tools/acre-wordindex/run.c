/* SPDX-License-Identifier: Apache-2.0 */
#include "run.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "say.h"
#include "worker.h"

#define RESTARTS_MAX      16u /* of one part: what crashes as often is a bug, not an accident */
#define KILL_POINTS_AHEAD 16u /* an update that makes an entry has about as many */
#define NEVER             UINT64_MAX
#define PACE_NS           50000000 /* of the progress line */

struct child {
    pid_t pid; /* 0: its part is done */
    unsigned restarts;
};

struct run {
    struct acre_heap *heap;
    const struct text *text;
    const struct run_options *options;
    struct job *job;
    acre_off job_off;
    struct child children[WORKERS_MAX];
    unsigned n_running;
    unsigned victim;   /* WORKERS_MAX: nobody */
    uint64_t shoot_at; /* the parent kills the victim when it is here */
    bool on_terminal;
};

/* ---- the job ---- */

/* All that is made here belongs to this process and ends with it, however it ends. */
static int job_new(struct run *run)
{
    unsigned n_parts = run->options->n_workers;
    size_t n_bytes = sizeof(struct job) + n_parts * sizeof(struct part);
    struct job *job = acre_allocx(run->heap, n_bytes, alignof(struct job), ACRE_ZERO);
    if (!job)
        return -errno;
    job->magic = JOB_MAGIC;
    job->n_parts = n_parts;
    job->keeper = acre_self(run->heap);
    for (unsigned i = 0; i < n_parts; i++) {
        struct part *part = &job->parts[i];
        part->begin = text_cut(run->text, run->text->n_bytes * i / n_parts);
        part->end = text_cut(run->text, run->text->n_bytes * (i + 1) / n_parts);
        part->line[0].position = part->begin;
    }
    run->job = job;
    run->job_off = acre_offset(run->heap, job);
    struct map map = job_map(run->heap, job);
    return map_init(&map);
}

/* ---- who dies when ---- */

static uint64_t random_next(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* A part that has text, if there is one. */
static unsigned pick_victim(const struct job *job, uint64_t *random)
{
    unsigned first = (unsigned)(random_next(random) % job->n_parts);
    for (unsigned i = 0; i < job->n_parts; i++) {
        unsigned victim = (first + i) % job->n_parts;
        if (job->parts[victim].begin < job->parts[victim].end)
            return victim;
    }
    return first;
}

/* Half of the time by itself at some step near a random position, half of the time by the
 * parent. */
static struct kill_plan plan_victim(struct run *run, uint64_t *random)
{
    run->victim = pick_victim(run->job, random);
    const struct part *part = &run->job->parts[run->victim];
    uint64_t n_bytes = part->end - part->begin;
    uint64_t from = part->begin + (n_bytes ? random_next(random) % n_bytes : 0);
    uint64_t n_steps = 1 + random_next(random) % KILL_POINTS_AHEAD;
    if (random_next(random) % 2)
        return (struct kill_plan){.countdown = n_steps, .from = from, .must = true};
    run->shoot_at = from;
    return (struct kill_plan){.linger = true};
}

/* What --kill-at says of the part's next worker. */
static struct kill_plan plan_next(const struct run *run, unsigned i)
{
    unsigned restarts = run->children[i].restarts;
    uint64_t kill_at =
        i == 0 && restarts < run->options->n_kills ? run->options->kill_at[restarts] : 0;
    return (struct kill_plan){.countdown = kill_at};
}

/* ---- workers ---- */

static int start_worker(struct run *run, unsigned i, struct kill_plan plan)
{
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        return complain("cannot start a worker: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* the index ends with the parent: so do we */
        if (getppid() != parent)
            _exit(EXIT_FINDING);
        _exit(worker_run(run->heap, run->job_off, i, run->text, plan));
    }
    run->children[i].pid = pid;
    run->n_running++;
    return EXIT_WELL;
}

static int start_workers(struct run *run)
{
    uint64_t random = run->options->seed;
    struct kill_plan plan = {0};
    if (run->options->kill_one)
        plan = plan_victim(run, &random);
    int code = EXIT_WELL;
    for (unsigned i = 0; i < run->job->n_parts && !code; i++)
        code = start_worker(run, i, i == run->victim ? plan : plan_next(run, i));
    return code;
}

static unsigned percent(uint64_t done, uint64_t all)
{
    return all ? (unsigned)(done * 100 / all) : 100;
}

static void clear_line(const struct run *run)
{
    if (run->on_terminal)
        fputs("\r\033[K", stderr);
}

/* Another process goes on with a dead one's part. */
static int replace_worker(struct run *run, unsigned i, int signal_no)
{
    struct child *child = &run->children[i];
    struct part *part = &run->job->parts[i];
    unsigned done = percent(part_position(part) - part->begin, part->end - part->begin);
    const char *where = kill_point_text(atomic_exchange(&part->killed_at, POINT_NONE));
    if (child->restarts++ == RESTARTS_MAX)
        return complain("part %u has lost %u workers, the last by signal %d: giving up", i,
                        child->restarts, signal_no);
    int code = start_worker(run, i, plan_next(run, i));
    if (code)
        return code;
    clear_line(run);
    fprintf(stderr, "worker %u killed by signal %d %s at %u %% of its part, taken over by pid %d\n",
            i, signal_no, where, done, (int)child->pid);
    return EXIT_WELL;
}

static int worker_ended(struct run *run, pid_t pid, int status)
{
    for (unsigned i = 0; i < run->job->n_parts; i++) {
        if (run->children[i].pid != pid)
            continue;
        run->children[i].pid = 0;
        run->n_running--;
        return WIFSIGNALED(status) ? replace_worker(run, i, WTERMSIG(status)) : WEXITSTATUS(status);
    }
    return EXIT_WELL; /* none of ours: a child that was there before exec */
}

static int reap(struct run *run)
{
    int status, code = EXIT_WELL;
    pid_t pid;
    while (!code && (pid = waitpid(-1, &status, WNOHANG)) > 0)
        code = worker_ended(run, pid, status);
    return code;
}

/* Kills the victim when it is due. True while it is not. */
static bool shoot(struct run *run)
{
    if (run->shoot_at == NEVER)
        return false;
    if (part_position(&run->job->parts[run->victim]) < run->shoot_at)
        return true;
    run->shoot_at = NEVER;
    if (run->children[run->victim].pid) /* else somebody else was faster */
        kill(run->children[run->victim].pid, SIGKILL);
    return false;
}

static void show_progress(const struct run *run)
{
    if (!run->on_terminal)
        return;
    uint64_t done = 0;
    for (unsigned i = 0; i < run->job->n_parts; i++)
        done += part_position(&run->job->parts[i]) - run->job->parts[i].begin;
    fprintf(stderr, "\r%3u %% of %.1f MB", percent(done, run->text->n_bytes),
            (double)run->text->n_bytes / 1e6);
}

static void stop_workers(struct run *run)
{
    for (unsigned i = 0; i < run->job->n_parts; i++) {
        if (run->children[i].pid == 0)
            continue;
        kill(run->children[i].pid, SIGKILL);
        waitpid(run->children[i].pid, NULL, 0);
    }
}

/* Until all parts are done. SIGCHLD is blocked: a worker's end ends the nap. */
static int watch_workers(struct run *run, const sigset_t *child_signal)
{
    int code = start_workers(run);
    while (!code && run->n_running > 0) {
        struct timespec nap = {0, shoot(run) ? 0 : PACE_NS}; /* a killer does not sleep */
        show_progress(run);
        sigtimedwait(child_signal, NULL, &nap);
        code = reap(run);
    }
    clear_line(run);
    stop_workers(run); /* after a failure: else there are none */
    if (!code && run->children[0].restarts < run->options->n_kills)
        fprintf(stderr, "worker 0 has done its part in fewer steps than it was to die at\n");
    return code;
}

int run_count(struct acre_heap *heap, const struct text *text, const struct run_options *options,
              struct job **ret_job)
{
    assert(options->n_workers >= 1 && options->n_workers <= WORKERS_MAX);
    struct run run = {
        .heap = heap, .text = text, .options = options, .victim = WORKERS_MAX, .shoot_at = NEVER};
    run.on_terminal = isatty(STDERR_FILENO);
    int r = job_new(&run);
    if (r)
        return complain_acre(r, "cannot begin");
    sigset_t child_signal, before;
    sigemptyset(&child_signal);
    sigaddset(&child_signal, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child_signal, &before);
    int code = watch_workers(&run, &child_signal);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (!code)
        *ret_job = run.job;
    return code;
}
