/* SPDX-License-Identifier: Apache-2.0 */
/*
 * drive.h - one core of the daemon, driven by hand: its clock, its jobs, and what peers do. Jobs run
 * when it is said, or at the end of each call here.
 */
#ifndef ACRE_TESTS_DRIVE_H
#define ACRE_TESTS_DRIVE_H

#include "tests/unit/fake_core.h"

#define SECOND         1000000000ull
#define WORLD_JOBS_MAX 4096u

extern struct world {
    struct core core;
    struct tenant *tenant; /* what most of a test is about: the test's */
    uint64_t now_ns;
    struct job *jobs[WORLD_JOBS_MAX];
    unsigned n_jobs, n_submitted;
    bool shuffle; /* jobs run in any order, by rand() */
    int keep_error;
    char keep_fails;      /* the first letter of those that fail alone */
    unsigned n_kept['z']; /* by first letter */
} w;

/* All anew, without tenants. */
void start_core(uint64_t capacity_bytes);
/* Asserts that all is in order. */
void finish(void);

void run_one_job(unsigned i);
void run_jobs(void);
void pass(uint64_t ns);

/* The reply's error; 1: it waits, or was told to go. Takes fd. */
int ask_with(struct fake *f, struct msg_request *req, int fd);
int ask(struct fake *f, struct msg_request req);
void connect_as(struct fake *f, uid_t uid);
/* With the page that it has. */
int attach_page_to(struct fake *f, const char *tenant);
void attach_to(struct fake *f, const char *tenant);
void hang_up(struct fake *f);
void kill_it(struct fake *f);

#endif
