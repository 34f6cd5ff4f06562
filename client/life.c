/* SPDX-License-Identifier: Apache-2.0 */
/*
 * life.c - the page by which the kernel tells the daemon whether this client can still write
 * (DESIGN.md section 8).
 *
 * A memfd mapped shared and writable here and nowhere else: while the mapping exists, F_SEAL_WRITE
 * on it fails with EBUSY. A fork must not inherit it, and there is no MAP_DONTFORK: so fork() waits
 * (fork_lock, taken by the fork handlers) while a thread is between mmap and MADV_DONTFORK. A raw
 * clone() system call in just that moment would make the child keep the parent's client alive:
 * delayed, never wrong.
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "client/heap.h"

static pthread_mutex_t fork_lock = PTHREAD_MUTEX_INITIALIZER;

void life_fork_lock(void)
{
    pthread_mutex_lock(&fork_lock);
}

void life_fork_unlock(void)
{
    pthread_mutex_unlock(&fork_lock);
}

static struct life_page *life_map(int fd)
{
    life_fork_lock();
    void *page = mmap(NULL, sizeof(struct life_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED && madvise(page, sizeof(struct life_page), MADV_DONTFORK) < 0) {
        munmap(page, sizeof(struct life_page));
        page = MAP_FAILED;
    }
    life_fork_unlock();
    return page == MAP_FAILED ? NULL : page;
}

int life_create(struct life_page **ret_page, int *ret_fd)
{
    CLEANUP_FD int fd = memfd_create("acre-life", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || ftruncate(fd, sizeof(struct life_page)) < 0)
        return fail(errno, "cannot create the life page: %s", strerror(errno));
    struct life_page *page = life_map(fd);
    if (!page)
        return fail(ENOMEM, "cannot map the life page");
    if (getrandom(page->secret, sizeof(page->secret), 0) != sizeof(page->secret)) {
        life_destroy(page);
        return fail(EAGAIN, "the system has no random bytes for the client's secret");
    }
    page->magic = LIFE_MAGIC;
    *ret_page = page;
    *ret_fd = fd;
    fd = -1;
    return 0;
}

void life_destroy(struct life_page *page)
{
    if (page)
        munmap(page, sizeof(struct life_page));
}
