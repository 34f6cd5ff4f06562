/* SPDX-License-Identifier: Apache-2.0 */
/* say.h - exit codes, and the one sentence that goes with them. */
#ifndef BENCH_SAY_H
#define BENCH_SAY_H

enum { EXIT_WELL = 0, EXIT_FINDING = 1, EXIT_USAGE = 2, EXIT_NO_DAEMON = 3 };

/* Says it on stderr; EXIT_FINDING. */
int complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* For children, which have nobody else to tell: says it and ends the process. */
_Noreturn void give_up(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
