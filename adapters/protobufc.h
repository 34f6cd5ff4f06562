/* SPDX-License-Identifier: Apache-2.0 */
/*
 * protobufc.h - protobuf-c messages in an Acre heap.
 *
 *     ProtobufCAllocator allocator = acre_protobufc_allocator(heap);
 *     Echo *echo = echo__unpack(&allocator, n_bytes, bytes);
 *     ...
 *     echo__free_unpacked(echo, &allocator);
 *
 * The heap is the caller's and stays open until the last message is freed. When it is full,
 * unpacking answers NULL and has freed what it had. A message is full of pointers, so another
 * process reads it only where it has the heap at the same address: hand over packed ones.
 */
#ifndef ACRE_ADAPTERS_PROTOBUFC_H
#define ACRE_ADAPTERS_PROTOBUFC_H

#include <protobuf-c/protobuf-c.h>

#ifdef __cplusplus
extern "C" {
#endif

struct acre_heap;

ProtobufCAllocator acre_protobufc_allocator(struct acre_heap *heap);

#ifdef __cplusplus
}
#endif

#endif
