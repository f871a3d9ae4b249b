"""The start of every loader: context, clean stack, cleanup block (``bpf_gen__init``)."""

from __future__ import annotations

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    Insn,
    alu64_imm,
    call_helper,
    decode_insns,
    exit_insn,
    jmp_imm,
    jump,
    ld_imm64,
    ldx_mem,
    mov64_imm,
    mov64_reg,
)
from bpfseal.bpf.uapi import Helper
from bpfseal.loader import generate
from bpfseal.loader.frame import Frame
from bpfseal.loader.model import Loader
from bpfseal.scheme import SCHEMES
from support.object_writer import ObjectWriter

FRAME_SIZE = {True: 168, False: 136}
"""Bytes of the frame: two fds, the digest in the kfunc scheme, 32 program fds."""


def sample(programs: int, maps: int, scheme: str = "kfunc", subprograms: int = 0) -> Loader:
    writer = ObjectWriter()
    for number in range(maps):
        writer.add_map(f"map{number}", type=1)
    for number in range(subprograms):
        writer.add_subprogram(f"sub{number}")
    for number in range(programs):
        writer.add_program("xdp", f"prog{number}")
    return generate(writer.read(), scheme)


def frame_size(scheme: str) -> int:
    return FRAME_SIZE[SCHEMES[scheme].has_loader_btf]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_saves_the_context_and_clears_the_stack(scheme: str) -> None:
    insns = decode_insns(sample(1, 0, scheme).insns)
    size = frame_size(scheme)
    assert insns[:6] == [
        mov64_reg(6, 1),
        mov64_reg(1, 10),
        alu64_imm(op.ADD, 1, -size),
        mov64_imm(2, size),
        mov64_imm(3, 0),  # reading from address 0 fails and clears the destination
        call_helper(Helper.PROBE_READ_KERNEL),
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("programs", "maps", "subprograms"), [(1, 0, 0), (3, 2, 0), (2, 1, 4), (32, 5, 0)]
)
def test_the_cleanup_block_closes_each_word_of_the_frame_and_each_map(
    scheme: str, programs: int, maps: int, subprograms: int
) -> None:
    insns = decode_insns(sample(programs, maps, scheme, subprograms).insns)
    size = frame_size(scheme)
    # the digest of the kfunc scheme is walked too; subprograms count as programs
    words = size // 4 - 32 + programs + subprograms
    expected: list[Insn] = []
    for word in range(words):
        expected += (
            ldx_mem(op.W, 1, 10, 4 * word - size),
            jmp_imm(op.JSLE, 1, 0, 1),
            call_helper(Helper.SYS_CLOSE),
        )
    for number in range(maps):
        expected += (
            *ld_imm64(0, op.PSEUDO_MAP_IDX_VALUE, 0, 4 * number),
            ldx_mem(op.W, 1, 0, 0),
            jmp_imm(op.JSLE, 1, 0, 2),
            mov64_reg(9, 1),
            call_helper(Helper.SYS_CLOSE),
        )
    expected += (mov64_reg(0, 7), exit_insn())
    assert insns[6] == jump(len(expected))
    assert insns[7 : 7 + len(expected)] == expected


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_error_jumps_back_to_the_cleanup_block(scheme: str) -> None:
    insns = decode_insns(sample(2, 2, scheme).insns)
    jumps = [
        index + 1 + insn.off
        for index, insn in enumerate(insns)
        if insn.insn_class == op.JMP and insn.code & 0xF0 not in (op.CALL, op.EXIT) and insn.off < 0
    ]
    assert jumps
    assert set(jumps) == {7}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_jump_leaves_the_program(scheme: str) -> None:
    insns = decode_insns(sample(3, 3, scheme).insns)
    for index, insn in enumerate(insns):
        if insn.insn_class == op.JMP and insn.code & 0xF0 not in (op.CALL, op.EXIT):
            assert 0 <= index + 1 + insn.off < len(insns)
    assert insns[-2:] == [mov64_imm(0, 0), exit_insn()]


def test_the_frame_has_the_fields_of_the_series() -> None:
    frame = Frame(has_hash=True)
    assert (frame.size, frame.btf_fd, frame.inner_map_fd) == (168, -168, -164)
    assert (frame.metadata_hash, frame.prog_fd(0), frame.prog_fd(32)) == (-160, -128, 0)
    frame = Frame(has_hash=False)
    assert (frame.size, frame.btf_fd, frame.inner_map_fd) == (136, -136, -132)
    assert (frame.prog_fd(0), frame.prog_fd(32)) == (-128, 0)
