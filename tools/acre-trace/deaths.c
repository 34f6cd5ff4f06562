/* SPDX-License-Identifier: Apache-2.0 */
/* deaths.c - acre-trace deaths: each client that ends, how, and what it had then. */
#include <inttypes.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "deaths.skel.h"
#include "session.h"
#include "tools/look/table.h"
#include "who.h"

#define LOOK_TICKS 10u /* a client that came and went in between is not known */

struct deaths {
    struct session *session;
    struct who who;
    uint64_t n;
};

static void say_how(int status)
{
    if (WIFSIGNALED(status))
        printf("killed by %s",
               sigabbrev_np(WTERMSIG(status)) ? sigabbrev_np(WTERMSIG(status)) : "?");
    else
        printf("exit %d", WEXITSTATUS(status));
    if (WIFSIGNALED(status) && WCOREDUMP(status))
        printf(" (core dumped)");
}

/* Wall clock, as logs have it. */
static void say_when(uint64_t at_ns)
{
    struct timespec wall, mono;
    struct tm tm;
    char text[16];

    (void)clock_gettime(CLOCK_REALTIME, &wall);
    (void)clock_gettime(CLOCK_MONOTONIC, &mono);
    int64_t ns = (int64_t)wall.tv_sec * 1000000000 + wall.tv_nsec -
                 ((int64_t)mono.tv_sec * 1000000000 + mono.tv_nsec) + (int64_t)at_ns;
    time_t s = (time_t)(ns / 1000000000);
    (void)strftime(text, sizeof(text), "%H:%M:%S", localtime_r(&s, &tm));
    printf("%s.%03d", text, (int)(ns / 1000000 % 1000));
}

static int heard(void *ctx, void *data, size_t n)
{
    struct deaths *d = ctx;
    const struct death_event *e = data;
    char comm[2 * TRACE_COMM], tenant[TENANT_NAME_BYTES], bytes[24];

    if (n < sizeof(*e) || (d->session->pid != 0 && e->pid != (uint32_t)d->session->pid))
        return 0;
    for (struct who_client *c = NULL; (c = who_next(&d->who, e->pid, c));) {
        say_when(e->at_ns);
        printf("  %s (%" PRIu32 ") ", table_printable(comm, sizeof(comm), e->comm), e->pid);
        say_how((int)e->exit_code);
        printf(": client %" PRIu32 " of tenant %s, granted %s\n", c->id,
               table_printable(tenant, sizeof(tenant), c->tenant),
               table_bytes(bytes, c->granted_bytes));
        d->n++;
    }
    fflush(stdout);
    who_forget(&d->who, e->pid);
    return 0;
}

static int watch(struct deaths *d, struct deaths_bpf *bpf)
{
    struct session *s = d->session;
    struct ring_buffer *ring = ring_buffer__new(bpf_map__fd(bpf->maps.events), heard, d, NULL);
    int code = ring ? session_link(s, bpf_program__attach(bpf->progs.process_exit))
                    : session_not_loaded(errno);

    if (code == EXIT_WELL)
        session_start(s);
    for (unsigned tick = 1; code == EXIT_WELL && session_goes_on(s); tick++) {
        (void)ring_buffer__consume(ring);
        if (tick % LOOK_TICKS == 0)
            (void)who_look(&d->who);
    }
    if (code == EXIT_WELL) {
        (void)ring_buffer__consume(ring);
        printf("%" PRIu64 " clients ended, ", d->n);
        session_say_scope(s, stdout);
        if (bpf->bss->n_lost > 0)
            fprintf(stderr, "acre-trace: %" PRIu64 " ends came too fast and are missing\n",
                    (uint64_t)bpf->bss->n_lost);
    }
    ring_buffer__free(ring);
    return code;
}

int deaths_run(struct session *s)
{
    struct deaths d = {.session = s};
    struct deaths_bpf *bpf = deaths_bpf__open_and_load();

    if (!bpf)
        return session_not_loaded(errno);
    int code = EXIT_REFUSED;
    if (who_init(&d.who, s->socket) < 0)
        fprintf(stderr, "acre-trace: %s: nobody can say who is a client\n", d.who.peer.why);
    else
        code = watch(&d, bpf);
    who_deinit(&d.who);
    deaths_bpf__destroy(bpf);
    return code;
}
