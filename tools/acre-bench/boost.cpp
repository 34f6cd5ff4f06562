/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boost.cpp - Boost.Interprocess as a module with three plain functions, so that its calls are made
 * by the same loops as all others. Each function adds a call to what costs at least a hundred
 * nanoseconds.
 */
#include <boost/interprocess/managed_shared_memory.hpp>

#include <new>
#include <string>
#include <unistd.h>

namespace ipc = boost::interprocess;

extern "C" {

/* A segment for this process and those that it forks: its name goes at once, as nothing may stay
 * behind. */
__attribute__((visibility("default"))) void *bench_boost_new(size_t bytes)
{
    std::string name = "acre-bench-" + std::to_string(getpid());
    try {
        ipc::shared_memory_object::remove(name.c_str());
        auto *heap = new ipc::managed_shared_memory(ipc::create_only, name.c_str(), bytes);
        ipc::shared_memory_object::remove(name.c_str());
        return heap;
    } catch (...) {
        ipc::shared_memory_object::remove(name.c_str());
        return nullptr;
    }
}

__attribute__((visibility("default"))) void *bench_boost_alloc(void *heap, size_t size)
{
    return static_cast<ipc::managed_shared_memory *>(heap)->allocate(size, std::nothrow);
}

__attribute__((visibility("default"))) void bench_boost_free(void *heap, void *block)
{
    static_cast<ipc::managed_shared_memory *>(heap)->deallocate(block);
}
}
