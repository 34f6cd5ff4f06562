/* SPDX-License-Identifier: Apache-2.0 */
/* session.h - one run of acre-trace: whom it looks at, and until when. */
#ifndef ACRE_TRACE_SESSION_H
#define ACRE_TRACE_SESSION_H

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdio.h>
#include <sys/types.h>

#include "objects.h"
#include "stacks.h"

#define LINKS_MAX (8u * OBJECTS_MAX)

struct session {
    /* as asked for */
    pid_t pid;        /* 0: everybody; the command's, if there is one */
    char **command;   /* NULL: none */
    double seconds;   /* 0: until interrupted, or the command's end */
    const char *file; /* of the library; NULL: what is found */
    const char *socket;
    uint64_t every_bytes;
    unsigned n_top;
    /* as it is */
    pid_t child; /* the command, until it has ended: waits for session_start() */
    unsigned n_ticks;
    int child_gate; /* closed: it goes */
    int child_status;
    struct objects objects;
    size_t n_links;
    struct bpf_link *links[LINKS_MAX];
    struct stacks *stacks;
    uint64_t begin_ns, end_ns;
};

/* All of these say on stderr what is wrong, and return an exit code then; 0 is well. */
int session_init(struct session *s);
void session_deinit(struct session *s);

/* A skeleton's open or load has failed with this errno. */
int session_not_loaded(int error);

/* Finds the files that libacre's code is in; before the next two. */
int session_find(struct session *s);
/* A USDT probe of libacre. */
int session_usdt(struct session *s, struct bpf_program *program, const char *probe);
/* A public function of libacre: before it does anything, or when it returns; in those processes that
 * are looked at, or in everybody's. */
int session_function(struct session *s, struct bpf_program *program, const char *function,
                     bool returns, bool everybody);
/* Keeps the link; NULL: errno says why there is none. */
int session_link(struct session *s, struct bpf_link *link);

/* Everything is attached: gives up privileges, and lets the command go. */
void session_start(struct session *s);
/* Waits a tick; false: it is over. */
bool session_goes_on(struct session *s);
double session_seconds(const struct session *s);
/* "12.0 s, process 17" */
void session_say_scope(const struct session *s, FILE *to);

/* ---- the commands ---- */
int latency_run(struct session *s);
int growth_run(struct session *s);
int leaks_run(struct session *s);
int faults_run(struct session *s);
int deaths_run(struct session *s);

#define TICK_MS 100

enum exit_code { EXIT_WELL = 0, EXIT_FINDING = 1, EXIT_USAGE = 2, EXIT_REFUSED = 3 };

#endif
