/* SPDX-License-Identifier: Apache-2.0 */
/* between.h - somebody between the clients and the daemon: a socket of its own, and a thread that
 * passes all packets on. */
#ifndef ACRE_TESTS_BETWEEN_H
#define ACRE_TESTS_BETWEEN_H

#include <stdbool.h>

/* Hears of each packet before it goes on. False: it does not, and both sides are hung up on. */
typedef bool (*between_fn)(bool is_reply);

/* One at a time, before the_daemon, which is up. Returns the path of the socket. */
const char *between_up(between_fn fn);
void between_down(void);

#endif
