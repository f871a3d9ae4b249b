"""Read the digest of the metadata out of a loader's instructions.

A loader that checks its metadata carries the digest in immediates of its own, which its signature
covers: the check block (`bpfseal.loader.checks` emits it). Whoever holds the loader can so tell
before the first call to a kernel whether metadata and instructions belong together.

Example:
    >>> carried_digest(loader.insns, loader.scheme, loader.byteorder) == loader.metadata_digest
    True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    ByteOrder,
    Insn,
    alu64_imm,
    decode_insns,
    jmp_imm,
    ld_imm64,
    mov64_imm,
    mov64_reg,
    stx_mem,
)
from bpfseal.bpf.uapi import SHA256_SIZE
from bpfseal.scheme import Scheme

KFUNC_BLOCK_SLOTS: Final = 20
"""Slots of the check block of the `kfunc` scheme."""

_WORDS: Final = SHA256_SIZE // 8
_FIRST_WORD: Final = 4
_SLOTS_PER_WORD: Final = 3


def carried_digest(insns: bytes, scheme: Scheme, byteorder: ByteOrder) -> bytes | None:
    """Return the SHA-256 of the metadata that a loader's instructions carry.

    Args:
        insns: the loader program.
        scheme: the scheme of the loader.
        byteorder: the byte order of the machine that the loader is for.

    Returns:
        32 bytes, or ``None`` for a loader without a check block of this scheme.

    Raises:
        InputError: if the length is no multiple of 8 bytes.
    """
    find = _BLOCKS.get(scheme.name)
    words = find(decode_insns(insns, byteorder)) if find else None
    if words is None:
        return None
    return b"".join(word.to_bytes(8, byteorder) for word in words)


def _find_kfunc_block(slots: Sequence[Insn]) -> list[int] | None:
    """Return the digest's words in the first check block of the `kfunc` scheme."""
    for start in range(len(slots) - KFUNC_BLOCK_SLOTS + 1):
        block = slots[start : start + KFUNC_BLOCK_SLOTS]
        words = [_word(block, index) for index in range(_WORDS)]
        if list(block) == _kfunc_block(
            words, hash_at=block[3].imm, call=block[-3], leave=block[-1]
        ):
            return words
    return None


def _word(block: Sequence[Insn], index: int) -> int:
    at = _FIRST_WORD + _SLOTS_PER_WORD * index
    low, high = block[at].imm, block[at + 1].imm
    return (high & 0xFFFFFFFF) << 32 | low & 0xFFFFFFFF


def _kfunc_block(words: Sequence[int], *, hash_at: int, call: Insn, leave: Insn) -> list[Insn]:
    """Return the check block with these words; offsets and the FUNC's id are free.

    Source: kfunc scheme: map, frame slot, four words, length, call, and the jump to the cleanup
    block, which lies before the check block.
    """
    spill = [
        insn
        for index, word in enumerate(words)
        for insn in (*ld_imm64(3, 0, word, word >> 32), stx_mem(op.DW, 2, 3, 8 * index))
    ]
    return [
        *ld_imm64(1, op.PSEUDO_MAP_IDX, 0),
        mov64_reg(2, 10),
        alu64_imm(op.ADD, 2, hash_at),
        *spill,
        mov64_imm(3, SHA256_SIZE),
        Insn(op.JMP | op.CALL, 0, op.PSEUDO_KFUNC_CALL_PROG_BTF, 0, call.imm),
        mov64_reg(7, 0),
        jmp_imm(op.JNE, 0, 0, min(leave.off, -KFUNC_BLOCK_SLOTS)),
    ]


_BLOCKS: Final[dict[str, Callable[[Sequence[Insn]], list[int] | None]]] = {
    "kfunc": _find_kfunc_block,
}
"""Finds the check block, by the name of the scheme."""
