/* SPDX-License-Identifier: Apache-2.0 */
/*
 * say.h - exit codes and the one sentence that goes with them.
 */
#ifndef WORDINDEX_SAY_H
#define WORDINDEX_SAY_H

enum { EXIT_WELL = 0, EXIT_FINDING = 1, EXIT_USAGE = 2, EXIT_NO_DAEMON = 3 };

/* Says it on stderr; EXIT_FINDING. */
int complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The exit code for a negative errno of Acre. */
int exit_code_of(int r);

/* As complain(), for what Acre has refused (a negative errno), with Acre's reason; the exit code
 * that fits. */
int complain_acre(int r, const char *what);

#endif
