/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem.h - the heap under measurement, and the loops' calls into it.
 *
 * A loop is written once, as an always-inlined body with the kind of heap as a parameter, and
 * compiled once for each kind by HEAP_LOOP(): inside it the kind is a constant and what is left is
 * the call that a user writes. malloc(n) and acre_alloc(heap, n) are both one indirect call through
 * the program's own GOT entry (-fno-plt, bound at start); they differ by the move of one more
 * argument, which is a cost of Acre's interface and stays in. All private allocators run the very
 * same instructions. One loop with function pointers for all would need either a second call or a
 * data dependency from alloc to free to bring the pointer into the right argument: measurable in a
 * pair of ten cycles.
 */
#ifndef BENCH_MEM_H
#define BENCH_MEM_H

#include <acre.h>

#include <limits.h>
#include <stdint.h>
#include <stdlib.h>

enum mem_kind { MEM_MALLOC, MEM_ACRE, MEM_BOOST, MEM_KINDS, MEM_NONE = MEM_KINDS };

/* By value into the loops, so that they keep it in registers as a user's local variable would
 * be. */
struct mem {
    enum mem_kind kind;
    void *heap;
    void *(*boost_alloc)(void *heap, size_t size);
    void (*boost_free)(void *heap, void *block);
};

#define BOOST_MODULE "acre-bench-boost.so"

/* Ends the process if that fails. socket: Acre's. bytes: how large a Boost segment must be. */
struct mem mem_open(enum mem_kind kind, const char *socket, size_t bytes);
void mem_close(struct mem mem);

/* The path of a file that lies beside this program. */
void mem_beside(char ret_path[PATH_MAX], const char *file);

#define BENCH_INLINE static inline __attribute__((always_inline))

/* A heap that is full must not look like a fast one. */
_Noreturn void mem_exhausted(size_t size);

BENCH_INLINE void *mem_alloc(struct mem mem, enum mem_kind kind, size_t size)
{
    void *block = kind == MEM_ACRE    ? acre_alloc(mem.heap, size)
                  : kind == MEM_BOOST ? mem.boost_alloc(mem.heap, size)
                                      : malloc(size);
    if (__builtin_expect(!block, 0))
        mem_exhausted(size);
    return block;
}

BENCH_INLINE void mem_free(struct mem mem, enum mem_kind kind, void *block)
{
    switch (kind) {
    case MEM_ACRE:
        acre_free(mem.heap, block);
        break;
    case MEM_BOOST:
        mem.boost_free(mem.heap, block);
        break;
    default:
        free(block);
    }
}

/* The compiler may not know what a block is good for. */
BENCH_INLINE void mem_use(void *block)
{
    __asm__ volatile("" : : "r"(block) : "memory");
}

/* As an application fills what it has asked for: a store to each page. */
BENCH_INLINE void mem_touch(void *block, size_t size)
{
    for (size_t at = 0; at < size; at += 4096)
        *((volatile char *)block + at) = 1;
}

typedef void heap_loop(struct mem mem, void *arg, uint64_t n);

#define HEAP_LOOP_OF(name, suffix, kind)                                                           \
    __attribute__((noinline, noclone, aligned(64))) static void name##_##suffix(                   \
        struct mem mem, void *arg, uint64_t n)                                                     \
    {                                                                                              \
        name(mem, kind, arg, n);                                                                   \
    }

/* From `BENCH_INLINE void name(struct mem, enum mem_kind, void *arg, uint64_t n)` makes
 * name_loops[kind]. */
#define HEAP_LOOP(name)                                                                            \
    HEAP_LOOP_OF(name, on_malloc, MEM_MALLOC)                                                      \
    HEAP_LOOP_OF(name, on_acre, MEM_ACRE)                                                          \
    HEAP_LOOP_OF(name, on_boost, MEM_BOOST)                                                        \
    static heap_loop *const name##_loops[MEM_KINDS] = {name##_on_malloc, name##_on_acre,           \
                                                       name##_on_boost};

#endif
