// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * cgroupgate: count what the processes of a cgroup send and which sysctls they read, and close the
 * gate to one UDP port. Compiled with:
 *
 *   make -C examples
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct traffic {
	__u64 packets;
	__u64 bytes;
	__u64 refused;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u16);
	__type(value, struct traffic);
} by_port SEC(".maps");

struct access {
	char name[32];
	_Bool is_write;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} accesses SEC(".maps");

/* User space may change this at any time; 0 is no port. */
__u16 closed_port;

/* Names the type of the records in the BTF, for readers. */
const struct access *access_type __attribute__((unused));

SEC("cgroup_skb/egress")
int on_egress(struct __sk_buff *skb)
{
	struct traffic fresh = {}, *traffic;
	struct iphdr ip;
	struct udphdr udp;
	__u16 port;

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) || ip.protocol != IPPROTO_UDP)
		return 1;
	if (bpf_skb_load_bytes(skb, ip.ihl * 4, &udp, sizeof(udp)))
		return 1;
	port = bpf_ntohs(udp.dest);
	bpf_map_update_elem(&by_port, &port, &fresh, BPF_NOEXIST);
	traffic = bpf_map_lookup_elem(&by_port, &port);
	if (!traffic)
		return 1;
	if (closed_port && port == closed_port) {
		__sync_fetch_and_add(&traffic->refused, 1);
		return 0;
	}
	__sync_fetch_and_add(&traffic->packets, 1);
	__sync_fetch_and_add(&traffic->bytes, skb->len);
	return 1;
}

SEC("cgroup/sysctl")
int on_sysctl(struct bpf_sysctl *ctx)
{
	struct access *access = bpf_ringbuf_reserve(&accesses, sizeof(*access), 0);

	if (!access)
		return 1;
	if (bpf_sysctl_get_name(ctx, access->name, sizeof(access->name), 0) < 0)
		access->name[0] = 0;
	access->is_write = ctx->write;
	bpf_ringbuf_submit(access, 0);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
