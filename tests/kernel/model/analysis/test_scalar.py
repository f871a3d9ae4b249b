"""What is known of numbers is true of them: for every operation and every jump.

Each property takes two numbers, forgets something of each, and asks whether the result that a
processor computes is one that the verifier expects.
"""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from bpfseal.bpf import opcodes as op
from bpfseal.kernel.model import alu
from bpfseal.kernel.model.alu import signed
from bpfseal.kernel.model.analysis import arithmetic, branches, scalar, tnum
from bpfseal.kernel.model.analysis.memory_access import low_bytes
from bpfseal.kernel.model.analysis.scalar import Scalar, includes

U32, U64 = tnum.U32, tnum.U64
CORNERS = (0, 1, 7, 31, 32, 63, 64, 0x7FFFFFFF, 1 << 31, U32, 1 << 32, 1 << 63, U64 - 1, U64)
WORDS = st.one_of(st.sampled_from(CORNERS), st.integers(0, U64), st.integers(0, 300))


@st.composite
def known(draw: st.DrawFn) -> tuple[int, Scalar]:
    """Return a number and something that is known of it."""
    value = draw(WORDS)
    low, high = sorted((value, draw(WORDS)))
    ends = sorted((signed(value, 64), signed(draw(WORDS), 64)))
    mask = draw(st.one_of(st.just(U64), st.just(0), WORDS))
    facts = scalar.build(
        (value & ~mask & U64, mask),
        draw(st.sampled_from([(0, U64), (low, high)])),
        draw(st.sampled_from([(scalar.S64_MIN, scalar.S64_MAX), (ends[0], ends[1])])),
    )
    if not allows(facts, value):  # the ranges were on the other side of the value
        facts = scalar.const(value)
    return value, facts


def allows(facts: Scalar, value: int) -> bool:
    return includes(facts, scalar.const(value))


@given(known())
def test_what_is_known_agrees_with_itself(number: tuple[int, Scalar]) -> None:
    value, facts = number
    assert allows(facts, value)
    assert facts.umin <= facts.umax
    assert facts.smin <= facts.smax
    assert facts.u32_min <= facts.u32_max
    assert facts.s32_min <= facts.s32_max
    assert facts.value & facts.mask == 0


@given(
    known(),
    known(),
    st.sampled_from(
        [op.ADD, op.SUB, op.MUL, op.DIV, op.OR, op.AND, op.LSH, op.RSH, op.MOD, op.XOR, op.ARSH]
    ),
    st.sampled_from([32, 64]),
)
def test_arithmetic_expects_what_the_processor_computes(
    a: tuple[int, Scalar], b: tuple[int, Scalar], operation: int, bits: int
) -> None:
    concrete = alu.binary(operation, 0, bits)
    assert concrete is not None
    limit = U64 if bits == 64 else U32
    result = concrete(a[0] & limit, b[0] & limit) & limit
    assert allows(arithmetic.compute(operation, a[1], b[1], bits), result)


@given(known(), st.sampled_from([8, 16, 32]), st.sampled_from([32, 64]))
def test_extension_and_truncation_expect_what_the_processor_computes(
    a: tuple[int, Scalar], width: int, bits: int
) -> None:
    value, facts = a
    assume(width < bits)
    limit = U64 if bits == 64 else U32
    extended = signed(value, width) & limit
    assert allows(arithmetic.sign_extend(facts, width, bits), extended)
    assert allows(arithmetic.truncate(facts), value & U32)
    assert allows(arithmetic.negate(facts, bits), -value & limit)
    assert allows(low_bytes(facts, width // 8), value & ((1 << width) - 1))


CONDITIONS = [
    *(op.JEQ, op.JNE, op.JGT, op.JGE, op.JLT, op.JLE),
    *(op.JSGT, op.JSGE, op.JSLT, op.JSLE, op.JSET),
]


@given(known(), known(), st.sampled_from(CONDITIONS), st.sampled_from([32, 64]))
def test_a_jump_goes_where_it_is_expected_and_tells_only_what_is_true(
    a: tuple[int, Scalar], b: tuple[int, Scalar], operation: int, bits: int
) -> None:
    limit = U64 if bits == 64 else U32
    concrete = alu.condition(operation, bits)
    assert concrete is not None
    holds = concrete(a[0] & limit, b[0] & limit)
    assert branches.taken(operation, a[1], b[1], bits) in (None, holds)
    if operation == op.JSET:
        left, right = branches.refine_bits(a[1], b[1], bits, share=holds)
    else:
        true = operation if holds else branches.OPPOSITE[operation]
        left, right = branches.refine(true, a[1], b[1], bits)
    assert allows(left, a[0])
    assert allows(right, b[0])


def test_a_mask_bounds_a_number() -> None:
    byte = arithmetic.compute(op.AND, scalar.UNKNOWN, scalar.const(0xFF), 64)
    assert (byte.umin, byte.umax, byte.smax, byte.u32_max) == (0, 255, 255, 255)


def test_a_comparison_bounds_a_number() -> None:
    small, _ = branches.refine(op.JLT, scalar.UNKNOWN, scalar.const(8), 64)
    assert (small.umax, small.mask) == (7, 7)


def test_a_signed_comparison_on_32_bits_says_nothing_of_the_high_bits() -> None:
    small, _ = branches.refine(op.JSLT, scalar.UNKNOWN, scalar.const(8), 32)
    assert (small.s32_max, small.umax) == (7, U64)
