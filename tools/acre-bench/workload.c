/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

#include <string.h>

const struct workload *const workloads[] = {
    &work_pair,       &work_batch, &work_handoff, &work_churn, &work_churn_huge,     &work_larson,    &work_xmalloc,
    &work_sh6,        &work_sh8,   &work_tail,    &work_page,      &work_page_huge, &work_fresh,
    &work_fresh_huge, &work_grow,  &work_space,   &work_space_big, &work_flat, &work_crowd, &work_soft,
#ifdef BENCH_REAL
    &work_real,
#endif
    NULL};

const struct workload *workload_by_name(const char *name)
{
    for (unsigned i = 0; workloads[i]; i++)
        if (strcmp(workloads[i]->name, name) == 0)
            return workloads[i];
    return NULL;
}
