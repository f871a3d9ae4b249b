// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * xdpcount: count packets by IP protocol, and drop those of one protocol.
 *
 * Compiled with:
 *
 *   make -C examples
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} packets SEC(".maps");

/* Set before loading; user space cannot change it afterwards. */
const volatile __u8 dropped_protocol = 255;

/* User space may change this at any time. */
__u32 enabled SEC(".data.switch") = 1;

SEC("xdp")
int count(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);
	__u32 protocol;
	__u64 *value;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	protocol = ip->protocol;
	value = bpf_map_lookup_elem(&packets, &protocol);
	if (value)
		*value += 1;
	return enabled && protocol == dropped_protocol ? XDP_DROP : XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
