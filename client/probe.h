/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe.h - where a tracer can look: USDT probes of the provider "acre", on slow paths only. Each is
 * one nop behind a test of its semaphore, which the kernel raises while somebody looks; so nobody
 * pays for their arguments. They are a contract with acre-trace (shm/trace.h), bpftrace and perf.
 *
 *   slow__begin()                       a thread has no free block at hand
 *   slow__end(bytes, cause, error)      it has, or has not (error: errno); enum trace_cause
 *   request__begin(op)                  a packet goes to the daemon: enum msg_op
 *   request__end(op, error)
 *   grow(bytes, heap_id)                the daemon has granted units
 *   attach(heap_id, client, tenant)     this process is a client now
 *
 * Ends come on the thread of their beginning, and pairs nest. Without <sys/sdt.h> there are none.
 */
#ifndef ACRE_CLIENT_PROBE_H
#define ACRE_CLIENT_PROBE_H

#include "shm/base.h"
#include "shm/trace.h"

#if __has_include(<sys/sdt.h>)
#define _SDT_HAS_SEMAPHORES 1
#define SDT_USE_VARIADIC    1
#include <sys/sdt.h>

#define PROBE_SEMAPHORE(name) acre_##name##_semaphore
/* Raised by the kernel, in each process's own copy. */
extern volatile unsigned short PROBE_SEMAPHORE(slow__begin), PROBE_SEMAPHORE(slow__end),
    PROBE_SEMAPHORE(request__begin), PROBE_SEMAPHORE(request__end), PROBE_SEMAPHORE(grow),
    PROBE_SEMAPHORE(attach);

#define PROBE(name, ...)                                                                           \
    do {                                                                                           \
        if (UNLIKELY(PROBE_SEMAPHORE(name)))                                                       \
            STAP_PROBEV(acre, name, ##__VA_ARGS__);                                                \
    } while (0)
#else
#define PROBE(name, ...) ((void)0)
#endif

#endif
