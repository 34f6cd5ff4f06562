/* SPDX-License-Identifier: Apache-2.0 */
/* life.c - see life.h. */
#include "daemon/life.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>

/* A page is a page: what is larger could cost the daemon time when the last descriptor goes. */
#define LIFE_BYTES_MAX  KIB(64)
#define LIFE_MEMORY_MAX MIB(2) /* where the system gives shared huge pages to everybody */

/* fallocate() puts memory beyond the end, too: up to the seals. */
static bool has_page_size(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_size >= (off_t)sizeof(struct life_page) &&
           st.st_size <= (off_t)LIFE_BYTES_MAX && st.st_blocks <= (blkcnt_t)(LIFE_MEMORY_MAX / 512);
}

int life_check_descriptor(int fd, const char **ret_why)
{
    /* First: of all kinds of files only memory files answer this, and none of them blocks in what
     * follows. */
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0)
        *ret_why = "the life page is no memfd";
    else if (seals & F_SEAL_SEAL)
        *ret_why = "the life page cannot be sealed";
    else if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR)
        *ret_why = "the life page's descriptor is not writable";
    else if (seals & F_SEAL_WRITE)
        *ret_why = "the life page is sealed already";
    else if (!has_page_size(fd))
        *ret_why = "the life page has a wrong size";
    else
        return 0;
    return -EPROTO;
}

int life_fix_size(int fd)
{
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        return -errno;
    return has_page_size(fd) ? 0 : -EPROTO;
}

enum life_answer life_ask(int fd)
{
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0)
        return LIFE_GONE;
    if (errno == EBUSY)
        return LIFE_ALIVE;
    int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_WRITE) ? LIFE_GONE : LIFE_SILENT;
}

bool life_process_gone(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    return pidfd >= 0 && poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
}

bool life_has_magic(int fd)
{
    uint64_t magic;
    return pread(fd, &magic, sizeof(magic), offsetof(struct life_page, magic)) == sizeof(magic) &&
           magic == LIFE_MAGIC;
}

bool life_has_secret(int fd, const uint8_t secret[16])
{
    uint8_t page[16], differs = 0;
    if (pread(fd, page, sizeof(page), offsetof(struct life_page, secret)) != sizeof(page))
        return false;
    for (size_t i = 0; i < sizeof(page); i++)
        differs |= page[i] ^ secret[i];
    return differs == 0;
}
