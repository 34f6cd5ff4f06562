/* SPDX-License-Identifier: Apache-2.0 */
/* probe.c - the semaphores of probe.h. */
#include "client/probe.h"

#if __has_include(<sys/sdt.h>)
#define SEMAPHORE(name)                                                                            \
    volatile unsigned short PROBE_SEMAPHORE(name) __attribute__((section(".probes")))

SEMAPHORE(slow__begin);
SEMAPHORE(slow__end);
SEMAPHORE(request__begin);
SEMAPHORE(request__end);
SEMAPHORE(grow);
SEMAPHORE(attach);
#endif
