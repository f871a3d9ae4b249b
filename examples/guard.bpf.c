// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * guard: a security hook that keeps one process from making directories. Compiled with:
 *
 *   make -C examples
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define EPERM 1

/* The process that is kept from it, and how often it was. */
__u32 target;
__u64 denied;

SEC("lsm/path_mkdir")
int on_mkdir(void *ctx)
{
	if (bpf_get_current_pid_tgid() >> 32 != target)
		return 0;
	__sync_fetch_and_add(&denied, 1);
	return -EPERM;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
