/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * faults.bpf.c - page faults in Acre's segments, by process and segment: the mapping at the address
 * says which. What the kernel maps in bulk (MADV_POPULATE) is no fault.
 */
#include "common.h"

#define FAULT_WRITE 2

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct qstr {
    const unsigned char *name;
};
struct inode {
    unsigned long i_ino;
};
struct dentry {
    struct qstr d_name;
};
struct path {
    struct dentry *dentry;
};
struct file {
    struct path f_path;
    struct inode *f_inode;
};
struct vm_area_struct {
    struct file *vm_file;
};
#pragma clang attribute pop
struct task_struct;

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct fault_key);
    __type(value, struct fault_row);
} rows SEC(".maps");

__u64 n_lost; /* the mappings were being changed, or rows is full */

struct at {
    bool is_write;
};

static __always_inline bool is_segment(struct file *file)
{
    static const char wanted[] = "memfd:acre-segment";
    char name[sizeof(wanted)] = {0};
    const unsigned char *at = BPF_CORE_READ(file, f_path.dentry, d_name.name);

    (void)bpf_probe_read_kernel_str(name, sizeof(name), at);
    for (unsigned i = 0; i < sizeof(wanted); i++)
        if (name[i] != wanted[i])
            return false;
    return true;
}

static long count(struct task_struct *task, struct vm_area_struct *vma, struct at *at)
{
    static const struct fault_row none;
    struct file *file = BPF_CORE_READ(vma, vm_file);

    if (!file || !is_segment(file))
        return 0;
    struct fault_key key = {.inode = BPF_CORE_READ(file, f_inode, i_ino), .pid = this_pid()};
    struct fault_row *row = bpf_map_lookup_elem(&rows, &key);
    if (!row) {
        (void)bpf_map_update_elem(&rows, &key, &none, BPF_NOEXIST);
        row = bpf_map_lookup_elem(&rows, &key);
        if (row)
            bpf_get_current_comm(row->comm, sizeof(row->comm));
    }
    if (!row)
        __sync_fetch_and_add(&n_lost, 1);
    else if (at->is_write)
        __sync_fetch_and_add(&row->n_write, 1);
    else
        __sync_fetch_and_add(&row->n_read, 1);
    return 0;
}

SEC("raw_tp/page_fault_user")
int page_fault(struct bpf_raw_tracepoint_args *ctx)
{
    struct at at = {.is_write = ctx->args[2] & FAULT_WRITE};
    struct task_struct *task = bpf_get_current_task_btf();

    if (bpf_find_vma(task, ctx->args[0], count, &at, 0) == -16 /* EBUSY */)
        __sync_fetch_and_add(&n_lost, 1);
    return 0;
}
