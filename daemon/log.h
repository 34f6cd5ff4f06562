/* SPDX-License-Identifier: Apache-2.0 */
/* log.h - what the daemon says, to stderr: with <N> priorities for the journal, else after "acred:
 * ". */
#ifndef ACRE_DAEMON_LOG_H
#define ACRE_DAEMON_LOG_H

enum log_level { LOG_ERROR = 3, LOG_WARNING = 4, LOG_NOTICE = 5 };

/* One line, without the newline. */
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
