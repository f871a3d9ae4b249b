// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * netwatch: packets of one UDP port, seen by tcx and netfilter, and a socket chosen by sk_lookup for
 * it. Compiled with:
 *
 *   make -C examples
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define TCX_NEXT -1
#define NF_ACCEPT 1

enum place {
	INGRESS,
	EGRESS,
	FILTER,
	LOOKUP,
	PLACES,
};

/* Packets seen, by place. */
__u64 seen[PLACES];

/* The port that is watched. */
__u16 port;

static __always_inline int count(struct __sk_buff *skb, enum place place)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);
	struct udphdr *udp = (void *)(ip + 1);

	if ((void *)(udp + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return TCX_NEXT;
	if (ip->protocol == IPPROTO_UDP && bpf_ntohs(udp->dest) == port)
		__sync_fetch_and_add(&seen[place], 1);
	return TCX_NEXT;
}

SEC("tcx/ingress")
int on_ingress(struct __sk_buff *skb)
{
	return count(skb, INGRESS);
}

SEC("tcx/egress")
int on_egress(struct __sk_buff *skb)
{
	return count(skb, EGRESS);
}

SEC("netfilter")
int on_packet(void *ctx)
{
	__sync_fetch_and_add(&seen[FILTER], 1);
	return NF_ACCEPT;
}

SEC("sk_lookup")
int on_lookup(struct bpf_sk_lookup *ctx)
{
	if (ctx->protocol == IPPROTO_UDP && ctx->local_port == port)
		__sync_fetch_and_add(&seen[LOOKUP], 1);
	return SK_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
