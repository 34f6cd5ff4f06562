/* SPDX-License-Identifier: Apache-2.0 */
/* workload.h - what can be measured. One file for each group: work_X.c. */
#ifndef BENCH_WORKLOAD_H
#define BENCH_WORKLOAD_H

#include "measure.h"

#define CASES_MAX 20

struct workload {
    const char *name, *about;
    const char *cases[CASES_MAX + 1]; /* each is measured by processes of its own */
    unsigned peers;                   /* PEER_BIT()s of those that can do it, besides Acre */
    bool fresh_daemon;  /* each of Acre's processes meets a daemon that has served nobody */
    bool pinned_daemon; /* which has the second processor for itself */
    bool huge_pages;    /* the tenant of that daemon has shared huge pages */
    bool ready;         /* and memory kept ready */
    unsigned runs_max;  /* 0: as many as are asked for */
    /* In the child; reports one figure or more. */
    void (*run)(const struct child *child, unsigned case_idx);
};

extern const struct workload *const workloads[]; /* NULL at the end */

const struct workload *workload_by_name(const char *name);

extern const struct workload work_pair, work_batch, work_handoff, work_churn, work_churn_huge,
    work_larson, work_xmalloc, work_sh6, work_sh8, work_tail, work_page, work_page_huge, work_fresh,
    work_fresh_huge, work_grow, work_space, work_space_big, work_flat, work_crowd,
    work_soft, work_real;

#endif
