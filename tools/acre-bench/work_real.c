/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_real.c - libraries that many programs use, with their memory in the heap (adapters/), and on
 * malloc as they come. Most of the time is their own work, as it is in a program. The first round
 * meets a process and a heap without memory; the others find what the one before has freed.
 */
#include "workload.h"

#include <stdio.h>

#include "real.h"

#define ROUNDS 5u

struct timed {
    double ms, instructions;
};

static struct timed time_one(void (*load)(struct mem, unsigned), struct mem mem, unsigned scale)
{
    struct counter counter = counter_open();
    double count = counter_read(&counter);
    uint64_t begin = now_ns();
    load(mem, scale);
    double ms = (double)(now_ns() - begin) / 1e6;
    struct timed timed = {ms, count < 0 ? -1 : counter_read(&counter) - count};
    counter_close(&counter);
    return timed;
}

static void run_real(const struct child *child, unsigned case_idx)
{
    static void (*const loads[])(struct mem, unsigned) = {real_lua, real_sqlite};
    double ms[ROUNDS], instructions[ROUNDS];
    char first[48];
    unsigned scale = child->is_quick ? 1 : 10;
    struct mem mem = mem_open(child->kind, child->socket, 0);
    const char *name = work_real.cases[case_idx];
    settle(child);
    struct timed timed = time_one(loads[case_idx], mem, scale);
    snprintf(first, sizeof(first), "%s, first", name);
    report(first, "ms", timed.ms, timed.instructions);
    for (unsigned i = 0; i < ROUNDS; i++) {
        timed = time_one(loads[case_idx], mem, scale);
        ms[i] = timed.ms;
        instructions[i] = timed.instructions;
    }
    report(name, "ms", median_of(ms, ROUNDS), median_of(instructions, ROUNDS));
}

const struct workload work_real = {
    .name = "real",
    .about = "Lua and SQLite at work, with their memory in the heap by adapters/ or on malloc; per "
             "round",
    .cases = {"Lua", "SQLite"},
    .peers = PEERS_MALLOC,
    .run = run_real,
};
