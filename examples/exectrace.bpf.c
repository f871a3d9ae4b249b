// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * exectrace: how long does each program run?
 *
 * Remembers when a process calls execve(), and when it exits sends its pid, name and lifetime to
 * user space. Compiled with:
 *
 *   make -C examples
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

/* Only the fields that are read; CO-RE finds them in the kernel that loads this. */
struct task_struct {
	int pid;
	int tgid;
	struct task_struct *real_parent;
	char comm[16];
} __attribute__((preserve_access_index));

struct event {
	__u32 pid;
	__u32 parent;
	__u64 lifetime_ns;
	char comm[16];
};

/* Shorter lives are not reported. */
const volatile __u64 min_lifetime_ns = 0;

/* Processes seen, and events that found no room. */
__u64 seen;
__u64 lost;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, __u64);
} started SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

static __attribute__((noinline)) int report(struct task_struct *task, __u64 lifetime_ns)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		__sync_fetch_and_add(&lost, 1);
		return -1;
	}
	event->pid = BPF_CORE_READ(task, tgid);
	event->parent = BPF_CORE_READ(task, real_parent, tgid);
	event->lifetime_ns = lifetime_ns;
	BPF_CORE_READ_STR_INTO(&event->comm, task, comm);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task)
{
	__u32 pid = task->tgid;
	__u64 now = bpf_ktime_get_ns();

	__sync_fetch_and_add(&seen, 1);
	bpf_map_update_elem(&started, &pid, &now, BPF_ANY);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	__u32 pid = task->tgid;
	__u64 *start, lifetime;

	if (task->pid != task->tgid)
		return 0; /* a thread, not the process */
	start = bpf_map_lookup_elem(&started, &pid);
	if (!start)
		return 0;
	lifetime = bpf_ktime_get_ns() - *start;
	bpf_map_delete_elem(&started, &pid);
	if (lifetime >= min_lifetime_ns)
		report(task, lifetime);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
