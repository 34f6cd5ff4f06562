/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uv.h - libuv whose memory is an Acre heap. (Handles, requests and buffers for reading are the
 * program's own and come from where it takes them: acre_alloc() is such a place.)
 *
 *     acre_uv_use(heap);
 *     uv_loop_init(loop);
 *     ...
 *     uv_loop_close(loop);
 *     uv_library_shutdown();
 *     acre_close(heap);
 *
 * libuv has one allocator for all of the process, so the last call is who decides. The heap is the
 * caller's. It stays open until uv_library_shutdown() has come back, which libuv does at the end
 * of the process if nobody else has. A full heap is UV_ENOMEM; libuv ends the process, as it does
 * without memory, where it has no way to answer that.
 */
#ifndef ACRE_ADAPTERS_UV_H
#define ACRE_ADAPTERS_UV_H

#ifdef __cplusplus
extern "C" {
#endif

struct acre_heap;

/*
 * Before any other call of libuv's, while no other thread uses it. heap NULL: malloc() again, once
 * all loops are closed. 0 or libuv's error, a negative errno.
 */
int acre_uv_use(struct acre_heap *heap);

#ifdef __cplusplus
}
#endif

#endif
