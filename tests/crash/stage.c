/* SPDX-License-Identifier: Apache-2.0 */
/* stage.c - see stage.h. */
#include "tests/crash/stage.h"

#include <sys/prctl.h>

struct stage *stage;

void stage_track(acre_off off, size_t bytes, enum whose before, enum whose after)
{
    assert_true(stage->n_tracked < STAGE_TRACKED_MAX && off != 0);
    stage->tracked[stage->n_tracked++] = (struct tracked){off, (uint32_t)bytes, before, after};
}

static void grow_up(void (*victim)(void))
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    signal(SIGCHLD, SIG_DFL);
    alarm(60);
    victim();
    _exit(0);
}

/* Its children are waited for by who traces them, or by nobody. */
static void nurse(int from, int to, void (*victim)(void))
{
    char c;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGCHLD, SIG_IGN);
    while (read(from, &c, 1) == 1) {
        pid_t pid = fork();
        if (pid == 0)
            grow_up(victim);
        pid = pid < 0 ? 0 : pid;
        if (write(to, &pid, sizeof(pid)) != sizeof(pid))
            break;
    }
    _exit(0);
}

void nursery_start(struct nursery *n, void (*victim)(void))
{
    int to[2], from[2];

    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    fflush(NULL);
    n->pid = fork();
    assert_true(n->pid >= 0);
    if (n->pid == 0) {
        close(to[1]);
        close(from[0]);
        nurse(to[0], from[1], victim);
    }
    close(to[0]);
    close(from[1]);
    n->to = to[1];
    n->from = from[0];
}

pid_t nursery_fork(struct nursery *n)
{
    pid_t pid = 0;

    if (write(n->to, "", 1) != 1 || read(n->from, &pid, sizeof(pid)) != sizeof(pid))
        return 0;
    return pid;
}

void nursery_stop(struct nursery *n)
{
    close(n->to);
    close(n->from);
    waitpid(n->pid, NULL, 0);
}
