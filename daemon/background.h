/* SPDX-License-Identifier: Apache-2.0 */
/* background.h - leaving the starter: for a program whose first acre_open() starts the user's
 * daemon. */
#ifndef ACRE_DAEMON_BACKGROUND_H
#define ACRE_DAEMON_BACKGROUND_H

/*
 * Forks. The parent never returns: it exits with 0 once the child has called background_ready(),
 * with 1 if the child ended before. The child is a session of its own, holds nothing of the
 * starter's (descriptors, directory, terminal), and logs to log_path. Negative errno in the
 * starter. Call before there are threads.
 */
int background_start(const char *log_path, int *ret_ready_fd);
void background_ready(int *ready_fd);

#endif
