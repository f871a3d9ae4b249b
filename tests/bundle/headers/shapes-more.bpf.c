#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct named { long z; }; typedef unsigned short u8; union un { long q; }; enum en { ZZ = 1 }; enum { Q1 = 7, E1 } second_enum = Q1;
struct named second_named = {1}; u8 second_u8 = 1; union un second_un = {1}; enum en second_en = ZZ; struct fwd { int x; } *second_fwd = 0;
SEC("socket") int second(void *ctx) { return second_u8; }
