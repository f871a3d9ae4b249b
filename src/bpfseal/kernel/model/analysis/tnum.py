"""Tristate numbers: which bits of a 64-bit value are known (kernel/bpf/tnum.c).

A tristate number is a pair of `value` and `mask`: a bit of the mask is set where the bit is not
known, and such a bit of the value is zero.

Example:
    >>> add((0b100, 0), (0, 0b1))  # 4 + (0 or 1)
    (4, 1)
"""

from __future__ import annotations

from typing import Final

from bpfseal.kernel.model import alu

Tnum = tuple[int, int]
"""The known bits and the mask of the unknown ones."""

U32: Final = (1 << 32) - 1
U64: Final = (1 << 64) - 1

UNKNOWN: Final[Tnum] = (0, U64)
"""A number of which no bit is known."""


def add(a: Tnum, b: Tnum) -> Tnum:
    """Return the sum of two numbers."""
    value = a[0] + b[0] & U64
    changed = (a[1] + b[1] + value ^ value) & U64
    mask = changed | a[1] | b[1]
    return value & ~mask, mask


def subtract(a: Tnum, b: Tnum) -> Tnum:
    """Return the difference of two numbers."""
    value = a[0] - b[0] & U64
    changed = (value + a[1] ^ value - b[1]) & U64
    mask = changed | a[1] | b[1]
    return value & ~mask, mask


def bit_and(a: Tnum, b: Tnum) -> Tnum:
    """Return ``a & b``."""
    value = a[0] & b[0]
    return value, (a[0] | a[1]) & (b[0] | b[1]) & ~value


def bit_or(a: Tnum, b: Tnum) -> Tnum:
    """Return ``a | b``."""
    value = a[0] | b[0]
    return value, (a[1] | b[1]) & ~value


def bit_xor(a: Tnum, b: Tnum) -> Tnum:
    """Return ``a ^ b``."""
    mask = a[1] | b[1]
    return (a[0] ^ b[0]) & ~mask, mask


def multiply(a: Tnum, b: Tnum) -> Tnum:
    """Return the product of two numbers, by long multiplication."""
    product = a[0] * b[0] & U64
    mask: Tnum = (0, 0)
    value, unknown = a
    value_b, unknown_b = b
    while value or unknown:
        if value & 1:
            mask = add(mask, (0, unknown_b))
        elif unknown & 1:
            mask = add(mask, (0, value_b | unknown_b))
        value, unknown = value >> 1, unknown >> 1
        value_b, unknown_b = value_b << 1 & U64, unknown_b << 1 & U64
    return add((product, 0), mask)


def shift_left(a: Tnum, bits: int) -> Tnum:
    """Return ``a << bits``."""
    return a[0] << bits & U64, a[1] << bits & U64


def shift_right(a: Tnum, bits: int) -> Tnum:
    """Return ``a >> bits`` without sign."""
    return a[0] >> bits, a[1] >> bits


def shift_right_signed(a: Tnum, bits: int, width: int) -> Tnum:
    """Return ``a >> bits`` with sign, of the low `width` bits."""
    cut = (1 << width) - 1
    value = alu.signed(a[0], width) >> bits & cut
    mask = alu.signed(a[1], width) >> bits & cut
    return value & ~mask, mask


def cut(a: Tnum, width: int) -> Tnum:
    """Return the low `width` bits."""
    kept = (1 << width) - 1
    return a[0] & kept, a[1] & kept


def intersect(a: Tnum, b: Tnum) -> Tnum:
    """Return what is known from both `a` and `b`, which describe the same number."""
    mask = a[1] & b[1]
    return (a[0] | b[0]) & ~mask, mask


def text(a: Tnum) -> str:
    """Return a number as the kernel's log shows it (``tnum_strn``)."""
    return f"({a[0]:#x}; {a[1]:#x})" if a[1] else str(alu.signed(a[0], 64))


def contains(a: Tnum, b: Tnum) -> bool:
    """Whether every number that `b` allows is one that `a` allows."""
    return not b[1] & ~a[1] and a[0] == b[0] & ~a[1]
