"""The model gives up where a kernel would go on: its work is bounded by what it is given."""

from __future__ import annotations

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    Insn,
    alu64_imm,
    call_helper,
    encode_insns,
    exit_insn,
    jmp_imm,
    ld_imm64,
    mov64_imm,
    mov64_reg,
)
from bpfseal.bpf.uapi import Helper, MapType, ProgFlag, ProgType
from bpfseal.errors import CapabilityError, KernelError
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.analysis import pruning
from bpfseal.kernel.model.analysis.state import Frame
from bpfseal.kernel.model.work import CALL, PATIENCE, ROOM, Work
from bpfseal.kernel.protocol import MapCreate, ProgLoad

NOTHING = [mov64_imm(0, 0), exit_insn()]


def load(kernel: ModelKernel, insns: list[Insn], *fds: int) -> int:
    code = encode_insns(insns)
    flags = ProgFlag.SLEEPABLE
    return kernel.prog_load(ProgLoad(ProgType.SYSCALL, "x", code, "GPL", flags=flags, fd_array=fds))


def counting(rounds: int) -> list[Insn]:
    """A loop whose every round the verifier follows: two insns each."""
    return [mov64_imm(0, 0), alu64_imm(op.ADD, 0, 1), jmp_imm(op.JLT, 0, rounds, -2), *NOTHING]


def test_the_verifier_of_the_model_loses_its_patience_before_that_of_a_kernel() -> None:
    kernel = ModelKernel()
    assert load(kernel, counting(PATIENCE // 2 - 10))
    with pytest.raises(CapabilityError, match="the model gives up"):
        load(kernel, counting(PATIENCE // 2 + 100))
    assert load(kernel, NOTHING), "the next call begins with new patience"


def test_patience_grows_with_the_bytes_that_were_given() -> None:
    kernel = ModelKernel()
    kernel.allocate(bytes(PATIENCE))
    assert load(kernel, counting(PATIENCE - 100))


def test_states_with_large_stacks_are_compared_only_for_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """60 slots and a branch after each: a path has thousands of states to be compared with."""
    compared = 0

    def counted(_number: int, old: Frame, *_: object) -> bool:
        nonlocal compared
        compared += len(old.stack)
        return False

    monkeypatch.setattr(pruning, "_frame_covers", counted)
    insns = [mov64_reg(6, 1)]
    for number in range(60):
        insns += [
            Insn(op.LDX | op.MEM | op.W, 2, 6, 0, 0),
            Insn(op.STX | op.MEM | op.DW, 10, 2, -8 * (number + 1), 0),
            jmp_imm(op.JSGT, 2, number, 1),
            Insn(op.ST | op.MEM | op.DW, 10, 0, -8 * (number * 7 % 60 + 1), number),
        ]
    with pytest.raises(CapabilityError, match="the model gives up"):
        load(ModelKernel(), [*insns, *NOTHING])
    assert compared <= 8 * (PATIENCE + 8 * len(insns))


def test_a_program_that_calls_without_end_is_given_up() -> None:
    """bpf_sys_close of a fd that is not open, as often as the budget of insns allows."""
    kernel = ModelKernel()
    rounds = [
        mov64_imm(6, 0),
        mov64_imm(1, 1000),
        call_helper(Helper.SYS_CLOSE),
        alu64_imm(op.ADD, 6, 1),
        jmp_imm(op.JLT, 6, 100_000, -4),
        *NOTHING,
    ]
    kernel.allocate(bytes(400_000))  # so that the verifier has the patience
    fd = load(kernel, rounds)
    made = len(kernel.trace)
    kernel._state.work = Work()
    with pytest.raises(CapabilityError):
        kernel.prog_run(fd, b"")
    assert len(kernel.trace) - made <= PATIENCE // CALL + 1


def test_values_of_all_maps_together_have_a_limit() -> None:
    kernel = ModelKernel()
    size = ROOM // 4
    fds = [kernel.map_create(MapCreate(MapType.ARRAY, "m", 4, size, 1)) for _ in range(5)]
    for fd in fds[:4]:
        use = [*ld_imm64(1, op.PSEUDO_MAP_IDX_VALUE, 0), mov64_reg(0, 1), *NOTHING]
        load(kernel, use, fd)
    with pytest.raises(KernelError) as refused:
        load(kernel, use, fds[4])
    assert refused.value.errno_name == "ENOMEM"


def test_one_of_them_larger_than_that_is_taken_if_so_much_is_given() -> None:
    kernel = ModelKernel()
    fd = kernel.map_create(MapCreate(MapType.ARRAY, "m", 4, ROOM + 4096, 1))
    kernel.map_update(fd, bytes(4), bytes(ROOM + 4096))
    assert kernel.map_lookup(fd, bytes(4), 8) == bytes(8)
