"""Arithmetic on scalars: what is known of a result from what is known of the operands.

Source: ``adjust_scalar_min_max_vals`` in kernel/bpf/verifier.c. Division, modulo and shifts by a
number that is not known give any number, as there.

Example:
    >>> compute(op.AND, UNKNOWN, const(7), 64).umax
    7
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.kernel.model import alu
from bpfseal.kernel.model.alu import signed
from bpfseal.kernel.model.analysis import scalar, tnum
from bpfseal.kernel.model.analysis.scalar import (
    S32_MAX,
    S32_MIN,
    S64_MAX,
    S64_MIN,
    Range,
    Scalar,
    build,
)
from bpfseal.kernel.model.analysis.tnum import U32, U64

_SHIFTS: Final = frozenset({op.LSH, op.RSH, op.ARSH})
_TNUM: Final = {
    op.ADD: tnum.add,
    op.SUB: tnum.subtract,
    op.AND: tnum.bit_and,
    op.OR: tnum.bit_or,
    op.XOR: tnum.bit_xor,
    op.MUL: tnum.multiply,
}


def compute(operation: int, dst: Scalar, src: Scalar, bits: int) -> Scalar:
    """Return ``dst operation src`` on 64 bits, or on 32 bits with the high half cleared."""
    if operation in _SHIFTS:
        if not src.is_const or src.umax >= bits:
            return scalar.UNKNOWN
    elif operation not in _TNUM:
        return scalar.UNKNOWN
    if not dst.mask and not src.mask:
        return _compute_const(operation, dst.value, src.value, bits)
    if operation in _SHIFTS:
        return _shift(operation, dst, src.umax, bits)
    bits_of_result = _TNUM[operation](dst.tnum, src.tnum)
    unsigned32, signed32 = _ranges(operation, dst, src, 32)
    if bits == 32:
        low = tnum.cut(bits_of_result, 32)
        return build(low, (0, U32), (0, U32), unsigned32, signed32)
    unsigned64, signed64 = _ranges(operation, dst, src, 64)
    return build(bits_of_result, unsigned64, signed64, unsigned32, signed32)


def negate(dst: Scalar, bits: int) -> Scalar:
    """Return ``-dst``."""
    return compute(op.SUB, scalar.ZERO, dst, bits)


def truncate(source: Scalar) -> Scalar:
    """Return the low half, zero-extended (``zext_32_to_64``)."""
    if not source.mask:
        return scalar.const(source.value & U32)
    return build(
        tnum.cut(source.tnum, 32),
        (source.u32_min, source.u32_max),
        (0, U32),
        (source.u32_min, source.u32_max),
        (source.s32_min, source.s32_max),
    )


def sign_extend(source: Scalar, width: int, bits: int) -> Scalar:
    """Return the low `width` bits, sign-extended to `bits` (``coerce_reg_to_size_sx``)."""
    limit = U64 if bits == 64 else U32
    if not source.mask:
        return scalar.const(signed(source.value, width) & limit)
    half = 1 << width - 1
    low, high = (source.smin, source.smax) if width < 32 else (source.s32_min, source.s32_max)
    kept_range = (low, high) if -half <= low and high < half else (-half, half - 1)
    value, mask = tnum.cut(source.tnum, width)
    if mask >> width - 1 & 1:
        value, mask = value & half - 1, mask | limit & ~(half - 1)
    else:
        value = signed(value, width) & limit
    if bits == 64:
        return build((value, mask), signed_range=kept_range)
    return build((value, mask), signed32=kept_range)


def _compute_const(operation: int, dst: int, src: int, bits: int) -> Scalar:
    concrete = alu.binary(operation, 0, bits)
    assert concrete is not None  # noqa: S101 - every operation of this module exists
    limit = U64 if bits == 64 else U32
    return scalar.const(concrete(dst & limit, src & limit) & limit)


def _shift(operation: int, dst: Scalar, count: int, bits: int) -> Scalar:
    """Shift by a number that is known and less than the width."""
    if operation == op.LSH:
        moved = tnum.cut(tnum.shift_left(dst.tnum, count), bits)
        if bits == 32:
            fits = dst.u32_max <= U32 >> count
            low = (dst.u32_min << count, dst.u32_max << count) if fits else (0, U32)
            return build(moved, unsigned32=low)
        fits = dst.umax <= U64 >> count
        return build(moved, (dst.umin << count, dst.umax << count) if fits else (0, U64))
    if operation == op.RSH:
        moved = tnum.shift_right(tnum.cut(dst.tnum, bits), count)
        if bits == 32:
            return build(moved, unsigned32=(dst.u32_min >> count, dst.u32_max >> count))
        return build(moved, (dst.umin >> count, dst.umax >> count))
    moved = tnum.shift_right_signed(tnum.cut(dst.tnum, bits), count, bits)
    if bits == 32:
        return build(moved, signed32=(dst.s32_min >> count, dst.s32_max >> count))
    return build(moved, signed_range=(dst.smin >> count, dst.smax >> count))


def _ranges(operation: int, dst: Scalar, src: Scalar, bits: int) -> tuple[Range, Range]:
    """Return the unsigned and the signed range of a result on so many bits."""
    if bits == 64:
        unsigned, limits = (dst.umin, dst.umax, src.umin, src.umax), (U64, S64_MIN, S64_MAX)
        signed_ends = (dst.smin, dst.smax, src.smin, src.smax)
    else:
        unsigned = (dst.u32_min, dst.u32_max, src.u32_min, src.u32_max)
        signed_ends, limits = (dst.s32_min, dst.s32_max, src.s32_min, src.s32_max), _LIMITS32
    return _RANGES[operation](unsigned, signed_ends, limits)


_Ends = tuple[int, int, int, int]
_Limits = tuple[int, int, int]
_LIMITS32: Final = (U32, S32_MIN, S32_MAX)


def _within(low: int, high: int, least: int, largest: int) -> Range:
    """Return a range, or all there is if the result may wrap around."""
    return (low, high) if least <= low and high <= largest else (least, largest)


def _add(unsigned: _Ends, signed_ends: _Ends, limits: _Limits) -> tuple[Range, Range]:
    largest, smallest, top = limits
    low, high = unsigned[0] + unsigned[2], unsigned[1] + unsigned[3]
    if low > largest:  # both ends wrap: the range stays whole
        low, high = low - largest - 1, high - largest - 1
    return (
        _within(low, high, 0, largest),
        _within(signed_ends[0] + signed_ends[2], signed_ends[1] + signed_ends[3], smallest, top),
    )


def _subtract(unsigned: _Ends, signed_ends: _Ends, limits: _Limits) -> tuple[Range, Range]:
    largest, smallest, top = limits
    low, high = unsigned[0] - unsigned[3], unsigned[1] - unsigned[2]
    if high < 0:
        low, high = low + largest + 1, high + largest + 1
    return (
        _within(low, high, 0, largest),
        _within(signed_ends[0] - signed_ends[3], signed_ends[1] - signed_ends[2], smallest, top),
    )


def _multiply(unsigned: _Ends, signed_ends: _Ends, limits: _Limits) -> tuple[Range, Range]:
    largest, smallest, top = limits
    products = [a * b for a in signed_ends[:2] for b in signed_ends[2:]]
    return (
        _within(unsigned[0] * unsigned[2], unsigned[1] * unsigned[3], 0, largest),
        _within(min(products), max(products), smallest, top),
    )


def _and(unsigned: _Ends, _signed: _Ends, limits: _Limits) -> tuple[Range, Range]:
    return (0, min(unsigned[1], unsigned[3])), limits[1:]


def _or(unsigned: _Ends, _signed: _Ends, limits: _Limits) -> tuple[Range, Range]:
    return (max(unsigned[0], unsigned[2]), limits[0]), limits[1:]


def _xor(_unsigned: _Ends, _signed: _Ends, limits: _Limits) -> tuple[Range, Range]:
    return (0, limits[0]), limits[1:]


_RANGES: Final[dict[int, Callable[[_Ends, _Ends, _Limits], tuple[Range, Range]]]] = {
    op.ADD: _add,
    op.SUB: _subtract,
    op.MUL: _multiply,
    op.AND: _and,
    op.OR: _or,
    op.XOR: _xor,
}
