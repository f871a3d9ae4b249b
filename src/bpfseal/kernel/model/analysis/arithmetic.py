"""Arithmetic on scalars: what is known of a result from what is known of the operands.

Source: ``adjust_scalar_min_max_vals`` in kernel/bpf/verifier.c. Division, modulo and shifts by a
number that is not known give any number, as there; what a release knows less of is in
`bpfseal.kernel.model.verifier_facts`.

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


def compute(operation: int, dst: Scalar, src: Scalar, bits: int, *, signs: bool = True) -> Scalar:
    """Return ``dst operation src`` on 64 bits, or on 32 bits with the high half cleared.

    Args:
        operation: an operation that is no division.
        dst: the first operand.
        src: the second one.
        bits: 64 or 32.
        signs: factors may be negative (`VerifierFacts.multiplies_signs`).
    """
    if operation in _SHIFTS:
        if not _is_const(src, bits) or src.umax >= bits:
            return scalar.UNKNOWN
    elif operation not in _TNUM:
        return scalar.UNKNOWN
    if not dst.mask and not src.mask:
        return _compute_const(operation, dst.value, src.value, bits)
    if operation in _SHIFTS:
        return _shift(operation, dst, src.umax, bits)
    bits_of_result = _TNUM[operation](dst.tnum, src.tnum)
    unsigned32, signed32 = _ranges(operation, dst, src, 32, signs=signs)
    if bits == 32:
        low = tnum.cut(bits_of_result, 32)
        return build(low, (0, U32), (0, U32), unsigned32, signed32)
    unsigned64, signed64 = _ranges(operation, dst, src, 64, signs=signs)
    return build(bits_of_result, unsigned64, signed64, unsigned32, signed32)


def divide(dst: Scalar, src: Scalar, bits: int, *, is_signed: bool) -> Scalar:
    """Return ``dst / src``, which is 0 for a divisor of 0.

    Source: ``scalar_min_max_udiv``, ``scalar_min_max_sdiv`` and those of 32 bits.
    """
    if not _is_const(src, bits):
        return scalar.UNKNOWN
    unsigned, signed_range, divisor, signed_divisor = _parts(dst, src, bits)
    if divisor == 0:
        return scalar.ZERO
    if not is_signed:
        return _of_part(bits, (unsigned[0] // divisor, unsigned[1] // divisor), None)
    low, high = signed_range
    least = S64_MIN if bits == 64 else S32_MIN
    if low == least and signed_divisor == -1:
        whole = (least, -least - 1)
        return _of_part(bits, None, (least, least) if high == least else whole)
    ends = _quotient(low, signed_divisor), _quotient(high, signed_divisor)
    return _of_part(bits, None, (min(ends), max(ends)))


def remainder(dst: Scalar, src: Scalar, bits: int, *, is_signed: bool) -> Scalar:
    """Return ``dst % src``, which is `dst` for a divisor of 0.

    Source: ``scalar_min_max_umod``, ``scalar_min_max_smod`` and those of 32 bits.
    """
    if not _is_const(src, bits):
        return scalar.UNKNOWN
    unsigned, (low, high), divisor, signed_divisor = _parts(dst, src, bits)
    unchanged = dst if bits == 64 else truncate(dst)
    if divisor == 0:
        return unchanged
    if not is_signed:
        if unsigned[1] < divisor:
            return unchanged
        return _of_part(bits, (0, min(unsigned[1], divisor - 1)), None)
    most = abs(signed_divisor) - 1
    if low >= -most and high <= most:
        return unchanged
    if low >= 0:
        return _of_part(bits, None, (0, min(high, most)))
    if high <= 0:
        return _of_part(bits, None, (max(low, -most), 0))
    return _of_part(bits, None, (-most, most))


def linked(value: Scalar, known: Scalar) -> Scalar:
    """Return what is known of a number that is a constant more than one that is known better.

    Source: ``sync_linked_regs``. A constant that was added in 32 bits says nothing of the 64 bits
    of a number that another constant was added to.
    """
    if {value.delta_bits, known.delta_bits} == {32, 64}:
        return value
    if value.delta == known.delta:
        return known
    by = scalar.const(value.delta - known.delta & U64)
    result = compute(op.ADD, known.unlinked, by, 64)
    if 32 in (value.delta_bits, known.delta_bits):
        result = truncate(result)
    return result._replace(id=value.id, delta=value.delta, delta_bits=value.delta_bits)


def _is_const(source: Scalar, bits: int) -> bool:
    """Whether the bits that count are known (``is_safe_to_compute_dst_reg_range``)."""
    return not source.mask & (U64 if bits == 64 else U32)


def _parts(dst: Scalar, src: Scalar, bits: int) -> tuple[Range, Range, int, int]:
    """Return the ranges of a dividend, and a divisor that is known, both unsigned and signed."""
    if bits == 64:
        return (dst.umin, dst.umax), (dst.smin, dst.smax), src.umin, src.smin
    return (dst.u32_min, dst.u32_max), (dst.s32_min, dst.s32_max), src.u32_min, src.s32_min


def _of_part(bits: int, unsigned: Range | None, signed_range: Range | None) -> Scalar:
    """Return a number of which one range is known; one of 32 bits is zero-extended."""
    if bits == 64:
        return build(tnum.UNKNOWN, unsigned or (0, U64), signed_range or (S64_MIN, S64_MAX))
    narrow = (0, U32), (0, U32), unsigned or (0, U32), signed_range or (S32_MIN, S32_MAX)
    return build((0, U32), *narrow)


def _quotient(dividend: int, divisor: int) -> int:
    """Divide towards zero."""
    quotient = abs(dividend) // abs(divisor)
    return -quotient if (dividend < 0) != (divisor < 0) else quotient


def swap_bytes(source: Scalar, width: int, *, swaps: bool) -> Scalar:
    """Return the low `width` bits with their bytes swapped, or only cut (``scalar_byte_swap``)."""
    if not swaps:
        if width == 64:
            return source
        if width == 32:
            return truncate(source).unlinked
        return build(tnum.cut(source.tnum, width)).unlinked
    return build((_swapped(source.value, width), _swapped(source.mask, width))).unlinked


def _swapped(value: int, width: int) -> int:
    low = value & (1 << width) - 1
    return int.from_bytes(low.to_bytes(width // 8, "little"), "big")


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


def _ranges(
    operation: int, dst: Scalar, src: Scalar, bits: int, *, signs: bool
) -> tuple[Range, Range]:
    """Return the unsigned and the signed range of a result on so many bits."""
    if bits == 64:
        unsigned, limits = (dst.umin, dst.umax, src.umin, src.umax), (U64, S64_MIN, S64_MAX)
        signed_ends = (dst.smin, dst.smax, src.smin, src.smax)
    else:
        unsigned = (dst.u32_min, dst.u32_max, src.u32_min, src.u32_max)
        signed_ends, limits = (dst.s32_min, dst.s32_max, src.s32_min, src.s32_max), _LIMITS32
    if operation == op.MUL and not signs:
        largest_factor = U32 if bits == 64 else (1 << 16) - 1
        small = max(unsigned[1], unsigned[3]) <= largest_factor
        if min(signed_ends) < 0 or not small:
            return (0, limits[0]), limits[1:]
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
