#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
int err = 1, fd = 1, skel_free = 1, bpf_load_and_run = 1, ctx = 2, stdin_ = 3, compl_ = 1;
SEC("raw_tp/a") int skel(void *ctx) { return err + fd; }
SEC("raw_tp/a") int system(void *ctx) { return 0; }
SEC("raw_tp/a") int ret(void *ctx) { return 0; }
SEC("raw_tp/a") int data(void *ctx) { return 0; }
SEC("raw_tp/a") int opts(void *ctx) { return 0; }
SEC("raw_tp/a") int prog_fd(void *ctx) { return 0; }
SEC("raw_tp/a") int cleanup(void *ctx) { return 0; }
SEC("raw_tp/a") int close(void *ctx) { return 0; }
SEC("raw_tp/a") int skel_closenz(void *ctx) { return 0; }
SEC("raw_tp/a") int attach(void *ctx) { return 0; }
SEC("raw_tp/a") int names_bpf(void *ctx) { return 0; }
SEC("raw_tp/a") int final(void *ctx) { return 0; }
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 5); __uint(map_flags, BPF_F_MMAPABLE); __type(key, int); __type(value, long); } maps SEC(".maps"), links SEC(".maps"), progs SEC(".maps"), s SEC(".maps"), keyring_id SEC(".maps"), bss SEC(".maps");
char _license[] SEC("license") = "GPL";
