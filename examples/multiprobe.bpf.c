// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * multiprobe: one link for many functions. Compiled with:
 *
 *   make -C examples
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* The process that is watched, and what it called. */
__u32 target;
__u64 kernel_calls;
__u64 user_calls;

SEC("kprobe.multi/vfs_*dir")
int on_kernel(void *ctx)
{
	if (bpf_get_current_pid_tgid() >> 32 == target)
		__sync_fetch_and_add(&kernel_calls, 1);
	return 0;
}

SEC("uprobe.multi")
int on_user(void *ctx)
{
	if (bpf_get_current_pid_tgid() >> 32 == target)
		__sync_fetch_and_add(&user_calls, 1);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
