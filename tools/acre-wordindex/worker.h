/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.h - one process's part of the job: it counts the words between two positions of the text,
 * or goes on where a killed process has stopped.
 */
#ifndef WORDINDEX_WORKER_H
#define WORDINDEX_WORKER_H

#include <acre.h>

#include <stdint.h>

#include "job.h"
#include "kill.h"
#include "text.h"

/* To be called once, in a process of its own, which then exits with what it returns. */
int worker_run(struct acre_heap *heap, acre_off job_off, uint32_t part_idx, const struct text *text,
               struct kill_plan plan);

#endif
