#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>
typedef unsigned char u8; typedef __u64 myt; typedef int (*fnt)(int, char *);
struct named { int a; char b; };
union un { int a; char b[16]; };
enum en { A = 0, B = 5, C = -1 };
struct fwd;
struct __attribute__((packed)) pk { char a; int b; };
/* scalars */
char s_c = 1; signed char s_sc = 1; unsigned char s_uc = 1; short s_s = 1; unsigned short s_us = 1; long s_l = 1; unsigned long long s_ull = 1; long long s_ll=1; bool s_b = 1; __int128 s_i128 = 1; unsigned __int128 s_u128 = 1;
const volatile int c_int = 3; const volatile myt c_myt = 4; volatile u8 c_arr[3] = {1}; const volatile char *const volatile c_ptr = 0;
volatile const char * volatile * const c_pp = 0;
struct named x_named = {1}; union un x_un = {1}; enum en x_en = B; struct fwd *x_fwd; struct named *x_pn; struct pk x_pk = {1}; 
char odd1 = 1; struct pk x_pk2 = {1}; char odd2 = 1; struct pk x_pk3[3] = {{1}};
/* anonymous */
struct { int a; char b; long c; } an1 = {1};
struct { char a; long b; short c; } an2[2][3] = {{{1}}};
union { int i; struct { char a; short b; }; long l; } an3 = {1};
struct __attribute__((packed)) { char a; long b; short c; } an4 = {1};
struct { int a: 3; int : 5; unsigned b: 7; int: 0; unsigned long c: 33; long d: 1; char e; } an5 = {1};
struct { char a; char b __attribute__((aligned(16))); short c; } an6 = {1};
struct { char a; char b __attribute__((aligned(8))); } an7 = {1};
struct { char a; struct { int x; char pad[3]; } __attribute__((packed)) n; short c; } an8 = {1};
struct { int a; char f[0]; } an10 = {1};
struct { struct { struct { int deep; } d3; } d2[2]; } an11 = {{{{1}}}};
struct { int a; } __attribute__((aligned(64))) an12 = {1};
struct { unsigned a: 3; unsigned b: 4; unsigned c __attribute__((aligned(8))); unsigned long d: 60; } an13 = {1};
struct { enum { EA, EB } e; int k; } an14 = {1};
struct { unsigned long a: 1; int b; short c: 2; char d: 3; char q; long r; char t; } an15 = {1};
enum { E1 = 1, E2 = -2 } ae1 = E1; enum { F1 = 1, F2 = 0xffffffff } ae2 = F1; enum { G1 = 1, G2 = 0x123456789aULL } ae3 = G1; enum { H1 = -1, H2 = 0x7fffffffffffffffLL } ae4 = H1;
enum __attribute__((packed)) { P1 = 1, P2 } ae5 = P1;
enum __attribute__((mode(word))) { W1 = 1, W2 } ae6 = W1;
enum __attribute__((packed)) pe { PP1 = 1 } ae7 = PP1;
enum { Q1 = 1, Q2 } ae8 = Q1, ae9 = Q1; struct { enum { R1 = 1 } e, f; } ae10 = {1};
/* arrays pointers functions */
int a1[2] = {1}; int a2[2][3] = {{1}}; int a3[2][3][4] = {{{1}}}; int *a4[5] = {0}; int (*a5)[5] = 0; int *(*a6[3])[7] = {0}; int (*(*a7)[2])[3] = 0;
const volatile int a8[2][2] = {{1}};
fnt f1 = 0; int (*f2)(void) = 0; void *(*f3)(struct named *, const char *, ...) = 0; int (*f4[3])(int (*)(char), enum en) = {0}; int (*(*f5)(int))(long) = 0; void (*f6)() = 0; struct named (*f7)(struct { int z; } *p, int q[4]) = 0; void (*(*f8)(int, void (*)(int)))(int) = 0; char (*(*f9)(int))[3] = 0; fnt (*f10)(fnt, myt *) = 0; int **(*f11)(int **) = 0;
void *v1 = 0; const void *v2 = 0; void **v3 = 0;
static volatile int stat1 = 3; static volatile char stat2 = 1;
int after_static = 5;
int hid = 3;
int sect_a SEC(".data.my-sec.x") = 4; static volatile int sect_s SEC(".data.only_static") = 5; const int sect_ro SEC(".rodata.cfg") = 1; char sect_b[5];
float fl = 1; double db = 2;
extern bool CONFIG_BPF __kconfig; extern const int CONFIG_HZ __kconfig; extern char CONFIG_X[10] __kconfig __weak; extern enum libbpf_tristate CONFIG_Y __kconfig __weak; extern const volatile unsigned long CONFIG_Z __kconfig __weak;
extern int LINUX_KERNEL_VERSION __kconfig;
SEC("raw_tp/sys_enter") int rt(void *ctx) { sect_b[0] = CONFIG_BPF + CONFIG_HZ + CONFIG_X[0] + CONFIG_Y + CONFIG_Z + LINUX_KERNEL_VERSION; static volatile int inner = 3; return c_int + stat1 + stat2 + sect_s + inner; }
SEC("raw_tracepoint.w/sys_enter") int rtw(void *ctx) { return 0; }
SEC("xdp") int class(void *ctx) { return 0; }
SEC("socket") int skel(void *ctx) { return 0; }
SEC("socket") int system(void *ctx) { return 0; }
SEC("kprobe/x") int ret(void *ctx) { return 0; }
SEC("tp/a/b") int data(void *ctx) { return 0; }
SEC("tp_btf/sched_switch") int tpb(void *ctx) { return 0; }
SEC("iter/task") int itr(void *ctx) { return 0; }
SEC("lsm/file_open") int lsmp(void *ctx) { return 0; }
SEC("fentry/do_unlinkat") int fe(void *ctx) { return 0; }
SEC("fmod_ret/security_file_open") int fmr(void *ctx) { return 0; }
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 5); __uint(map_flags, BPF_F_MMAPABLE); __type(key, int); __type(value, long); } opts SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 5); __type(key, int); __type(value, long); } maps SEC(".maps");
char _license[] SEC("license") = "GPL";
