"""The check block of each scheme: what a loader does to make sure of its metadata.

The digest of the metadata is known only when the whole blob is built, so a block is emitted with
zeros, and `CheckBlock.fill` puts the digest in.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    ByteOrder,
    Insn,
    alu64_imm,
    ld_imm64,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    signed32,
    stx_mem,
)
from bpfseal.bpf.uapi import SHA256_SIZE
from bpfseal.btf.builder import BtfBuilder
from bpfseal.loader.emitter import Emitter

VERIFY_KFUNC = "bpf_loader_verify_metadata"
"""The kfunc of the seed (kernel/bpf/helpers.c)."""

_R0, _R1, _R2, _R3, _R7, _R10 = 0, 1, 2, 3, 7, 10


def _loader_btf() -> tuple[bytes, int]:
    builder = BtfBuilder()
    int_id = builder.add_int("int", 4, signed=True)
    void_pointer = builder.add_ptr(0)
    proto = builder.add_func_proto(int_id, [("map", void_pointer), ("hash", void_pointer)])
    func = builder.add_func(VERIFY_KFUNC, proto)
    return builder.encode(), func


LOADER_BTF, VERIFY_KFUNC_ID = _loader_btf()
"""The BTF that names the kfunc, and the kfunc's type id in it: the same on every host."""


@dataclass(frozen=True, slots=True)
class CheckBlock:
    """Where the digest goes: the index of each ld_imm64 that holds 8 bytes of it."""

    digest_insns: tuple[int, ...]

    def read(self, slots: Sequence[Insn], byteorder: ByteOrder) -> bytes:
        """Return the digest that these instructions hold."""
        words = (
            (slots[index + 1].imm & 0xFFFFFFFF) << 32 | slots[index].imm & 0xFFFFFFFF
            for index in self.digest_insns
        )
        return b"".join(word.to_bytes(8, byteorder) for word in words)

    def fill(self, emitter: Emitter, digest: bytes) -> None:
        """Put a digest into the ld_imm64 instructions, 8 bytes each, in the target's order."""
        for number, index in enumerate(self.digest_insns):
            part = digest[8 * number : 8 * number + 8]
            value = int.from_bytes(part, emitter.byteorder)
            for slot, imm in ((index, value), (index + 1, value >> 32)):
                emitter.insns[slot] = emitter.insns[slot]._replace(imm=signed32(imm))


def emit_kfunc_check(emitter: Emitter) -> CheckBlock:
    """Emit the seed's block: hand the map and the digest to the kernel, leave if it says no."""
    emitter.emit(
        *ld_imm64(_R1, op.PSEUDO_MAP_IDX, 0),
        mov64_reg(_R2, _R10),
        alu64_imm(op.ADD, _R2, emitter.frame.metadata_hash),
    )
    digest_insns = []
    for offset in range(0, SHA256_SIZE, 8):
        digest_insns.append(len(emitter.insns))
        emitter.emit(*ld_imm64(_R3, 0, 0), stx_mem(op.DW, _R2, _R3, offset))
    emitter.emit(
        mov64_imm(_R3, SHA256_SIZE),
        Insn(op.JMP | op.CALL, 0, op.PSEUDO_KFUNC_CALL_PROG_BTF, 0, VERIFY_KFUNC_ID),
        mov64_reg(_R7, _R0),
    )
    emitter.jump_to_cleanup(op.JNE, _R0, 0)
    return CheckBlock(tuple(digest_insns))


def emit_inline_original_check(emitter: Emitter) -> CheckBlock:
    """Emit four comparisons of ``map->sha`` with the digest, each of which may leave."""
    digest_insns = []
    for offset in range(0, SHA256_SIZE, 8):
        emitter.emit(*ld_imm64(_R1, op.PSEUDO_MAP_IDX, 0), ldx_mem(op.DW, _R2, _R1, offset))
        digest_insns.append(len(emitter.insns))
        emitter.emit(*ld_imm64(_R3, 0, 0), mov64_imm(_R7, -errno.EINVAL))
        emitter.jump_to_cleanup_unless_equal(_R2, _R3)
    return CheckBlock(tuple(digest_insns))


def emit_inline_check(emitter: Emitter) -> CheckBlock:
    """Emit the hardened block: ``map->excl`` must be 1, then the same comparisons."""
    emitter.emit(
        *ld_imm64(_R1, op.PSEUDO_MAP_IDX, 0),
        ldx_mem(op.W, _R2, _R1, SHA256_SIZE),
        mov64_imm(_R7, -errno.EINVAL),
    )
    emitter.jump_to_cleanup(op.JNE, _R2, 1)
    return emit_inline_original_check(emitter)


CHECKS: dict[str, Callable[[Emitter], CheckBlock]] = {
    "kfunc": emit_kfunc_check,
    "inline-original": emit_inline_original_check,
    "inline": emit_inline_check,
}
"""The check block of each scheme that has one."""
