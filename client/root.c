/* SPDX-License-Identifier: Apache-2.0 */
/* root.c - names for first blocks: each call is one request, executed by the daemon as one step. */
#include <string.h>

#include "client/heap.h"

static int root_call(struct acre_heap *heap, enum root_op op, const char *name, acre_off expected,
                     acre_off desired, acre_off *ret_off)
{
    struct msg_request req = {.op = MSG_ROOT};
    struct msg_reply reply;
    size_t n = name ? strlen(name) : 0;

    if (n == 0 || n >= ROOT_NAME_BYTES)
        return fail(EINVAL, "a root's name has 1 to %u bytes, not %zu", ROOT_NAME_BYTES - 1, n);
    req.root.op = op;
    req.root.expected = expected;
    req.root.desired = desired;
    memcpy(req.root.name, name, n + 1);
    int r =
        heap->is_read_only && op != ROOT_GET ? fail_read_only(heap) : heap_call(heap, &req, &reply);
    if (r == 0 && ret_off)
        *ret_off = reply.root.off;
    return r;
}

int acre_root_set(struct acre_heap *heap, const char *name, acre_off off)
{
    if (off == 0)
        return fail(EINVAL, "root \"%s\" cannot be set to 0: acre_root_del() deletes it",
                    name ? name : "");
    return root_call(heap, ROOT_SET, name, 0, off, NULL);
}

int acre_root_get(struct acre_heap *heap, const char *name, acre_off *ret_off)
{
    return root_call(heap, ROOT_GET, name, 0, 0, ret_off);
}

int acre_root_cas(struct acre_heap *heap, const char *name, acre_off expected, acre_off desired)
{
    return root_call(heap, ROOT_CAS, name, expected, desired, NULL);
}

int acre_root_del(struct acre_heap *heap, const char *name)
{
    return root_call(heap, ROOT_DEL, name, 0, 0, NULL);
}
