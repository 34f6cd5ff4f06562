/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/*
 * The daemon's core in a simulated world: seeded random steps of clients that attach, grow, cut,
 * free, publish, link, hang up, come back and die, of the clock and of the workers; and of daemons
 * that die between two calls or at any store of one, and are followed by others. After each call
 * the twin (core_twin.h) learns what it may, and every few steps it compares.
 *
 * Before them come scripts (core_script.c). A run is 2,000 steps from one seed in a new world. What
 * fails prints its seed, and
 *     ACRE_TEST_SEED=SEED model-core
 * is that run again, compared after every step.
 *     ACRE_TEST_STEPS=N   so many steps in all; with a seed, no more than these
 *     ACRE_TEST_SAY=1     what is called
 */
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "daemon/reaper.h"
#include "shm/sizeclass.h"
#include "tests/model/core_steps.h"
#include "tests/unit/fake_core.h"

#define RUN_STEPS 2000u
#ifdef __SANITIZE_ADDRESS__
#define STEPS 16000u /* mapping and forking are six times as slow there */
#else
#define STEPS 100000u
#endif
#define CHECK_EVERY 16u

static void choose_world(void)
{
    bool is_large = sim_one_in(8);
    world.capacity_bytes = is_large ? GIB(8) : MIB(16) << twin_below(4);
    for (uint32_t i = 0; i < WORLD_TENANTS; i++)
        world.wishes[i] = (struct tenant_wish){
            .limits.max_bytes = MIB(4 + twin_below(60)),
            .ready_bytes = sim_one_in(3) ? MIB(1 + twin_below(6)) : 0,
            .pages = sim_one_in(4) ? PAGES_THP : PAGES_4K,
        };
    if (is_large)
        world.wishes[0].limits.max_bytes = GIB(4);
}

static void run(uint64_t seed, uint32_t n_steps)
{
    memset(&twin, 0, sizeof(twin));
    twin.seed = twin.rng = seed;
    memset(sim.n_events, 0, sizeof(sim.n_events));
    choose_world();
    world_begin();
    for (twin.step = 0; twin.step < n_steps; twin.step++) {
        sim.may_kill = true;
        sim_step();
        if (twin.step % sim.check_every == 0)
            twin_check();
        if (sim_one_in(1000))
            sim_check_at_rest();
    }
    sim_end();
    world_end();
}

/* ---- all ---- */

static void last_words(int sig)
{
    char text[160];
    int n = snprintf(text, sizeof(text), "model-core: script %u, event %u, signal %d\n", sim.script,
                     twin.step, sig);
    if (twin.seed != 0)
        n = snprintf(text, sizeof(text),
                     "model-core: step %u, signal %d: ACRE_TEST_SEED=%" PRIu64 " repeats it\n",
                     twin.step, sig, twin.seed);
    (void)!write(STDERR_FILENO, text, (size_t)n);
    signal(sig, SIG_DFL);
    raise(sig);
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

int main(void)
{
    bool is_replay = getenv("ACRE_TEST_SEED") != NULL;
    uint64_t seed = setting("ACRE_TEST_SEED", (uint64_t)time(NULL));
    uint64_t n_steps = setting("ACRE_TEST_STEPS", is_replay ? RUN_STEPS : STEPS), n_done = 0;
    sim.is_verbose = getenv("ACRE_TEST_SAY") != NULL;
    sim.check_every = is_replay ? 1 : CHECK_EVERY;
    signal(SIGABRT, last_words);
    sizeclass_init();
    if (!is_replay)
        sim_scripts();
    for (; n_done < n_steps; n_done += RUN_STEPS, seed++)
        run(seed, (uint32_t)MIN(n_steps - n_done, RUN_STEPS));
    printf("%" PRIu64 " steps, %u daemons died, %u of them at a store, %u events; the last seed "
           "was %" PRIu64 "\n",
           n_done, world.n_deaths, world.n_kills, world.n_events, seed - 1);
    return 0;
}
