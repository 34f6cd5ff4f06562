/* SPDX-License-Identifier: Apache-2.0 */
/* table.h - the result for people, and for machines. */
#ifndef BENCH_TABLE_H
#define BENCH_TABLE_H

#include "run.h"

void table_print(const struct bench *bench);

/* One JSON object; false if there is no memory for it. */
bool json_print(const struct bench *bench);

#endif
