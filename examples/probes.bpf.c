// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * probes: the same system call seen from every kind of probe.
 *
 * Each program counts and sends a sample through a perf buffer when the process `target` makes
 * a directory. Compiled with:
 *
 *   make -C examples
 */
#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

enum place {
	KPROBE,
	KRETPROBE,
	SYSCALL,
	TRACEPOINT,
	RAW_TRACEPOINT,
	FENTRY,
	FEXIT,
	UPROBE,
	URETPROBE,
	PLACES,
};

struct sample {
	enum place place;
	__u32 pid;
	char comm[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PLACES);
	__type(key, __u32);
	__type(value, __u64);
} hits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
} samples SEC(".maps");

/* The process that is watched. */
__u32 target;

/* Names the type of the records in the BTF, for readers. */
const struct sample *sample_type __attribute__((unused));

static __attribute__((noinline)) int saw(void *ctx, enum place place)
{
	struct sample sample = { .place = place, .pid = bpf_get_current_pid_tgid() >> 32 };
	__u32 key = place;
	__u64 *count = bpf_map_lookup_elem(&hits, &key);

	if (!count || sample.pid != target)
		return 0;
	__sync_fetch_and_add(count, 1);
	bpf_get_current_comm(sample.comm, sizeof(sample.comm));
	bpf_perf_event_output(ctx, &samples, BPF_F_CURRENT_CPU, &sample, sizeof(sample));
	return 0;
}

SEC("kprobe/vfs_mkdir")
int on_kprobe(void *ctx)
{
	return saw(ctx, KPROBE);
}

SEC("kretprobe/vfs_mkdir")
int on_kretprobe(void *ctx)
{
	return saw(ctx, KRETPROBE);
}

SEC("ksyscall/mkdir")
int on_ksyscall(void *ctx)
{
	return saw(ctx, SYSCALL);
}

SEC("tp/syscalls/sys_enter_mkdir")
int on_tracepoint(void *ctx)
{
	return saw(ctx, TRACEPOINT);
}

SEC("raw_tp/sys_enter")
int on_raw_tracepoint(struct bpf_raw_tracepoint_args *ctx)
{
	/* __NR_mkdir of x86-64 */
	return ctx->args[1] == 83 ? saw(ctx, RAW_TRACEPOINT) : 0;
}

SEC("fentry/vfs_mkdir")
int on_fentry(void *ctx)
{
	return saw(ctx, FENTRY);
}

SEC("fexit/vfs_mkdir")
int on_fexit(void *ctx)
{
	return saw(ctx, FEXIT);
}

SEC("uprobe")
int on_uprobe(void *ctx)
{
	return saw(ctx, UPROBE);
}

SEC("uretprobe")
int on_uretprobe(void *ctx)
{
	return saw(ctx, URETPROBE);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
