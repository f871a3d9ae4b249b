"""Helpers that call functions of the program that runs: what the machine does for them.

What the verifier and the helpers themselves do is in `tests/isa/test_callbacks.py`.
"""

from __future__ import annotations

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    Insn,
    alu64_imm,
    call_helper,
    exit_insn,
    jump,
    ldx_mem,
    mov64_imm,
    mov64_reg,
)
from bpfseal.kernel.model.machine import HelperFunction, Machine, MachineFault, Program
from bpfseal.kernel.model.memory import Memory
from bpfseal.kernel.model.processor import Callback, Callbacks

EXIT = exit_insn()
W = op.W


def run(*insns: Insn, helper: HelperFunction) -> int:
    """Run a program whose helper 7 is this one and return r0, signed."""
    value = Machine(Memory(), {7: helper}, {}).run(Program(insns, "test"), 0)
    return value - (1 << 64) if value >> 63 else value


def call_twice(_machine: Machine, target: int, value: int, *_: int) -> Callbacks:
    first = yield Callback(target, (value, 0, 0, 0, 0))
    second = yield Callback(target, (first, 0, 0, 0, 0))
    return -second


def test_a_helper_calls_a_function_and_gets_what_it_returns() -> None:
    to_function = (mov64_imm(1, 6), mov64_imm(2, 20), mov64_imm(6, 3))
    function = (mov64_imm(6, 9), mov64_reg(0, 1), alu64_imm(op.ADD, 0, 1), EXIT)
    add = Insn(op.ALU64 | op.ADD | op.X, 0, 6)
    program = (*to_function, call_helper(7), add, EXIT, *function)
    assert run(*program, helper=call_twice) == -22 + 3


def test_a_function_that_a_helper_calls_takes_one_of_the_sixteen_frames() -> None:
    function = (mov64_imm(1, 2), call_helper(7), EXIT)
    with pytest.raises(MachineFault, match="insn 3: call deeper than 16 frames"):
        run(mov64_imm(1, 2), jump(0), *function, helper=call_twice)


def test_a_fault_in_a_function_that_a_helper_calls_names_its_insn() -> None:
    function = (ldx_mem(W, 0, 1, 0), EXIT)
    with pytest.raises(MachineFault, match="insn 3: read of 4 bytes at 0x0"):
        run(mov64_imm(1, 3), call_helper(7), EXIT, *function, helper=call_twice)


def test_what_a_helper_has_opened_is_closed_when_the_run_ends_in_its_function() -> None:
    closed = []

    def careful(_machine: Machine, target: int, *_: int) -> Callbacks:
        try:
            yield Callback(target, (0, 0, 0, 0, 0))
        finally:
            closed.append(target)
        return 0

    function = (ldx_mem(W, 0, 1, 0), EXIT)
    with pytest.raises(MachineFault):
        run(mov64_imm(1, 3), call_helper(7), EXIT, *function, helper=careful)
    assert closed == [3]
