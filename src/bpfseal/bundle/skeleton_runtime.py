"""The part of a C skeleton that is the same in all of them.

It makes the calls of `bpfseal.kernel.load.load` with bpf(2) itself and attributes of its own, so
that it needs no structures of newer headers than those of libbpf 1.1. Several skeletons may be
included in one file: the text is guarded.
"""

from __future__ import annotations

from typing import Final

RUNTIME: Final = r"""#ifndef BPFSEAL_SKELETON_RUNTIME
#define BPFSEAL_SKELETON_RUNTIME

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <linux/keyctl.h>
#include <bpf/libbpf.h>
#include <bpf/skel_internal.h>

#ifdef __KERNEL__
#error "this skeleton loads from user space"
#endif

#ifdef __cplusplus
#define BPFSEAL_ASSERT(condition, message) static_assert(condition, message)
#else
#define BPFSEAL_ASSERT(condition, message) _Static_assert(condition, message)
#endif

BPFSEAL_ASSERT(sizeof(struct bpf_loader_ctx) == 24, "another loader context");
BPFSEAL_ASSERT(sizeof(struct bpf_map_desc) == 16, "another map descriptor");
BPFSEAL_ASSERT(sizeof(struct bpf_prog_desc) == 4, "another program descriptor");

enum {
	BPFSEAL_BIND_METADATA = 1, /* the kernel covers the metadata: fd_array_cnt is 1 */
	BPFSEAL_ASK_HASH = 2,      /* the loader reads the map's hash, which must be asked for */
	BPFSEAL_HOST_VALUES = 4,   /* the loader takes max_entries and data from the context */
	BPFSEAL_UNSIGNED = 8,      /* it was asked for a loader that nobody signed */
};

/* One way to load the object: a loader, and one of the signatures over it. */
struct bpfseal_attempt {
	const void *insns;
	const void *metadata;
	const void *btf;
	const void *excl_prog_hash; /* NULL: unsigned */
	const void *signature;
	__u32 insns_size;
	__u32 metadata_size;
	__u32 btf_size;
	__u32 signature_size;
	__u32 flags;
};

/* The attributes of bpf(2), as in include/uapi/linux/bpf.h of Linux 6.18. */
struct bpfseal_map_create {
	__u32 map_type, key_size, value_size, max_entries;
	__u32 map_flags, inner_map_fd, numa_node;
	char map_name[16];
	__u32 map_ifindex, btf_fd, btf_key_type_id, btf_value_type_id, btf_vmlinux_value_type_id;
	__u64 map_extra;
	__s32 value_type_btf_obj_fd, map_token_fd;
	__u64 excl_prog_hash;
	__u32 excl_prog_hash_size, unused;
};

struct bpfseal_prog_load {
	__u32 prog_type, insn_cnt;
	__u64 insns, license;
	__u32 log_level, log_size;
	__u64 log_buf;
	__u32 kern_version, prog_flags;
	char prog_name[16];
	__u32 prog_ifindex, expected_attach_type, prog_btf_fd, func_info_rec_size;
	__u64 func_info;
	__u32 func_info_cnt, line_info_rec_size;
	__u64 line_info;
	__u32 line_info_cnt, attach_btf_id, attach_btf_obj_fd, core_relo_cnt;
	__u64 fd_array, core_relos;
	__u32 core_relo_rec_size, log_true_size;
	__s32 prog_token_fd;
	__u32 fd_array_cnt;
	__u64 signature;
	__u32 signature_size;
	__s32 keyring_id;
};

BPFSEAL_ASSERT(offsetof(struct bpfseal_map_create, excl_prog_hash_size) == 88, "layout");
BPFSEAL_ASSERT(sizeof(struct bpfseal_prog_load) == 168, "layout");

static inline __u64 bpfseal_u64(const void *pointer)
{
	return (__u64)(unsigned long)pointer;
}

/* How often a call is made that signals disturb, as libbpf has it. */
enum { BPFSEAL_TRIES = 5 };

/* With a timer that is faster than the call every try could fail: no signals at the last one. */
static inline void bpfseal_hold_signals(int tries, sigset_t *before)
{
	sigset_t all;

	if (tries != BPFSEAL_TRIES)
		return;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, before);
}

static inline void bpfseal_release_signals(int tries, const sigset_t *before)
{
	if (tries == BPFSEAL_TRIES)
		sigprocmask(SIG_SETMASK, before, NULL);
}

/* bpf(2) with a negative errno as its error. A signal may disturb the verifier: try again. */
static inline int bpfseal_bpf(int command, void *attr, size_t size)
{
	int tries = 0, err;
	sigset_t before;
	long result;

	do {
		bpfseal_hold_signals(++tries, &before);
		result = syscall(__NR_bpf, command, attr, (unsigned int)size);
		err = result < 0 ? -errno : (int)result;
		bpfseal_release_signals(tries, &before);
	} while ((err == -EAGAIN || err == -EINTR) && tries < BPFSEAL_TRIES);
	return err;
}

/* The bytes that the value of a map of global data takes in memory. */
static inline size_t bpfseal_pages(size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (size + page - 1) / page * page;
}

static inline int bpfseal_create_metadata_map(const struct bpfseal_attempt *attempt)
{
	struct bpfseal_map_create attr;
	size_t size = offsetof(struct bpfseal_map_create, value_type_btf_obj_fd);

	memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_ARRAY;
	attr.key_size = 4;
	attr.value_size = attempt->metadata_size;
	attr.max_entries = 1;
	memcpy(attr.map_name, "__loader.map", sizeof("__loader.map"));
	if (attempt->excl_prog_hash) {
		attr.excl_prog_hash = bpfseal_u64(attempt->excl_prog_hash);
		attr.excl_prog_hash_size = 32;
		size = offsetof(struct bpfseal_map_create, unused);
	}
	return bpfseal_bpf(BPF_MAP_CREATE, &attr, size);
}

static inline int bpfseal_fill_metadata_map(const struct bpfseal_attempt *attempt, int map_fd)
{
	struct { __u32 map_fd, unused; __u64 key, value, flags; } update;
	struct { __u32 map_fd; } freeze;
	__u32 key = 0;
	int err;

	memset(&update, 0, sizeof(update));
	update.map_fd = (__u32)map_fd;
	update.key = bpfseal_u64(&key);
	update.value = bpfseal_u64(attempt->metadata);
	err = bpfseal_bpf(BPF_MAP_UPDATE_ELEM, &update, sizeof(update));
	if (err < 0 || !attempt->excl_prog_hash)
		return err;
	freeze.map_fd = (__u32)map_fd;
	return bpfseal_bpf(BPF_MAP_FREEZE, &freeze, sizeof(freeze));
}

/* Let the kernel compute the hash that the loader's own instructions compare. */
static inline int bpfseal_ask_hash(int map_fd)
{
	struct { __u8 before[88]; __u64 hash; __u32 hash_size, unused; } info;
	struct { __u32 fd, info_len; __u64 info; } attr;
	__u8 hash[32] = { 0 };

	memset(&info, 0, sizeof(info));
	info.hash = bpfseal_u64(hash);
	info.hash_size = sizeof(hash);
	attr.fd = (__u32)map_fd;
	attr.info_len = sizeof(info);
	attr.info = bpfseal_u64(&info);
	return bpfseal_bpf(BPF_OBJ_GET_INFO_BY_FD, &attr, sizeof(attr));
}

static inline int bpfseal_load_btf(const struct bpfseal_attempt *attempt)
{
	struct { __u64 btf, log_buf; __u32 size, log_size, log_level; } attr;

	memset(&attr, 0, sizeof(attr));
	attr.btf = bpfseal_u64(attempt->btf);
	attr.size = attempt->btf_size;
	return bpfseal_bpf(BPF_BTF_LOAD, &attr, 28);
}

static inline int bpfseal_load_loader(const struct bpfseal_attempt *attempt,
		const struct bpf_loader_ctx *ctx, __s32 keyring_id,
		const int *map_fd, int btf_fd)
{
	struct bpfseal_prog_load attr;
	size_t size = offsetof(struct bpfseal_prog_load, core_relos);

	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_SYSCALL;
	attr.insns = bpfseal_u64(attempt->insns);
	attr.insn_cnt = attempt->insns_size / 8;
	attr.license = bpfseal_u64("Dual BSD/GPL");
	attr.log_level = ctx->log_level;
	attr.log_size = ctx->log_size;
	attr.log_buf = ctx->log_buf;
	attr.prog_flags = BPF_F_SLEEPABLE;
	memcpy(attr.prog_name, "__loader.prog", sizeof("__loader.prog"));
	attr.fd_array = bpfseal_u64(map_fd);
	if (attempt->btf)
		attr.prog_btf_fd = (__u32)btf_fd;
	if (attempt->signature) {
		attr.fd_array_cnt = attempt->flags & BPFSEAL_BIND_METADATA ? 1 : 0;
		attr.signature = bpfseal_u64(attempt->signature);
		attr.signature_size = attempt->signature_size;
		attr.keyring_id = keyring_id;
		size = sizeof(attr);
	}
	return bpfseal_bpf(BPF_PROG_LOAD, &attr, size);
}

static inline int bpfseal_run_loader(struct bpf_loader_ctx *ctx, int prog_fd)
{
	struct {
		__u32 prog_fd, retval, data_size_in, data_size_out;
		__u64 data_in, data_out;
		__u32 repeat, duration, ctx_size_in, ctx_size_out;
		__u64 ctx_in, ctx_out;
	} attr;
	int tries = 0, err;
	sigset_t before;

	/* A signal disturbs the verifier at what the loader loads, too: it has closed all again. */
	do {
		bpfseal_hold_signals(++tries, &before);
		memset(&attr, 0, sizeof(attr));
		attr.prog_fd = (__u32)prog_fd;
		attr.ctx_in = bpfseal_u64(ctx);
		attr.ctx_size_in = ctx->sz;
		err = bpfseal_bpf(BPF_PROG_TEST_RUN, &attr, sizeof(attr));
		if (err >= 0)
			err = (int)attr.retval < 0 ? (int)attr.retval : 0;
		bpfseal_release_signals(tries, &before);
	} while (err == -EAGAIN && tries < BPFSEAL_TRIES);
	return err;
}

/*
 * Load and run one loader; every fd that it needs is closed again. *refused says that the kernel
 * did not take the loader at all, so that one of another format may do.
 */
static inline int bpfseal_attempt_load(const struct bpfseal_attempt *attempt,
		struct bpf_loader_ctx *ctx, __s32 keyring_id, bool *refused)
{
	int map_fd, btf_fd = -1, prog_fd = -1, err;

	*refused = false;
	/* Without a signature, or with one that nobody would look at, only what says so is loaded. */
	if (!(attempt->flags & BPFSEAL_UNSIGNED) != (attempt->signature && attempt->excl_prog_hash))
		return -EPERM;
	err = map_fd = bpfseal_create_metadata_map(attempt);
	if (err < 0)
		return err;
	err = bpfseal_fill_metadata_map(attempt, map_fd);
	if (err < 0)
		goto out;
	*refused = true;
	if (attempt->flags & BPFSEAL_ASK_HASH) {
		err = bpfseal_ask_hash(map_fd);
		if (err < 0)
			goto out;
	}
	if (attempt->btf) {
		err = btf_fd = bpfseal_load_btf(attempt);
		if (err < 0)
			goto out;
	}
	err = prog_fd = bpfseal_load_loader(attempt, ctx, keyring_id, &map_fd, btf_fd);
	if (err < 0)
		goto out;
	*refused = false;
	err = bpfseal_run_loader(ctx, prog_fd);
out:
	if (prog_fd >= 0)
		close(prog_fd);
	if (btf_fd >= 0)
		close(btf_fd);
	close(map_fd);
	return err;
}

/* How much a refusal tells; 0: it is none of a format or a key, and ends the load. */
static inline int bpfseal_weight(int err)
{
	switch (-err) {
	case EKEYREJECTED: /* what a signature of another format gets */
		return 1;
	case E2BIG:
	case EACCES:
	case EINVAL:
	case ENOENT:
	case ENOPKG:
		return 2;
	case ENOKEY:
		return 3;
	default:
		return 0;
	}
}

/*
 * Try the ways to load an object in their order. The next one is tried only if the kernel refused
 * to take the loader, for its format or its key; the error that is returned is the one that tells
 * most. A caller that changed values gets -EPERM if only loaders were left that ignore them.
 */
static inline int bpfseal_load(const struct bpfseal_attempt *attempts, size_t count,
		struct bpf_loader_ctx *ctx, __s32 keyring_id, bool changed_values)
{
	int kept = 0, weight, best = 0, err;
	bool refused, ignored = false;
	size_t i;

	for (i = 0; i < count; i++) {
		if (changed_values && !(attempts[i].flags & BPFSEAL_HOST_VALUES)) {
			ignored = true;
			continue;
		}
		err = bpfseal_attempt_load(&attempts[i], ctx, keyring_id, &refused);
		weight = refused ? bpfseal_weight(err) : 0;
		if (err >= 0 || !weight) {
			if (err < 0)
				errno = -err;
			return err;
		}
		if (weight > best) {
			best = weight;
			kept = err;
		}
	}
	if (ignored)
		kept = -EPERM;
	errno = -kept;
	return kept;
}

static inline int bpfseal_error(int fd)
{
	return fd < 0 ? -errno : fd;
}

/* The options of open_opts that a loader can follow go into its context. */
static inline int bpfseal_use_opts(struct bpf_loader_ctx *ctx,
		const struct bpf_object_open_opts *opts)
{
	struct bpf_object_open_opts known;

	if (!opts)
		return 0;
	if (opts->sz < sizeof(opts->sz))
		return -EINVAL;
	memset(&known, 0, sizeof(known));
	memcpy(&known, opts, opts->sz < sizeof(known) ? opts->sz : sizeof(known));
	ctx->log_buf = bpfseal_u64(known.kernel_log_buf);
	ctx->log_size = (__u32)known.kernel_log_size;
	ctx->log_level = known.kernel_log_level;
	if (known.kernel_log_size > 0xffffffffU)
		return -EINVAL;
	if (known.relaxed_maps || known.pin_root_path || known.kconfig || known.btf_custom_path)
		return -EOPNOTSUPP;
	return 0;
}

#endif /* BPFSEAL_SKELETON_RUNTIME */
"""
