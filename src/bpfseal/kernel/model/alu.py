"""The arithmetic of BPF on unsigned Python integers (RFC 9669, sections 4.1 to 4.3 and 5.3).

Each function answers "which computation is this?" once, when a program is decoded, and returns it
as a function of the operands; ``None`` says that the instruction set has no such operation.
Operands are unsigned and at most `bits` wide. Results may be wider or negative: the caller keeps
the low bits.

Example:
    >>> signed_divide = binary(op.DIV, 1, 32)
    >>> signed_divide(0xFFFFFFF9, 2)  # -7 / 2
    -3
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Final

from bpfseal.bpf import opcodes as op

Unary = Callable[[int], int]
Binary = Callable[[int, int], int]
Condition = Callable[[int, int], bool]
Atomic = Callable[[int, int, int], int]


def signed(value: int, bits: int) -> int:
    """Return the low `bits` of `value` as a two's complement number."""
    sign = 1 << (bits - 1)
    return ((value & (2 * sign - 1)) ^ sign) - sign


def binary(operation: int, off: int, bits: int) -> Binary | None:
    """Return ``dst operation src`` on `bits` (section 4.1).

    `off` chooses the signed division and modulo (1) and the width of a sign-extending move. A
    division by zero gives 0; a modulo by zero leaves the dividend.
    """
    match operation, off:
        case op.DIV, 1:
            return lambda a, b: _quotient(signed(a, bits), signed(b, bits))
        case op.MOD, 1:
            return lambda a, b: _remainder(signed(a, bits), signed(b, bits))
        case op.MOV, 8 | 16 | 32 if off < bits:
            return lambda _, b: signed(b, off)
        case op.LSH, 0:
            return lambda a, b: a << (b & (bits - 1))
        case op.RSH, 0:
            return lambda a, b: a >> (b & (bits - 1))
        case op.ARSH, 0:
            return lambda a, b: signed(a, bits) >> (b & (bits - 1))
        case _, 0:
            return _BINARY.get(operation)
        case _:
            return None


_BINARY: Final[dict[int, Binary]] = {
    op.ADD: operator.add,
    op.SUB: operator.sub,
    op.MUL: operator.mul,
    op.DIV: lambda a, b: a // b if b else 0,
    op.OR: operator.or_,
    op.AND: operator.and_,
    op.MOD: lambda a, b: a % b if b else a,
    op.XOR: operator.xor,
    op.MOV: lambda _, b: b,
}


def _quotient(a: int, b: int) -> int:
    """Divide towards zero, where Python divides towards minus infinity."""
    if b == 0:
        return 0
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _remainder(a: int, b: int) -> int:
    """Return the remainder with the sign of the dividend."""
    return a - b * _quotient(a, b)


def byte_order(code: int, width: int) -> Unary | None:
    """Return ``to_le``, ``to_be`` or ``bswap`` of the low `width` bits (section 4.2).

    The machine is little-endian, so ``to_le`` only cuts off the high bits.
    """
    if width not in (16, 32, 64):
        return None
    mask = (1 << width) - 1
    if code == op.ALU | op.END | op.K:
        return lambda value: value & mask
    if code in (op.ALU | op.END | op.X, op.ALU64 | op.END | op.K):
        size = width // 8
        return lambda value: int.from_bytes((value & mask).to_bytes(size, "little"), "big")
    return None


def condition(operation: int, bits: int) -> Condition | None:
    """Return ``dst operation src`` of a conditional jump on `bits` (section 4.3)."""
    if (unsigned := _UNSIGNED_CONDITION.get(operation)) is not None:
        return unsigned
    if (compare := _SIGNED_CONDITION.get(operation)) is not None:
        return lambda a, b: compare(signed(a, bits), signed(b, bits))
    return None


_UNSIGNED_CONDITION: Final[dict[int, Condition]] = {
    op.JEQ: operator.eq,
    op.JNE: operator.ne,
    op.JGT: operator.gt,
    op.JGE: operator.ge,
    op.JLT: operator.lt,
    op.JLE: operator.le,
    op.JSET: lambda a, b: a & b != 0,
}

_SIGNED_CONDITION: Final[dict[int, Condition]] = {
    op.JSGT: operator.gt,
    op.JSGE: operator.ge,
    op.JSLT: operator.lt,
    op.JSLE: operator.le,
}


def atomic(operation: int) -> Atomic | None:
    """Return the value that an atomic operation leaves in memory (section 5.3).

    Its operands are the old value, the source register and the value that CMPXCHG expects. An
    operation with and without FETCH leaves the same value.
    """
    return _ATOMIC.get(operation)


_ATOMIC: Final[dict[int, Atomic]] = {
    op.XCHG: lambda _old, new, _expected: new,
    op.CMPXCHG: lambda old, new, expected: new if old == expected else old,
} | {
    operation | fetch: compute
    for fetch in (0, op.FETCH)
    for operation, compute in (
        (op.ADD, lambda old, operand, _expected: old + operand),
        (op.OR, lambda old, operand, _expected: old | operand),
        (op.AND, lambda old, operand, _expected: old & operand),
        (op.XOR, lambda old, operand, _expected: old ^ operand),
    )
}
