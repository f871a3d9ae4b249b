"""The check block of the kfunc scheme, behind the cleanup block and before all else."""

from __future__ import annotations

import hashlib
import struct

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    ByteOrder,
    Insn,
    alu64_imm,
    decode_insns,
    encode_insns,
    exit_insn,
    jmp_imm,
    ld_imm64,
    mov64_imm,
    mov64_reg,
    stx_mem,
)
from bpfseal.loader import generate
from bpfseal.loader.model import Loader
from support.samples import everything

BLOCK = 20
"""Slots of the block."""


def block_of(loader: Loader) -> tuple[int, list[Insn]]:
    """Return where the block begins and its instructions."""
    insns = decode_insns(loader.insns, loader.byteorder)
    start = 7 + insns[6].off
    assert insns[start - 1] == exit_insn()
    return start, insns[start : start + BLOCK]


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_the_block_is_that_of_the_series(byteorder: ByteOrder) -> None:
    loader = generate(everything(byteorder).read(), "kfunc")
    start, block = block_of(loader)
    digest = hashlib.sha256(loader.metadata).digest()
    words = struct.unpack("<4Q" if byteorder == "little" else ">4Q", digest)
    expected = [*ld_imm64(1, op.PSEUDO_MAP_IDX, 0), mov64_reg(2, 10), alu64_imm(op.ADD, 2, -160)]
    for number, word in enumerate(words):
        expected += ld_imm64(3, 0, word, word >> 32)
        expected.append(stx_mem(op.DW, 2, 3, 8 * number))
    expected += [
        mov64_imm(3, 32),
        Insn(op.JMP | op.CALL, 0, 3, 0, 4),
        mov64_reg(7, 0),
        jmp_imm(op.JNE, 0, 0, 7 - (start + BLOCK)),
    ]
    assert len(expected) == BLOCK
    assert block == expected


def test_the_block_as_bytes() -> None:
    loader = generate(everything().read(), "kfunc")
    start, block = block_of(loader)
    digest = loader.metadata_digest
    parts = [digest[at : at + 4] for at in range(0, 32, 4)]
    expected = bytes.fromhex("1851000000000000 0000000000000000 bfa2000000000000 0702000060ffffff")
    for number in range(4):
        expected += b"\x18\x03\0\0" + parts[2 * number] + bytes(4) + parts[2 * number + 1]
        expected += b"\x7b\x32" + struct.pack("<h", 8 * number) + bytes(4)
    expected += bytes.fromhex("b703000020000000 8530000004000000 bf07000000000000")
    expected += b"\x55\0" + struct.pack("<hi", 7 - start - BLOCK, 0)
    assert encode_insns(block) == expected


def test_it_is_the_only_kfunc_call() -> None:
    insns = decode_insns(generate(everything().read(), "kfunc").insns)
    assert sum(insn.code == op.JMP | op.CALL and insn.src == 3 for insn in insns) == 1
