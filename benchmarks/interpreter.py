"""How many insns the kernel model runs in a second, beside Python doing the same work itself.

Each program runs a loop; the peer is a Python function that computes what the program does, with
the same masks and a bytearray for its stack. The last line is the load of an example as a whole:
its loader, with the system calls that it makes. Times are CPU seconds, the best of some rounds,
and the peer is measured right after each run of the program.

Usage: interpreter.py [ITERATIONS [ROUNDS]]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    Insn,
    alu64_imm,
    call_helper,
    exit_insn,
    jmp_imm,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    stx_mem,
)
from bpfseal.bundle.model import SignedLoader
from bpfseal.kernel.load import load
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.machine import HelperFunction, Machine, Program
from bpfseal.kernel.model.memory import Memory
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.loader import generate
from bpfseal.object import read_object

OBJECT = Path(__file__).parents[1] / "examples" / "exectrace.bpf.o"
TARGET = 5_000_000
_U64: Final = (1 << 64) - 1
_HELPER = 5


class Work(NamedTuple):
    """A loop body that counts r1 down, and Python that does the same so many times."""

    body: tuple[Insn, ...]
    peer: Callable[[int], int]


def _arithmetic(count: int) -> int:
    r0 = r2 = r3 = 0
    for _ in range(count):
        r0 = r0 + 3 & _U64
        r2 = r2 + r0 & _U64
        r3 = r3 ^ r2
        r0 = r0 + r3 & _U64
    return r0


def _stack(count: int) -> int:
    stack = bytearray(512)
    for left in range(count, 0, -1):
        stack[504:512] = left.to_bytes(8, "little")
        r2 = int.from_bytes(stack[504:512], "little")
        stack[500:504] = (r2 & 0xFFFFFFFF).to_bytes(4, "little")
    return int.from_bytes(stack[500:504], "little")


def _mixed(count: int) -> int:
    stack, r0 = bytearray(512), 0
    for left in range(count, 0, -1):
        r2 = left & 7
        if r2 <= 3:
            r0 = r0 * 5 & _U64
            stack[504:512] = r0.to_bytes(8, "little")
        else:
            r0 = r0 + int.from_bytes(stack[504:512], "little") & _U64
    return r0


def _helper(count: int) -> int:
    def helper(value: int) -> int:
        return value + 1

    r0 = r6 = 0
    for _ in range(count):
        r0 = helper(r6)
        r6 = r6 + r0 & _U64
    return r0


def _register(operation: int, dst: int, src: int) -> Insn:
    return Insn(op.ALU64 | operation | op.X, dst, src)


WORKS: Final = {
    "arithmetic": Work(
        (
            alu64_imm(op.ADD, 0, 3),
            _register(op.ADD, 2, 0),
            _register(op.XOR, 3, 2),
            _register(op.ADD, 0, 3),
        ),
        _arithmetic,
    ),
    "stack": Work(
        (
            stx_mem(op.DW, 10, 7, -8),
            ldx_mem(op.DW, 2, 10, -8),
            stx_mem(op.W, 10, 2, -12),
            ldx_mem(op.W, 0, 10, -12),
        ),
        _stack,
    ),
    "mixed": Work(
        (
            mov64_reg(2, 7),
            alu64_imm(op.AND, 2, 7),
            jmp_imm(op.JGT, 2, 3, 3),
            alu64_imm(op.MUL, 0, 5),
            stx_mem(op.DW, 10, 0, -8),
            Insn(op.JMP | op.JA, 0, 0, 2),
            ldx_mem(op.DW, 3, 10, -8),
            _register(op.ADD, 0, 3),
        ),
        _mixed,
    ),
    "helper calls": Work(
        (mov64_reg(1, 6), call_helper(_HELPER), _register(op.ADD, 6, 0)),
        _helper,
    ),
}


def program_of(work: Work, count: int) -> Program:
    """Return a program that does the work so many times."""
    start = [mov64_imm(register, 0) for register in (0, 2, 3, 6)]
    loop = (*work.body, alu64_imm(op.SUB, 7, 1), jmp_imm(op.JNE, 7, 0, -len(work.body) - 2))
    return Program((*start, mov64_imm(7, count), *loop, exit_insn()), "benchmark")


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds that the work takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def insns_of(work: Work) -> int:
    """Return how many insns one time of the work takes: an average, where it branches."""
    executed = 0

    def count(*_: object) -> None:
        nonlocal executed
        executed += 1

    rounds = 80
    machine = Machine(Memory(), {_HELPER: lambda _machine, r1, *_: r1 + 1}, {}, trace=count)
    machine.run(program_of(work, rounds), 0)
    return (executed - 6) // rounds


def measure(name: str, work: Work, count: int, rounds: int) -> float:
    """Print and return how many insns of one work run in a second."""
    helpers: dict[int, HelperFunction] = {_HELPER: lambda _machine, r1, *_: r1 + 1}
    program = program_of(work, count)
    ours, theirs = [], []
    for _ in range(rounds):
        machine = Machine(Memory(), helpers, {}, budget=1 << 40)
        ours.append(seconds(partial(machine.run, program, 0)))
        theirs.append(seconds(partial(work.peer, count)))
    insns = insns_of(work) * count
    rate = insns / min(ours)
    peer = insns / min(theirs)
    print(f"{name:<13} {rate / 1e6:6.2f} million insns/s; plain Python {peer / 1e6:6.2f}")
    return rate


def measure_load(rounds: int) -> None:
    """Print how long the model takes for the load of an example."""
    signed = SignedLoader(generate(read_object(OBJECT.read_bytes(), OBJECT.name), "unsigned"))
    profile = PROFILES["6.18-unverified"]

    def work() -> None:
        load(ModelKernel(profile=profile), signed, unsigned=True)

    times = [seconds(work) for _ in range(rounds)]
    insns = len(signed.loader.insns) // 8
    print(f"load of {OBJECT.name} ({insns} insns): {min(times) * 1000:.1f} ms")


def main(count: int = 200_000, rounds: int = 5) -> int:
    """Measure all; 1 if a loop without helper calls is slower than the target."""
    rates = {name: measure(name, work, count, rounds) for name, work in WORKS.items()}
    measure_load(rounds)
    return int(min(rate for name, rate in rates.items() if name != "helper calls") < TARGET)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
