// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * maplab: one map of many kinds, and programs that can be run without attaching them.
 *
 * For trying the Python skeleton (docs/skeletons.md). Compiled with:
 *
 *   make -C examples
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum color {
	RED,
	GREEN = 5,
	BLUE = -1,
};

struct point {
	__s32 x;
	__s32 y;
};

struct shape {
	char name[16];
	enum color color;
	__u32 filled : 1;
	__s32 layer : 7;
	__u32 : 8;
	__u32 corners_used : 16;
	struct point corners[3];
	union {
		__u64 id;
		__u8 id_bytes[8];
	};
	_Bool visible;
};

struct message {
	__u32 number;
	__u32 cpu;
	char text[8];
};

/* What send() is told. */
struct request {
	__u32 count;
	__u32 discard_every;
};

struct prefix {
	__u32 length;
	__u8 address[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct shape);
} shapes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __s64);
} numbers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} per_cpu SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 16);
	__type(key, __u64);
	__type(value, struct point);
} per_cpu_points SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16);
	__type(key, char[8]);
	__type(value, __u32);
} recent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u32);
} routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 4);
	__type(value, __u32);
} queue SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 4);
	__type(value, struct point);
} stack SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_BLOOM_FILTER);
	__uint(max_entries, 64);
	__type(value, __u32);
} bloom SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} jumps SEC(".maps");

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __s64);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct inner);
} tables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} messages SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
} samples SEC(".maps");

/* Set before loading. */
const volatile __u32 first_number = 1;
const volatile char greeting[8] = "hello";

/* The programs and user space both write these. */
__u64 sent;
__u64 refused;
struct shape last = { .name = "none", .color = GREEN };
__u32 kept_bytes SEC(".data.filter") = 64;

/* Names the type of the records in the BTF, for readers. */
const struct message *message_type __attribute__((unused));

/* Read byte by byte: of a volatile array the compiler must not copy what it knew. */
static __always_inline void greet(struct message *message)
{
	int index;

#pragma unroll
	for (index = 0; index < (int)sizeof(greeting); index++)
		message->text[index] = greeting[index];
}

/* Send records through the ring buffer, some of them discarded. */
SEC("syscall")
int send(struct request *request)
{
	__u32 index;

	for (index = 0; index < 256 && index < request->count; index++) {
		struct message *message = bpf_ringbuf_reserve(&messages, sizeof(*message), 0);

		if (!message) {
			refused++;
			return 1;
		}
		message->number = first_number + index;
		message->cpu = bpf_get_smp_processor_id();
		greet(message);
		if (request->discard_every && index % request->discard_every == 0) {
			bpf_ringbuf_discard(message, 0);
			continue;
		}
		bpf_ringbuf_submit(message, 0);
		sent++;
	}
	return 0;
}

/* Keep some bytes of a packet, and send a sample for it. */
SEC("socket")
int keep(struct __sk_buff *skb)
{
	struct message message = { .number = skb->len, .cpu = bpf_get_smp_processor_id() };
	__u32 zero = 0, *value = bpf_map_lookup_elem(&per_cpu, &zero);

	if (value)
		*value += 1;
	greet(&message);
	bpf_perf_event_output(skb, &samples, BPF_F_CURRENT_CPU, &message, sizeof(message));
	return kept_bytes;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
