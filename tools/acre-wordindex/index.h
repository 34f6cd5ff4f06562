/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index.h - the finished index: printing it, keeping it under a name, finding it again, freeing it.
 * The functions say what goes wrong on stderr and return an exit code.
 */
#ifndef WORDINDEX_INDEX_H
#define WORDINDEX_INDEX_H

#include <acre.h>

#include <stdint.h>

#include "job.h"

int index_print(struct acre_heap *heap, struct job *job, uint64_t n_top);

/* Makes the caller's index outlive the caller. */
int index_keep(struct acre_heap *heap, struct job *job, const char *name);

int index_show(struct acre_heap *heap, const char *name, uint64_t n_top);
int index_drop(struct acre_heap *heap, const char *name);

#endif
