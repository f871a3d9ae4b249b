"""What the verifier knows of a number in a register: known bits, and ranges of 64 and 32 bits.

Every scalar is kept in agreement with itself: what the bits say of the ranges, the ranges of each
other and of the bits (``reg_bounds_sync`` in kernel/bpf/verifier.c).

Example:
    >>> byte = of_unsigned(0, 255)
    >>> byte.mask, byte.smax, byte.u32_max
    (255, 255, 255)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from bpfseal.kernel.model.alu import signed
from bpfseal.kernel.model.analysis.tnum import U32, U64, Tnum

S32_MIN: Final = -(1 << 31)
S32_MAX: Final = (1 << 31) - 1
S64_MIN: Final = -(1 << 63)
S64_MAX: Final = (1 << 63) - 1


class Scalar(NamedTuple):
    """A number of 64 bits.

    Attributes:
        value: the bits that are known to be one.
        mask: the bits that are not known.
        umin: the least value, unsigned.
        umax: the largest value, unsigned.
        smin: the least value, signed.
        smax: the largest value, signed.
        u32_min: the least value of the low half, unsigned.
        u32_max: the largest value of the low half, unsigned.
        s32_min: the least value of the low half, signed.
        s32_max: the largest value of the low half, signed.
        id: registers with the same id that is not 0 hold the same number, or numbers that differ
            by a constant.
        delta: that constant: how much more this is than the number that the id stands for.
        delta_bits: the width that the constant was added in, 0 for none (``BPF_ADD_CONST``).
    """

    value: int
    mask: int
    umin: int
    umax: int
    smin: int
    smax: int
    u32_min: int
    u32_max: int
    s32_min: int
    s32_max: int
    id: int = 0
    delta: int = 0
    delta_bits: int = 0

    @property
    def is_const(self) -> bool:
        """Whether only one number is possible."""
        return not self.mask

    @property
    def tnum(self) -> Tnum:
        """The known bits."""
        return self[0], self[1]

    @property
    def unlinked(self) -> Scalar:
        """The number without its ties to others."""
        return self._replace(id=0, delta=0, delta_bits=0) if self.id else self

    @property
    def signed_value(self) -> int:
        """The number that a constant is, signed."""
        return self.smin


UNKNOWN: Final = Scalar(0, U64, 0, U64, S64_MIN, S64_MAX, 0, U32, S32_MIN, S32_MAX)
"""Any number at all."""


@lru_cache(maxsize=4096)
def const(value: int) -> Scalar:
    """Return the scalar that is just this number, given as an unsigned one."""
    low = value & U32
    high, low_signed = signed(value, 64), signed(low, 32)
    return Scalar(value, 0, value, value, high, high, low, low, low_signed, low_signed)


ZERO: Final = const(0)
"""The number zero."""


def of_unsigned(low: int, high: int) -> Scalar:
    """Return a number between two unsigned limits."""
    return build(tnum=(0, U64), unsigned=(low, high))


@lru_cache(maxsize=256)
def of_width(bits: int, *, is_signed: bool = False) -> Scalar:
    """Return what a load of so many bits gives, zero-extended or sign-extended."""
    if bits == 64:
        return UNKNOWN
    if is_signed:
        return build(tnum=(0, U64), signed_range=(-(1 << bits - 1), (1 << bits - 1) - 1))
    return build(tnum=(0, (1 << bits) - 1))


Range = tuple[int, int]


@lru_cache(maxsize=8192)
def build(
    tnum: Tnum,
    unsigned: Range = (0, U64),
    signed_range: Range = (S64_MIN, S64_MAX),
    unsigned32: Range = (0, U32),
    signed32: Range = (S32_MIN, S32_MAX),
    id: int = 0,  # noqa: A002 - the kernel's name
) -> Scalar:
    """Return a scalar from what is known of it, with every range made as narrow as the others say.

    Facts that contradict each other leave only the bits that are known, as in the kernel
    (``reg_bounds_sanity_check``): a branch with such a number is never taken.
    """
    value, mask = tnum
    if not mask:
        known = const(value)
        return known if not id else known._replace(id=id)
    made = _sync(value, mask, *unsigned, *signed_range, *unsigned32, *signed32)
    if made is None:
        made = _sync(value, mask, 0, U64, S64_MIN, S64_MAX, 0, U32, S32_MIN, S32_MAX)
    if made is None:
        return UNKNOWN
    if not made[1]:
        return const(made[0])
    return made._replace(id=id) if id else made


def _sync(
    value: int,
    mask: int,
    umin: int,
    umax: int,
    smin: int,
    smax: int,
    u32_min: int,
    u32_max: int,
    s32_min: int,
    s32_max: int,
) -> Scalar | None:
    """Make ranges and bits agree; ``None`` if no number satisfies all of them."""
    for _ in range(3):
        before = (value, mask, umin, umax, smin, smax, u32_min, u32_max, s32_min, s32_max)
        # From the bits (__update_reg64_bounds, __update_reg32_bounds).
        low, high = value, value | mask
        umin, umax = max(umin, low), min(umax, high)
        sign = mask & 1 << 63
        smin = max(smin, signed(low | sign, 64))
        smax = min(smax, signed(high & ~sign & U64, 64))
        u32_min, u32_max = max(u32_min, low & U32), min(u32_max, high & U32)
        sign = mask & 1 << 31
        s32_min = max(s32_min, signed(low | sign, 32))
        s32_max = min(s32_max, signed(high & ~sign, 32))
        # The halves of one range (__reg32_deduce_bounds).
        if umin >> 32 == umax >> 32:
            u32_min, u32_max = max(u32_min, umin & U32), min(u32_max, umax & U32)
            if signed(umin, 32) <= signed(umax, 32):
                s32_min, s32_max = max(s32_min, signed(umin, 32)), min(s32_max, signed(umax, 32))
        if smin >> 32 == smax >> 32:
            if smin & U32 <= smax & U32:
                u32_min, u32_max = max(u32_min, smin & U32), min(u32_max, smax & U32)
            if signed(smin, 32) <= signed(smax, 32):
                s32_min, s32_max = max(s32_min, signed(smin, 32)), min(s32_max, signed(smax, 32))
        if signed(u32_min, 32) <= signed(u32_max, 32):
            s32_min, s32_max = max(s32_min, signed(u32_min, 32)), min(s32_max, signed(u32_max, 32))
        if s32_min & U32 <= s32_max & U32:
            u32_min, u32_max = max(u32_min, s32_min & U32), min(u32_max, s32_max & U32)
        # One sign (__reg64_deduce_bounds).
        if signed(umin, 64) <= signed(umax, 64):
            smin, smax = max(smin, signed(umin, 64)), min(smax, signed(umax, 64))
        if smin & U64 <= smax & U64:
            umin, umax = max(umin, smin & U64), min(umax, smax & U64)
        # From the halves (__reg_deduce_mixed_bounds).
        umin = max(umin, umin & ~U32 | u32_min)
        umax = min(umax, umax & ~U32 | u32_max)
        smin = max(smin, smin & ~U32 | u32_min)
        smax = min(smax, smax & ~U32 | u32_max)
        if s32_min >= 0 and smin >= S32_MIN and smax <= S32_MAX:
            umin, umax = max(umin, s32_min), min(umax, s32_max)
            smin, smax = max(smin, s32_min), min(smax, s32_max)
        if umin > umax or smin > smax or u32_min > u32_max or s32_min > s32_max:
            return None
        # Back to the bits (__reg_bound_offset).
        differing = (1 << (umin ^ umax).bit_length()) - 1
        from_range = umin & ~differing
        if (value ^ from_range) & ~mask & ~differing:
            return None
        value, mask = (value | from_range) & ~(mask & differing), mask & differing
        differing = (1 << (u32_min ^ u32_max).bit_length()) - 1
        from_range = u32_min & ~differing
        if (value ^ from_range) & ~mask & ~differing & U32:
            return None
        cut = mask & (differing | ~U32)
        value, mask = (value | from_range) & ~cut, cut
        if before == (value, mask, umin, umax, smin, smax, u32_min, u32_max, s32_min, s32_max):
            break
    return Scalar(value, mask, umin, umax, smin, smax, u32_min, u32_max, s32_min, s32_max)


def includes(old: Scalar, new: Scalar) -> bool:
    """Whether every number that `new` allows is one that `old` allows (``range_within``)."""
    return (
        old[2] <= new[2]
        and old[3] >= new[3]
        and old[4] <= new[4]
        and old[5] >= new[5]
        and old[6] <= new[6]
        and old[7] >= new[7]
        and old[8] <= new[8]
        and old[9] >= new[9]
        and not new[1] & ~old[1]
        and old[0] == new[0] & ~old[1]
    )
