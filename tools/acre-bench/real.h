/* SPDX-License-Identifier: Apache-2.0 */
/* real.h - two libraries at work, on a heap by their adapters or as they are on malloc. */
#ifndef BENCH_REAL_H
#define BENCH_REAL_H

#include "mem.h"

/* Each makes a state or database of its own, works, checks what came out, and closes it. The work
 * grows with scale; 0.1 s for 10. */
void real_lua(struct mem mem, unsigned scale);
void real_sqlite(struct mem mem, unsigned scale);

#endif
