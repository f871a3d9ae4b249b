"""Arithmetic, byte swaps and conditions of the machine (RFC 9669, sections 4.1 to 4.3).

Every vector names the section that it comes from; the property tests state the same rules a second
time, with fixed-width C integers and exact fractions.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn, exit_insn, ld_imm64, mov64_imm
from bpfseal.kernel.model.machine import Machine, Program
from bpfseal.kernel.model.memory import Memory
from isa.vectors import (
    A64,
    ARITHMETIC,
    HIGH,
    J32,
    MIN32,
    MIN64,
    ONES,
    A,
    J,
    K,
    X,
    alu_k,
    alu_x,
)


def run(*insns: Insn) -> int:
    return Machine(Memory(), {}, {}).run(Program(insns, "test"), 0)


def compute(insn: Insn, r0: int, r2: int) -> int:
    """Return r0 after `insn`, with r0 and r2 set before."""
    return run(*ld_imm64(0, 0, r0, r0 >> 32), *ld_imm64(2, 0, r2, r2 >> 32), insn, exit_insn())


@pytest.mark.parametrize(("rule", "insn", "r0", "r2", "expected"), ARITHMETIC)
def test_arithmetic_follows_the_rule(
    rule: str, insn: Insn, r0: int, r2: int, expected: int
) -> None:
    assert compute(insn, r0, r2) == expected, rule


NEGATIVE32 = HIGH | 0xFFFFFFFF
"""-1 in 32 bits, a large positive number in 64 but for its own sign."""


@pytest.mark.parametrize(
    ("rule", "operation", "less", "equal", "greater"),
    [
        ("4.3 jeq", op.JEQ, False, True, False),
        ("4.3 jne", op.JNE, True, False, True),
        ("4.3 jgt is unsigned: 1 < -1", op.JGT, False, False, True),
        ("4.3 jge is unsigned", op.JGE, False, True, True),
        ("4.3 jlt is unsigned", op.JLT, True, False, False),
        ("4.3 jle is unsigned", op.JLE, True, True, False),
        ("4.3 jsgt is signed: -1 < 1", op.JSGT, True, False, False),
        ("4.3 jsge is signed", op.JSGE, True, True, False),
        ("4.3 jslt is signed", op.JSLT, False, False, True),
        ("4.3 jsle is signed", op.JSLE, False, True, True),
    ],
)
@pytest.mark.parametrize("cls", [J, J32], ids=["64", "32"])
def test_conditions_compare_1_and_minus_1_as_the_rule_says(
    rule: str, operation: int, less: bool, equal: bool, greater: bool, cls: int
) -> None:
    low, high = (1, ONES) if cls == J else (HIGH | 1, 0xFFFFFFFF)  # unsigned: low < high
    assert jumps(cls, operation, low, high) is less, rule
    assert jumps(cls, operation, high, high) is equal, rule
    assert jumps(cls, operation, high, low) is greater, rule


@pytest.mark.parametrize(
    ("rule", "insn", "r0", "expected"),
    [
        ("4.3 imm is sign-extended", Insn(J | op.JEQ | K, 0, 0, 1, -1), ONES, True),
        ("4.3 and then unsigned", Insn(J | op.JGT | K, 0, 0, 1, -2), ONES, True),
        ("4.3 jset finds a common bit", Insn(J | op.JSET | K, 0, 0, 1, 6), 4, True),
        ("4.3 jset finds none", Insn(J | op.JSET | K, 0, 0, 1, 6), 9, False),
        ("4.3 jset with a negative imm", Insn(J | op.JSET | K, 0, 0, 1, -1 << 31), MIN64, True),
        ("4.3 jset32 ignores the high bits", Insn(J32 | op.JSET | K, 0, 0, 1, -1), HIGH, False),
        ("4.3 jeq32 ignores the high bits", Insn(J32 | op.JEQ | K, 0, 0, 1, -1), ONES, True),
        ("4.3 jslt32 has its sign in bit 31", Insn(J32 | op.JSLT | K, 0, 0, 1, 0), MIN32, True),
    ],
)
def test_an_immediate_is_compared_as_the_rule_says(
    rule: str, insn: Insn, r0: int, expected: bool
) -> None:
    assert taken(insn, r0, 0) is expected, rule


def jumps(cls: int, operation: int, r0: int, r2: int) -> bool:
    return taken(Insn(cls | operation | X, 0, 2, 1, 0), r0, r2)


def taken(insn: Insn, r0: int, r2: int) -> bool:
    """Return whether a jump over the next insn is taken."""
    not_taken, after = mov64_imm(3, 1), Insn(A64 | op.MOV | X, 0, 3)
    return not run(
        *ld_imm64(0, 0, r0, r0 >> 32), *ld_imm64(2, 0, r2, r2 >> 32),
        insn, not_taken, after, exit_insn(),
    )  # fmt: skip


UNSIGNED = {32: ctypes.c_uint32, 64: ctypes.c_uint64}
SIGNED = {32: ctypes.c_int32, 64: ctypes.c_int64}

CORNERS = st.sampled_from([0, 1, 2, 31, 32, 63, 64, 0x7FFFFFFF, MIN32, 0xFFFFFFFF, MIN64, ONES])
WORDS = st.one_of(CORNERS, st.integers(0, ONES), st.integers(0, 255))


def bitwise(truth: str, a: int, b: int) -> int:
    """Apply a truth table (the result for 00, 01, 10 and 11) bit by bit."""
    return sum(int(truth[2 * (a >> n & 1) + (b >> n & 1)]) << n for n in range(64))


def expected_alu(operation: int, off: int, bits: int, dst: int, src: int) -> int:
    """State section 4.1 again, with C integers and exact fractions."""
    unsigned, signed = UNSIGNED[bits], SIGNED[bits]
    number = signed if off else unsigned
    a, b = number(dst).value, number(src).value
    sign_extend = {8: ctypes.c_int8, 16: ctypes.c_int16, 32: ctypes.c_int32}
    power = 2 ** (unsigned(src).value % bits)
    exact: Mapping[int, Callable[[], int]] = {
        op.ADD: lambda: a + b,
        op.SUB: lambda: a - b,
        op.MUL: lambda: a * b,
        op.DIV: lambda: math.trunc(Fraction(a, b)) if b else 0,
        op.MOD: lambda: a - b * math.trunc(Fraction(a, b)) if b else a,
        op.OR: lambda: bitwise("0111", dst, src),
        op.AND: lambda: bitwise("0001", dst, src),
        op.XOR: lambda: bitwise("0110", dst, src),
        op.LSH: lambda: a * power,
        op.RSH: lambda: math.floor(Fraction(a, power)),
        op.ARSH: lambda: math.floor(Fraction(signed(dst).value, power)),
        op.MOV: lambda: sign_extend[off](src).value if off else src,
    }
    return unsigned(exact[operation]()).value


OPERATIONS = [(operation, 0) for operation in range(0, 0xD0, 0x10) if operation != op.NEG] + [
    (op.DIV, 1), (op.MOD, 1), (op.MOV, 8), (op.MOV, 16),
]  # fmt: skip


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(("operation", "off"), OPERATIONS)
@settings(deadline=None)  # its first run compiles
@given(dst=WORDS, src=WORDS)
@example(dst=MIN64, src=ONES)
@example(dst=MIN32, src=0xFFFFFFFF)
def test_arithmetic_agrees_with_c_integers(
    operation: int, off: int, bits: int, dst: int, src: int
) -> None:
    insn = alu_x(A64 if bits == 64 else A, operation, off)
    assert compute(insn, dst, src) == expected_alu(operation, off, bits, dst, src)


@pytest.mark.parametrize("bits", [32, 64])
@settings(deadline=None)  # its first run compiles
@given(dst=WORDS, imm=st.integers(-(1 << 31), (1 << 31) - 1))
def test_an_immediate_is_a_sign_extended_register(bits: int, dst: int, imm: int) -> None:
    cls = A64 if bits == 64 else A
    for operation, off in OPERATIONS:
        if operation != op.MOV or not off:
            with_register = compute(alu_x(cls, operation, off), dst, imm & ONES)
            assert compute(alu_k(cls, operation, imm, off), dst, 0) == with_register


@pytest.mark.parametrize("bits", [32, 64])
@settings(deadline=None)  # its first run compiles
@given(a=WORDS, b=WORDS)
def test_conditions_agree_with_c_integers(bits: int, a: int, b: int) -> None:
    cls = J if bits == 64 else J32
    ua, ub, sa, sb = (kind[bits](n).value for kind in (UNSIGNED, SIGNED) for n in (a, b))
    expected = {
        op.JEQ: ua == ub, op.JNE: ua != ub, op.JGT: ua > ub, op.JGE: ua >= ub, op.JLT: ua < ub,
        op.JLE: ua <= ub, op.JSGT: sa > sb, op.JSGE: sa >= sb, op.JSLT: sa < sb, op.JSLE: sa <= sb,
        op.JSET: bitwise("0001", ua, ub) != 0,
    }  # fmt: skip
    assert {operation: jumps(cls, operation, a, b) for operation in expected} == expected
