/* SPDX-License-Identifier: Apache-2.0 */
/* error.c - sentences: for an error code, for the last failure, for misuse. */
#include <stdarg.h>
#include <string.h>

#include "client/heap.h"

static __thread char last_error[320];

static struct {
    pthread_mutex_t lock;
    void (*fn)(void *ctx, const struct acre_misuse *misuse);
    void *ctx;
} handler = {.lock = PTHREAD_MUTEX_INITIALIZER};

void misuse_fork_lock(void)
{
    pthread_mutex_lock(&handler.lock);
}

void misuse_fork_unlock(void)
{
    pthread_mutex_unlock(&handler.lock);
}

int fail(int error, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(last_error, sizeof(last_error), fmt, args);
    va_end(args);
    return -error;
}

int fail_read_only(const struct acre_heap *heap)
{
    return fail(EPERM, "tenant %s is open read-only", heap->tenant);
}

const char *acre_last_error(void)
{
    return last_error;
}

const char *acre_strerror(int error)
{
    switch (error < 0 ? -error : error) {
    case 0:
        return "no error";
    case ECONNREFUSED:
        return "no Acre daemon answers at the address";
    case EPROTO:
        return "what answers at the address is not an Acre daemon, or broke the protocol";
    case EPROTONOSUPPORT:
        return "the Acre daemon speaks another version than this library";
    case ENOENT:
        return "there is no such tenant or root";
    case EACCES:
        return "this user may not reach the socket, or may not attach to the tenant";
    case ENOMEM:
        return "no memory left within the tenant's budget or the machine's capacity";
    case ETIMEDOUT:
        return "the Acre daemon did not answer, or no memory came back, within the deadline";
    case E2BIG:
        return "more memory in one piece than the tenant can ever have";
    case ECONNRESET:
        return "the connection to the Acre daemon was lost";
    case EINVAL:
        return "an argument is invalid, or the address is no block of the heap";
    case EPERM:
        return "the block belongs to another client, or the heap is open read-only";
    case ESTALE:
        return "the soft block is gone: it was freed, its owner has died, or its memory was needed";
    case ESRCH:
        return "there is no such client any more";
    case EBUSY:
        return "the block has another owner already";
    case EAGAIN:
        return "the root has another value than expected, or the heap has no client id left, or "
               "too many threads wait for memory";
    case EEXIST:
        return "the root exists already";
    case ENOSPC:
        return "the heap has no room for another root";
    case EMFILE:
        return "this process has too many heaps or descriptors open";
    default:
        return "an error of the operating system (see errno)";
    }
}

const char *acre_version(void)
{
    return ACRE_VERSION_STRING;
}

void acre_set_misuse_handler(void (*fn)(void *ctx, const struct acre_misuse *misuse), void *ctx)
{
    pthread_mutex_lock(&handler.lock);
    handler.fn = fn;
    handler.ctx = ctx;
    pthread_mutex_unlock(&handler.lock);
}

static const char *misuse_text(enum acre_misuse_kind kind)
{
    switch (kind) {
    case ACRE_MISUSE_DOUBLE_FREE:
        return "the block is free already";
    case ACRE_MISUSE_INTERIOR:
        return "no block starts at this address of the heap";
    case ACRE_MISUSE_NOT_PINNED:
        return "this process has no soft block pinned there";
    case ACRE_MISUSE_READ_ONLY:
        return "the heap is open read-only";
    default:
        return "the address is not in the heap";
    }
}

void misuse_report(struct acre_heap *heap, const char *function, enum acre_misuse_kind kind,
                   const void *address)
{
    char message[256];
    struct acre_misuse misuse = {.size = sizeof(misuse),
                                 .kind = kind,
                                 .function = function,
                                 .address = address,
                                 .client = atomic_load(&heap->process->client),
                                 .message = message};
    uint64_t off = (uint64_t)((uintptr_t)address - (uintptr_t)heap->base);

    misuse.off = kind == ACRE_MISUSE_FOREIGN ? 0 : off;
    snprintf(message, sizeof(message),
             "acre: %s(%p) by client %u (pid %d) of tenant %s: %s (heap offset 0x%llx)", function,
             address, client_handle_id(misuse.client), (int)getpid(), heap->tenant,
             misuse_text(kind), (unsigned long long)misuse.off);
    pthread_mutex_lock(&handler.lock);
    void (*fn)(void *, const struct acre_misuse *) = handler.fn;
    void *ctx = handler.ctx;
    pthread_mutex_unlock(&handler.lock);
    if (fn) {
        fn(ctx, &misuse);
        return;
    }
    (void)dprintf(STDERR_FILENO, "%s\n", message); /* stdio may be in any state */
    abort();
}
