/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace.h - what libacre's probes (client/probe.h) and acre-trace's programs in the kernel say the
 * same word for. Definitions only: it is compiled for BPF too.
 */
#ifndef ACRE_SHM_TRACE_H
#define ACRE_SHM_TRACE_H

/* How far a slow path had to go: the last argument but one of acre:slow__end. */
enum trace_cause {
    TRACE_WINDOW, /* the next window of the slab that the thread had */
    TRACE_SLAB,   /* another slab of the thread's, or of a thread that has ended */
    TRACE_EXTENT, /* units that the process had been granted before */
    TRACE_DAEMON, /* a request */
    TRACE_WAIT,   /* acre_alloc_wait()'s queue */
    TRACE_CAUSES
};

/* Where a struct acre_heap keeps what names a block in all processes: its heap's id, and its
 * address less the base. acre-trace reads them where no probe could stand for free. */
#define TRACE_BASE_OFF    0
#define TRACE_HEAP_ID_OFF 8504

#endif
