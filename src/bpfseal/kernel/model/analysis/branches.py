"""Conditional jumps on scalars: whether one is taken for certain, and what it tells where not.

Source: ``is_scalar_branch_taken`` and ``regs_refine_cond_op`` in kernel/bpf/verifier.c.

Example:
    >>> taken(op.JLT, const(3), const(7), 64)
    True
    >>> small, _ = refine(op.JLT, UNKNOWN, const(7), 64)
    >>> small.umax
    6
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.kernel.model.analysis import tnum
from bpfseal.kernel.model.analysis.scalar import (
    Range,
    Scalar,
    build,
)
from bpfseal.kernel.model.analysis.tnum import U32, U64

OPPOSITE: Final = {
    op.JEQ: op.JNE,
    op.JNE: op.JEQ,
    op.JLT: op.JGE,
    op.JGE: op.JLT,
    op.JLE: op.JGT,
    op.JGT: op.JLE,
    op.JSLT: op.JSGE,
    op.JSGE: op.JSLT,
    op.JSLE: op.JSGT,
    op.JSGT: op.JSLE,
}
"""The condition that holds where another one does not. JSET has none."""

_SWAPPED: Final = {
    op.JGE: op.JLE,
    op.JGT: op.JLT,
    op.JSGE: op.JSLE,
    op.JSGT: op.JSLT,
}
_REFLEXIVE: Final = frozenset({op.JGE, op.JLE, op.JSGE, op.JSLE, op.JEQ})
_SIGNED: Final = frozenset({op.JSLT, op.JSLE})
_STRICT: Final = frozenset({op.JLT, op.JSLT})


def taken(operation: int, a: Scalar, b: Scalar, bits: int) -> bool | None:
    """Return whether ``a operation b`` holds, or ``None`` if the operands do not tell."""
    if operation == op.JSET:
        return _shares_bits(a, b, bits)
    if operation in _SWAPPED:
        operation, a, b = _SWAPPED[operation], b, a
    unsigned_a, signed_a = _views(a, bits)
    unsigned_b, signed_b = _views(b, bits)
    if operation in (op.JEQ, op.JNE):
        equal = _equal(a, b, bits, unsigned_a, signed_a, unsigned_b, signed_b)
        return equal if equal is None or operation == op.JEQ else not equal
    left, right = (signed_a, signed_b) if operation in _SIGNED else (unsigned_a, unsigned_b)
    if operation in _STRICT:
        return True if left[1] < right[0] else False if left[0] >= right[1] else None
    return True if left[1] <= right[0] else False if left[0] > right[1] else None


def taken_with_itself(operation: int, number: Scalar, bits: int) -> bool | None:
    """Return whether ``a operation a`` holds, or ``None`` if the number does not tell."""
    if operation in _REFLEXIVE:
        return True
    if operation != op.JSET:
        return False
    _, (low, high) = _views(number, bits)
    if not number.mask & (U64 if bits == 64 else U32):
        return low != 0
    return None if low <= 0 <= high else True


def _views(number: Scalar, bits: int) -> tuple[Range, Range]:
    """Return the unsigned and the signed range of the bits that a jump compares."""
    if bits == 64:
        return number[2:4], number[4:6]
    return number[6:8], number[8:10]


def _equal(
    a: Scalar,
    b: Scalar,
    bits: int,
    unsigned_a: Range,
    signed_a: Range,
    unsigned_b: Range,
    signed_b: Range,
) -> bool | None:
    if unsigned_a[0] == unsigned_a[1] == unsigned_b[0] == unsigned_b[1]:
        return True
    apart = (
        unsigned_a[0] > unsigned_b[1]
        or unsigned_a[1] < unsigned_b[0]
        or signed_a[0] > signed_b[1]
        or signed_a[1] < signed_b[0]
    )
    limit = U64 if bits == 64 else U32
    differs = (a.value ^ b.value) & ~a.mask & ~b.mask & limit
    return False if apart or differs else None


def _shares_bits(a: Scalar, b: Scalar, bits: int) -> bool | None:
    if not b.is_const:
        a, b = b, a
    if not b.is_const:
        return None
    wanted = b.value & (U64 if bits == 64 else U32)
    if a.value & wanted:
        return True
    return None if (a.value | a.mask) & wanted else False


@lru_cache(maxsize=4096)
def refine(operation: int, a: Scalar, b: Scalar, bits: int) -> tuple[Scalar, Scalar]:
    """Return both operands with what ``a operation b`` tells of them."""
    if operation in _SWAPPED:
        b, a = refine(_SWAPPED[operation], b, a, bits)
        return a, b
    if operation == op.JEQ:
        return _refine_equal(a, b, bits)
    if operation == op.JNE:
        return _refine_unequal(a, b, bits), _refine_unequal(b, a, bits)
    if operation == op.JSET:
        return a, b
    unsigned_a, signed_a = _views(a, bits)
    unsigned_b, signed_b = _views(b, bits)
    gap = operation in _STRICT
    if operation in _SIGNED:
        high = min(signed_a[1], signed_b[1] - gap)
        low = max(signed_b[0], signed_a[0] + gap)
        return (
            narrowed(a, bits, unsigned_a, (signed_a[0], high)),
            narrowed(b, bits, unsigned_b, (low, signed_b[1])),
        )
    high = min(unsigned_a[1], unsigned_b[1] - gap)
    low = max(unsigned_b[0], unsigned_a[0] + gap)
    return (
        narrowed(a, bits, (unsigned_a[0], high), signed_a),
        narrowed(b, bits, (low, unsigned_b[1]), signed_b),
    )


def refine_bits(a: Scalar, b: Scalar, bits: int, *, share: bool) -> tuple[Scalar, Scalar]:
    """Return both operands with what ``a & b`` tells: some common bit is set, or none is."""
    return _with_bits(a, b, bits, share=share), _with_bits(b, a, bits, share=share)


def _with_bits(number: Scalar, other: Scalar, bits: int, *, share: bool) -> Scalar:
    if not other.is_const:
        return number
    wanted = other.value & (U64 if bits == 64 else U32)
    value, mask = number.tnum
    if not share:
        known = value & ~wanted, mask & ~wanted
    elif wanted & wanted - 1 == 0:
        known = value | wanted, mask & ~wanted
    else:
        return number
    return build(known, number[2:4], number[4:6], number[6:8], number[8:10], number.id)


def narrowed(number: Scalar, bits: int, unsigned: Range, signed_range: Range) -> Scalar:
    """Return a scalar with its ranges of so many bits replaced by narrower ones."""
    if bits == 64:
        return build(number.tnum, unsigned, signed_range, number[6:8], number[8:10], number.id)
    return build(number.tnum, number[2:4], number[4:6], unsigned, signed_range, number.id)


def _refine_equal(a: Scalar, b: Scalar, bits: int) -> tuple[Scalar, Scalar]:
    unsigned_a, signed_a = _views(a, bits)
    unsigned_b, signed_b = _views(b, bits)
    unsigned = max(unsigned_a[0], unsigned_b[0]), min(unsigned_a[1], unsigned_b[1])
    both = max(signed_a[0], signed_b[0]), min(signed_a[1], signed_b[1])
    if bits == 64:
        common = tnum.intersect(a.tnum, b.tnum)
        low = max(a.u32_min, b.u32_min), min(a.u32_max, b.u32_max)
        signed_low = max(a.s32_min, b.s32_min), min(a.s32_max, b.s32_max)
        return (
            build(common, unsigned, both, low, signed_low, a.id),
            build(common, unsigned, both, low, signed_low, b.id),
        )
    common = tnum.intersect(tnum.cut(a.tnum, 32), tnum.cut(b.tnum, 32))
    return _with_low(a, common, unsigned, both), _with_low(b, common, unsigned, both)


def _with_low(number: Scalar, low: tnum.Tnum, unsigned: Range, signed_range: Range) -> Scalar:
    known = number.value & ~U32 | low[0], number.mask & ~U32 | low[1]
    return build(known, number[2:4], number[4:6], unsigned, signed_range, number.id)


def _refine_unequal(number: Scalar, other: Scalar, bits: int) -> Scalar:
    """Take a constant off the ends of the ranges."""
    unsigned, signed_range = _views(number, bits)
    unsigned_other, signed_other = _views(other, bits)
    if unsigned_other[0] != unsigned_other[1] or unsigned[0] == unsigned[1]:
        return number
    return narrowed(
        number,
        bits,
        _without(unsigned, unsigned_other[0]),
        _without(signed_range, signed_other[0]),
    )


def _without(of: Range, value: int) -> Range:
    return of[0] + (of[0] == value), of[1] - (of[1] == value)
