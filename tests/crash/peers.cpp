// SPDX-License-Identifier: Apache-2.0
// A process is killed while it allocates and frees; can others still use the heap? The same trial for
// Boost.Interprocess and for Acre: a victim at work, SIGKILL after 1 to 20 ms, then a fresh process
// must allocate and free 1,000 blocks within two seconds.
#include <boost/interprocess/managed_shared_memory.hpp>

#include <acre.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

namespace bip = boost::interprocess;

static const int kTrials = 20, kBlocks = 64, kPatience = 2;
static std::string name = "acre-crash-peers-" + std::to_string(getpid());

struct peer {
    const char *label;
    void (*make)();
    void (*work)(long rounds); // forever if negative
    void (*drop)();
};

template <typename Allocate, typename Free> static void churn(long rounds, Allocate allocate, Free free_it)
{
    void *blocks[kBlocks] = {};
    unsigned long long seed = 88172645463325252ull + (unsigned)getpid();
    for (long i = 0; i != rounds; i++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        void *&block = blocks[seed % kBlocks];
        if (block)
            free_it(block);
        block = block ? nullptr : allocate(16 + seed / kBlocks % 4000);
    }
    for (void *block : blocks)
        if (block)
            free_it(block);
}

static void boost_make()
{
    bip::shared_memory_object::remove(name.c_str());
    bip::managed_shared_memory made(bip::create_only, name.c_str(), 64 << 20);
}
static void boost_work(long rounds)
{
    bip::managed_shared_memory heap(bip::open_only, name.c_str());
    churn(rounds, [&](size_t n) { return heap.allocate(n); },
          [&](void *p) { heap.deallocate(p); });
}
static void boost_drop()
{
    bip::shared_memory_object::remove(name.c_str());
}

static void acre_work(long rounds)
{
    struct acre_heap *heap;
    if (acre_open(&heap, nullptr, nullptr) < 0)
        _exit(1);
    churn(rounds,
          [&](size_t n) {
              void *block = acre_alloc(heap, n);
              if (!block)
                  _exit(1);
              return block;
          },
          [&](void *p) { acre_free(heap, p); });
    acre_close(heap);
}
static void nothing() {}

static pid_t start(const peer &p, long rounds)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    alarm(rounds < 0 ? 60 : kPatience);
    p.work(rounds);
    _exit(0);
}

static bool is_usable(const peer &p)
{
    int status;
    return waitpid(start(p, 2000), &status, 0) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int trial(const peer &p)
{
    p.make();
    pid_t victim = start(p, -1);
    usleep(30000 + (unsigned)rand() % 20000);
    kill(victim, SIGKILL);
    waitpid(victim, nullptr, 0);
    bool usable = is_usable(p);
    p.drop();
    return usable;
}

int main()
{
    const peer peers[] = {{"Boost.Interprocess", boost_make, boost_work, boost_drop},
                          {"Acre", nothing, acre_work, nothing}};
    printf("usable after a process was killed while it allocated:\n");
    for (const peer &p : peers) {
        int usable = 0;
        for (int i = 0; i < kTrials; i++)
            usable += trial(p);
        printf("  %-20s %2d of %d\n", p.label, usable, kTrials);
        fflush(stdout);
    }
}
