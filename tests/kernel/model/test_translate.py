"""Paths that run often are translated as a whole: nobody can tell, but for the time it takes.

A machine with a trace does every insn on its own, so it says what a translated path must do.
"""

from __future__ import annotations

import random

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    Insn,
    alu64_imm,
    call_helper,
    exit_insn,
    jmp_imm,
    jump,
    ld_imm64,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)
from bpfseal.bpf.uapi import Helper
from bpfseal.kernel.model.machine import HelperFunction, Machine, MachineFault, Program
from bpfseal.kernel.model.memory import Memory, MemoryFault
from bpfseal.kernel.model.translate import HOT, MAX_TRACE
from isa.programs import CTX_SIZE, random_program

DW, W = op.DW, op.W
COUNT = 4 * HOT
EXIT = exit_insn()
COUNTER = -64


def looped(*body: Insn, count: int = COUNT) -> Program:
    """Return a program that does `body` so often, counting in r9."""
    start = [mov64_imm(register, 0) for register in range(9)]
    back = (alu64_imm(op.SUB, 9, 1), jmp_imm(op.JNE, 9, 0, -len(body) - 2))
    return Program((*start, mov64_imm(9, count), *body, *back, EXIT), "test")


def increment(_machine: Machine, value: int, *_: int) -> int:
    return value + 1


def clear(machine: Machine, address: int, size: int, *_: int) -> int:
    machine.memory.write(address, bytes(size))
    return 0


HELPERS: dict[int, HelperFunction] = {5: increment, Helper.PROBE_READ_KERNEL: clear}

Ending = tuple[int | str, bytes]
"""r0, or why the run ended; and the context."""


def ending(program: Program, *, budget: int, one_by_one: bool, writable: bool = True) -> Ending:
    memory = Memory()
    data = bytearray(range(CTX_SIZE))
    ctx = memory.map("ctx", data, writable=writable)
    trace = (lambda *_: None) if one_by_one else None
    machine = Machine(memory, HELPERS, {}, budget=budget, trace=trace)
    try:
        return machine.run(program, ctx.base), bytes(data)
    except MachineFault as fault:
        return str(fault), bytes(data)


def translated(program: Program) -> int:
    """Return how many paths of a program are translated."""
    return sum(trace is not None for trace in program.code.traces)


def assert_same(program: Program, budget: int = 1_000_000, *, writable: bool = True) -> Ending:
    slow = ending(program, budget=budget, one_by_one=True, writable=writable)
    assert ending(program, budget=budget, one_by_one=False, writable=writable) == slow
    return slow


def test_only_a_path_that_runs_often_is_translated() -> None:
    program = looped(alu64_imm(op.ADD, 0, 1), count=HOT // 2 - 1)  # for two runs
    assert assert_same(program)[0] == HOT // 2 - 1
    assert translated(program) == 0
    program = looped(alu64_imm(op.ADD, 0, 1))
    assert assert_same(program)[0] == COUNT
    assert translated(program) == 1


def test_a_loop_without_calls_is_done_in_the_translated_path_to_its_end() -> None:
    program = looped(alu64_imm(op.ADD, 0, 1))
    ending(program, budget=10_000, one_by_one=False)
    trace = next(trace for trace in program.code.traces if trace is not None)
    assert (trace.size, trace.exits) == (3, frozenset({13}))


@pytest.mark.parametrize("budget", [*range(150, 190), *range(9 * COUNT, 9 * COUNT + 14)])
def test_the_budget_is_exact_to_the_insn(budget: int) -> None:
    body = (
        alu64_imm(op.ADD, 0, 1),
        mov64_reg(2, 0),
        alu64_imm(op.AND, 2, 3),
        jmp_imm(op.JEQ, 2, 0, 2),
        stx_mem(DW, 10, 0, -8),
        jump(1),
        ldx_mem(DW, 3, 10, -8),
    )
    assert_same(looped(*body), budget)


@pytest.mark.parametrize(
    ("access", "message"),
    [
        (ldx_mem(W, 3, 2, 0), "read of 4 bytes at ctx+61, behind the end of 64"),
        (stx_mem(DW, 2, 0, 0), "write of 8 bytes at ctx+57, behind the end of 64"),
        (st_mem(op.B, 2, 0, -1), "write of 1 bytes at ctx+64, behind the end of 64"),
        (Insn(op.STX | op.ATOMIC | W, 2, 0, 0, op.ADD), "read of 4 bytes at ctx+61, behind"),
    ],
)
def test_a_fault_in_a_translated_path_names_insn_and_place(access: Insn, message: str) -> None:
    to_ctx = mov64_reg(8, 1)
    body = (mov64_reg(2, 8), Insn(op.ALU64 | op.ADD | op.X, 2, 6), access, alu64_imm(op.ADD, 7, 1))
    slowly = (mov64_reg(6, 7), alu64_imm(op.RSH, 6, 1))  # r6 goes one further every second time
    start = (to_ctx, *(mov64_imm(register, 0) for register in (0, 6, 7)), mov64_imm(9, COUNT))
    back = (alu64_imm(op.SUB, 9, 1), jmp_imm(op.JNE, 9, 0, -len(body) - len(slowly) - 2))
    program = Program((*start, *body, *slowly, *back, EXIT), "test")
    reason = assert_same(program)[0]
    assert str(reason).startswith(f"test, insn 7: {message}")
    assert translated(program) == 1


def test_a_store_to_read_only_memory_faults_in_a_translated_path() -> None:
    load, store = ldx_mem(DW, 0, 1, 8), stx_mem(DW, 1, 0, 0)
    late = (jmp_imm(op.JNE, 9, 2, 1), store)
    program = looped(mov64_reg(1, 1), load, *late)
    insns = tuple(insn for insn in program.insns if insn != mov64_imm(1, 0))
    reason = assert_same(Program(insns, "test"), writable=False)[0]
    assert "insn 12: write of 8 bytes at ctx+0, which is read-only" in str(reason)


def test_a_fault_keeps_its_cause() -> None:
    program = looped(ldx_mem(DW, 0, 10, -8), jmp_imm(op.JNE, 9, 1, 1), ldx_mem(W, 0, 0, 3))
    with pytest.raises(MachineFault) as caught:
        Machine(Memory(), {}, {}).run(program, 0)
    assert isinstance(caught.value.__cause__, MemoryFault)
    assert (caught.value.index, caught.value.__cause__.address) == (12, 3)


def test_an_address_wraps_around_at_64_bits() -> None:
    below = (mov64_imm(2, -1), ldx_mem(op.B, 3, 2, 1))
    reason = assert_same(looped(jmp_imm(op.JNE, 9, 1, 2), *below))[0]
    assert "read of 1 bytes at 0x0, where nothing is mapped" in str(reason)


def test_helpers_functions_and_exits_are_done_as_steps_between_translated_paths() -> None:
    call = Insn(op.JMP | op.CALL, 0, op.PSEUDO_CALL, 0, 5)
    body = (mov64_reg(1, 0), call_helper(5), mov64_reg(1, 0), call)
    program = looped(*body)
    function = (mov64_reg(0, 1), alu64_imm(op.ADD, 0, 2), stx_mem(DW, 10, 0, -8), EXIT)
    insns = (*program.insns, *function)
    at = program.insns.index(call)
    moved = call._replace(imm=len(program.insns) - at - 1)
    program = Program((*insns[:at], moved, *insns[at + 1 :]), "test")
    assert assert_same(program)[0] == 3 * COUNT
    assert translated(program) > 1


def test_an_inner_loop_is_a_path_of_its_own() -> None:
    inner = (alu64_imm(op.ADD, 0, 1), alu64_imm(op.SUB, 2, 1), jmp_imm(op.JNE, 2, 0, -3))
    program = looped(mov64_imm(2, 9), *inner)
    assert assert_same(program)[0] == 9 * COUNT
    assert translated(program) == 2


def test_a_path_longer_than_the_longest_trace_goes_on_in_another() -> None:
    program = looped(*[alu64_imm(op.ADD, 0, 1)] * (2 * MAX_TRACE + 5))
    assert assert_same(program)[0] == COUNT * (2 * MAX_TRACE + 5)
    assert translated(program) == 3


def test_may_goto_is_counted_in_a_translated_path() -> None:
    may_goto = Insn(op.JMP | op.JCOND, 0, 0, 2)
    loop = (may_goto, alu64_imm(op.ADD, 0, 1), jump(-3))
    assert_same(Program((mov64_imm(0, 0), *loop, EXIT), "test"))


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_do_the_same_in_a_loop(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - not for keys
    first, *body, end = random_program(chance)
    counter = (ldx_mem(W, 0, 10, COUNTER), alu64_imm(op.SUB, 0, 1), stx_mem(W, 10, 0, COUNTER))
    count = (st_mem(W, 10, COUNTER, 2 * HOT), *ld_imm64(0, 0, 1, 1))
    back = jmp_imm(op.JNE, 0, 0, -len(body) - len(counter) - 1)
    program = Program((first, *count, *body, *counter, back, end), "random")
    assert isinstance(assert_same(program)[0], int)
    assert translated(program)
