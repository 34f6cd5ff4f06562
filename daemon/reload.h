/* SPDX-License-Identifier: Apache-2.0 */
/* reload.h - the configuration is read and carried out: at the start, and again on SIGHUP. */
#ifndef ACRE_DAEMON_RELOAD_H
#define ACRE_DAEMON_RELOAD_H

#include "daemon/config.h"
#include "daemon/core.h"

struct config_source {
    const char *path;        /* NULL: RELOAD_DEFAULT, if it is there */
    bool is_user;            /* NULL: none */
    uint64_t capacity_bytes; /* of the command line: goes before the file's; 0: the file's */
};
#define RELOAD_DEFAULT "/etc/acre.conf"

enum reload_how {
    RELOAD_QUIETLY,  /* not held against the machine */
    RELOAD_STRICTLY, /* refused if it does not fit; doubts are logged */
    RELOAD_TO_GO_ON, /* whether it fits or not: heaps are there, and would be lost */
};

/* What the source says, complete; to be freed in any case. -EINVAL, -ENOMEM, or why it cannot be
 * read; then text is one sentence with the place. */
int reload_read(const struct config_source *source, enum reload_how how, struct config *ret,
                char text[MSG_TEXT_BYTES]);
/* Takes the access lists. Whole or not at all: -ENOMEM. */
int reload_apply(struct core *core, struct config *config);

/* Both, later, from a running loop: the file is read by a worker. Then those in WAIT_RELOAD are
 * told. */
void reload_again(struct core *core);

#endif
