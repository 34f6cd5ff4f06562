/* SPDX-License-Identifier: Apache-2.0 */
/*
 * life.h - is the client still able to write? Asked of its life page: DESIGN.md section 8.
 *
 * The kernel refuses F_SEAL_WRITE (EBUSY) as long as anybody maps the memfd writable, and that is
 * the client alone. Success is final: the page can never be mapped writable again. Functions here
 * may block: worker threads only, but for life_check_descriptor() and life_process_gone(). Pages
 * pinned by vmsplice: 160 ms. Any seal waits for the inode's lock, which a write() holds while it
 * waits for the memory that it is to copy: for as long as the client likes.
 */
#ifndef ACRE_DAEMON_LIFE_H
#define ACRE_DAEMON_LIFE_H

#include "shm/base.h"
#include "shm/layout.h"

enum life_answer {
    LIFE_ALIVE,  /* mapped */
    LIFE_GONE,   /* nobody maps it, nobody ever will */
    LIFE_SILENT, /* sealed against sealing, by the client: the pidfd must tell */
};

/* Is the foreign descriptor a memfd that may become a life page? Never blocks. -EPROTO with
 * *ret_why if not. */
int life_check_descriptor(int fd, const char **ret_why);
/* From now on it has the size of a page for good. -EPROTO: it had another; others of sealing. */
int life_fix_size(int fd);

enum life_answer life_ask(int fd);
/* Has the process of the pidfd exited? false for pidfd < 0. */
bool life_process_gone(int pidfd);

/* The secret is what the page says now, the magic is right. */
bool life_has_magic(int fd);
bool life_has_secret(int fd, const uint8_t secret[16]);

#endif
