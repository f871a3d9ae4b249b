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
from hypothesis import example, given
from hypothesis import strategies as st

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn, exit_insn, ld_imm64, mov64_imm
from bpfseal.kernel.model.machine import Machine, Program
from bpfseal.kernel.model.memory import Memory

A, A64, J, J32 = op.ALU, op.ALU64, op.JMP, op.JMP32
K, X = op.K, op.X

ONES = 0xFFFFFFFF_FFFFFFFF
MIN64 = 0x80000000_00000000
MIN32 = 0x80000000
HIGH = 0xAAAAAAAA_00000000
"""High bits that a 32-bit operation must ignore and clear."""


def run(*insns: Insn) -> int:
    return Machine(Memory(), {}, {}).run(Program(insns, "test"), 0)


def compute(insn: Insn, r0: int, r2: int) -> int:
    """Return r0 after `insn`, with r0 and r2 set before."""
    return run(*ld_imm64(0, 0, r0, r0 >> 32), *ld_imm64(2, 0, r2, r2 >> 32), insn, exit_insn())


def alu_k(cls: int, operation: int, imm: int, off: int = 0) -> Insn:
    return Insn(cls | operation | K, 0, 0, off, imm)


def alu_x(cls: int, operation: int, off: int = 0) -> Insn:
    return Insn(cls | operation | X, 0, 2, off, 0)


@pytest.mark.parametrize(
    ("rule", "insn", "r0", "r2", "expected"),
    [
        ("4.1 add wraps at 64 bits", alu_x(A64, op.ADD), ONES, 2, 1),
        ("4.1 add32 wraps and zero-extends", alu_x(A, op.ADD), HIGH | 0xFFFFFFFF, 2, 1),
        ("4.1 add imm is sign-extended", alu_k(A64, op.ADD, -1), 0, 0, ONES),
        ("4.1 add32 imm zero-extends the result", alu_k(A, op.ADD, -1), 0, 0, 0xFFFFFFFF),
        ("4.1 sub wraps below zero", alu_x(A64, op.SUB), 1, 2, ONES),
        ("4.1 sub32 zero-extends", alu_x(A, op.SUB), 1, 2, 0xFFFFFFFF),
        ("4.1 mul keeps the low 64 bits", alu_x(A64, op.MUL), ONES, ONES, 1),
        ("4.1 mul32 keeps the low 32 bits", alu_x(A, op.MUL), HIGH | 0x10001, 0x10000, 0x10000),
        ("4.1 div is unsigned", alu_x(A64, op.DIV), ONES, 2, 0x7FFFFFFF_FFFFFFFF),
        ("4.1 div imm is sign-extended, then unsigned", alu_k(A64, op.DIV, -1), ONES, 0, 1),
        ("4.1 div32 ignores the high bits", alu_x(A, op.DIV), HIGH | 7, HIGH | 2, 3),
        ("4.1 div by zero gives 0", alu_x(A64, op.DIV), 7, 0, 0),
        ("4.1 div32 by zero gives 0", alu_x(A, op.DIV), HIGH | 7, HIGH, 0),
        ("4.1 div by zero imm gives 0", alu_k(A64, op.DIV, 0), 7, 0, 0),
        ("4.1 sdiv truncates towards zero", alu_x(A64, op.DIV, 1), -7 & ONES, 2, -3 & ONES),
        ("4.1 sdiv by a negative", alu_k(A64, op.DIV, -2, 1), 7, 0, -3 & ONES),
        ("4.1 sdiv of both negative", alu_k(A64, op.DIV, -2, 1), -7 & ONES, 0, 3),
        ("4.1 sdiv of the least by -1 stays", alu_k(A64, op.DIV, -1, 1), MIN64, 0, MIN64),
        ("4.1 sdiv by zero gives 0", alu_x(A64, op.DIV, 1), -7 & ONES, 0, 0),
        ("4.1 sdiv32", alu_x(A, op.DIV, 1), HIGH | 0xFFFFFFF9, 2, 0xFFFFFFFD),
        ("4.1 sdiv32 of the least by -1 stays", alu_k(A, op.DIV, -1, 1), MIN32, 0, MIN32),
        ("4.1 sdiv32 by zero gives 0", alu_x(A, op.DIV, 1), HIGH | 7, HIGH, 0),
        ("4.1 mod is unsigned", alu_k(A64, op.MOD, 10), ONES, 0, 5),
        ("4.1 mod by zero leaves dst", alu_x(A64, op.MOD), ONES, 0, ONES),
        ("4.1 mod32 by zero clears the high bits", alu_x(A, op.MOD), HIGH | 7, HIGH, 7),
        ("4.1 smod has the sign of dst", alu_x(A64, op.MOD, 1), -13 & ONES, 3, -1 & ONES),
        ("4.1 smod by a negative", alu_k(A64, op.MOD, -3, 1), 13, 0, 1),
        ("4.1 smod of the least by -1 is 0", alu_k(A64, op.MOD, -1, 1), MIN64, 0, 0),
        ("4.1 smod by zero leaves dst", alu_x(A64, op.MOD, 1), -13 & ONES, 0, -13 & ONES),
        ("4.1 smod32", alu_x(A, op.MOD, 1), HIGH | 0xFFFFFFF3, 3, 0xFFFFFFFF),
        ("4.1 smod32 of the least by -1 is 0", alu_k(A, op.MOD, -1, 1), MIN32, 0, 0),
        ("4.1 smod32 by zero clears the high bits", alu_x(A, op.MOD, 1), HIGH | 7, 0, 7),
        ("4.1 or imm is sign-extended", alu_k(A64, op.OR, -1 << 31), 1, 0, 0xFFFFFFFF_80000001),
        ("4.1 or32", alu_x(A, op.OR), HIGH | 0xF0, HIGH | 0x0F, 0xFF),
        ("4.1 and imm is sign-extended", alu_k(A64, op.AND, -16), ONES, 0, ~15 & ONES),
        ("4.1 and32 clears the high bits", alu_k(A, op.AND, -16), ONES, 0, 0xFFFFFFF0),
        ("4.1 xor", alu_x(A64, op.XOR), 0xFF00FF00_FF00FF00, ONES, 0x00FF00FF_00FF00FF),
        ("4.1 xor32", alu_k(A, op.XOR, -1), HIGH, 0, 0xFFFFFFFF),
        ("4.1 lsh", alu_k(A64, op.LSH, 63), 3, 0, MIN64),
        ("4.1 lsh masks the count with 63", alu_x(A64, op.LSH), 1, 65, 2),
        ("4.1 lsh32 masks the count with 31", alu_x(A, op.LSH), 1, 33, 2),
        ("4.1 lsh32 drops what leaves 32 bits", alu_k(A, op.LSH, 31), 3, 0, MIN32),
        ("4.1 rsh", alu_k(A64, op.RSH, 63), MIN64, 0, 1),
        ("4.1 rsh masks the count with 63", alu_x(A64, op.RSH), 4, 65, 2),
        ("4.1 rsh32 shifts nothing in from above", alu_k(A, op.RSH, 4), HIGH | 0xF0, 0, 0xF),
        ("4.1 rsh32 masks the count with 31", alu_x(A, op.RSH), 4, 33, 2),
        ("4.1 arsh copies the sign", alu_k(A64, op.ARSH, 63), MIN64, 0, ONES),
        ("4.1 arsh masks the count with 63", alu_x(A64, op.ARSH), -4 & ONES, 65, -2 & ONES),
        ("4.1 arsh32 copies bit 31", alu_k(A, op.ARSH, 4), MIN32, 0, 0xF8000000),
        ("4.1 arsh32 masks the count with 31", alu_x(A, op.ARSH), HIGH | 4, 33, 2),
        ("4.1 neg", alu_k(A64, op.NEG, 0), 1, 0, ONES),
        ("4.1 neg of the least stays", alu_k(A64, op.NEG, 0), MIN64, 0, MIN64),
        ("4.1 neg32 zero-extends", alu_k(A, op.NEG, 0), HIGH | 1, 0, 0xFFFFFFFF),
        ("4.1 mov", alu_x(A64, op.MOV), 0, ONES, ONES),
        ("4.1 mov imm is sign-extended", alu_k(A64, op.MOV, -2), 0, 0, -2 & ONES),
        ("4.1 mov32 clears the high bits", alu_x(A, op.MOV), ONES, HIGH | 5, 5),
        ("4.1 mov32 imm zero-extends", alu_k(A, op.MOV, -2), ONES, 0, 0xFFFFFFFE),
        ("4.1 movsx 8", alu_x(A64, op.MOV, 8), 0, 0x180, -128 & ONES),
        ("4.1 movsx 16", alu_x(A64, op.MOV, 16), 0, 0x18000, -32768 & ONES),
        ("4.1 movsx 32", alu_x(A64, op.MOV, 32), 0, MIN32, 0xFFFFFFFF_80000000),
        ("4.1 movsx of a positive", alu_x(A64, op.MOV, 8), 0, 0xFF7F, 0x7F),
        ("4.1 movsx32 8 zero-extends above 32", alu_x(A, op.MOV, 8), ONES, 0x80, 0xFFFFFF80),
        ("4.1 movsx32 16", alu_x(A, op.MOV, 16), ONES, 0x8000, 0xFFFF8000),
        ("4.2 le16 cuts", Insn(0xD4, 0, 0, 0, 16), 0x1122334455667788, 0, 0x7788),
        ("4.2 le32 cuts", Insn(0xD4, 0, 0, 0, 32), 0x1122334455667788, 0, 0x55667788),
        ("4.2 le64 changes nothing", Insn(0xD4, 0, 0, 0, 64), ONES - 1, 0, ONES - 1),
        ("4.2 be16", Insn(0xDC, 0, 0, 0, 16), 0x1122334455667788, 0, 0x8877),
        ("4.2 be32", Insn(0xDC, 0, 0, 0, 32), 0x1122334455667788, 0, 0x88776655),
        ("4.2 be64", Insn(0xDC, 0, 0, 0, 64), 0x1122334455667788, 0, 0x8877665544332211),
        ("4.2 bswap16", Insn(0xD7, 0, 0, 0, 16), 0x1122334455667788, 0, 0x8877),
        ("4.2 bswap32", Insn(0xD7, 0, 0, 0, 32), 0x1122334455667788, 0, 0x88776655),
        ("4.2 bswap64", Insn(0xD7, 0, 0, 0, 64), 0x1122334455667788, 0, 0x8877665544332211),
    ],
)  # fmt: skip
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
@given(dst=WORDS, src=WORDS)
@example(dst=MIN64, src=ONES)
@example(dst=MIN32, src=0xFFFFFFFF)
def test_arithmetic_agrees_with_c_integers(
    operation: int, off: int, bits: int, dst: int, src: int
) -> None:
    insn = alu_x(A64 if bits == 64 else A, operation, off)
    assert compute(insn, dst, src) == expected_alu(operation, off, bits, dst, src)


@pytest.mark.parametrize("bits", [32, 64])
@given(dst=WORDS, imm=st.integers(-(1 << 31), (1 << 31) - 1))
def test_an_immediate_is_a_sign_extended_register(bits: int, dst: int, imm: int) -> None:
    cls = A64 if bits == 64 else A
    for operation, off in OPERATIONS:
        if operation != op.MOV or not off:
            with_register = compute(alu_x(cls, operation, off), dst, imm & ONES)
            assert compute(alu_k(cls, operation, imm, off), dst, 0) == with_register


@pytest.mark.parametrize("bits", [32, 64])
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
