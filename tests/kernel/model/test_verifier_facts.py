"""What the verifiers of releases do otherwise: each fact has its source, and changes an answer."""

from __future__ import annotations

from dataclasses import fields
from errno import EACCES, EINVAL

import pytest

from bpfseal.bpf import attr
from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    Insn,
    alu64_imm,
    encode_insns,
    exit_insn,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    stx_mem,
)
from bpfseal.bpf.uapi import Cmd, MapType, ProgFlag, ProgType
from bpfseal.errors import KernelError
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.kernel.model.verifier_facts import SOURCES, VerifierFacts
from bpfseal.kernel.protocol import MapCreate, ProgLoad

EXIT = exit_insn()


def errno_of(profile: str, *insns: Insn, flags: int = 0) -> int:
    kernel = ModelKernel(profile=PROFILES[profile])
    request = ProgLoad(
        ProgType.SYSCALL, "facts", encode_insns(insns), "GPL", flags=flags | ProgFlag.SLEEPABLE
    )
    try:
        kernel.prog_load(request)
    except KernelError as error:
        return error.errno
    return 0


def test_every_fact_has_a_source() -> None:
    assert SOURCES.keys() == {field.name for field in fields(VerifierFacts)}


def test_load_acquire_came_after_6_12() -> None:
    load_acquire = Insn(op.STX | op.ATOMIC | op.DW, 0, 10, -8, op.LOAD_ACQ)
    insns = (mov64_imm(1, 0), stx_mem(op.DW, 10, 1, -8), load_acquire, EXIT)
    assert (errno_of("6.12", *insns), errno_of("6.17", *insns)) == (EINVAL, 0)


def test_the_context_may_be_moved_from_7_1_on() -> None:
    insns = (alu64_imm(op.ADD, 1, 4), ldx_mem(op.W, 0, 1, 1), EXIT)
    assert (errno_of("7.0", *insns), errno_of("7.1", *insns)) == (EACCES, 0)


def test_a_quotient_has_a_range_from_7_0_on() -> None:
    insns = (
        ldx_mem(op.W, 2, 1, 0),
        alu64_imm(op.DIV, 2, 1 << 29),
        mov64_reg(3, 10),
        alu64_imm(op.ADD, 3, -8),
        mov64_imm(4, 0),
        stx_mem(op.DW, 10, 4, -8),
        Insn(op.ALU64 | op.ADD | op.X, 3, 2),
        ldx_mem(op.B, 0, 3, 0),
        EXIT,
    )
    assert errno_of("6.19", *insns) != 0
    assert errno_of("7.0", *insns) == 0


def test_strict_alignment_is_kept_when_it_is_asked_for() -> None:
    insns = (ldx_mem(op.W, 0, 1, 1), EXIT)
    assert errno_of("7.2", *insns) == 0
    assert errno_of("7.2", *insns, flags=ProgFlag.STRICT_ALIGNMENT) == EACCES


@pytest.mark.parametrize("profile", PROFILES)
def test_one_insn_is_not_for_the_context_and_the_stack(profile: str) -> None:
    """save_aux_ptr_type: what an insn reads is compiled for one kind of pointer."""
    insns = (
        ldx_mem(op.DW, 2, 1, 0),
        mov64_reg(7, 1),
        Insn(op.JMP | op.JEQ | op.K, 2, 0, 2, 1),
        mov64_reg(7, 10),
        alu64_imm(op.ADD, 7, -8),
        Insn(op.ST | op.MEM | op.DW, 7, 0, 0, 0),
        mov64_imm(0, 0),
        EXIT,
    )
    assert errno_of(profile, *insns) == EINVAL


def test_a_program_holds_a_map_that_is_bound_to_it() -> None:
    """BPF_PROG_BIND_MAP (bpf_prog_bind_map in kernel/bpf/syscall.c)."""
    kernel = ModelKernel(profile=PROFILES["7.3"])
    program = kernel.prog_load(
        ProgLoad(
            ProgType.SYSCALL, "p", encode_insns((mov64_imm(0, 0), EXIT)), "GPL",
            flags=ProgFlag.SLEEPABLE,
        )
    )  # fmt: skip
    bound = kernel.map_create(MapCreate(MapType.ARRAY, "bound", 4, 8, 1))

    def bind(prog_fd: int, map_fd: int, flags: int = 0) -> int:
        given = attr.PROG_BIND_MAP.pack(prog_fd=prog_fd, map_fd=map_fd, flags=flags)
        return kernel.sys_bpf(Cmd.PROG_BIND_MAP, bytearray(given))

    assert bind(program, bound) == bind(program, bound) == 0
    assert kernel.program(program).maps == ("bound",)
    for arguments in ((bound, bound), (program, program), (program, bound, 1)):
        with pytest.raises(KernelError) as refused:
            bind(*arguments)
        assert refused.value.errno == EINVAL
