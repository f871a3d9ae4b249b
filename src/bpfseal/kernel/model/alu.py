"""The arithmetic of BPF on unsigned Python integers (RFC 9669, sections 4.1 to 4.3 and 5.3).

Each rule is a Python expression over operands whose names the caller chooses: the machine puts
registers and numbers in their place and compiles programs (`bpfseal.kernel.model.translate`), and
`binary` and `condition` make functions of them. ``None`` says that the instruction set has no such
operation. Operands are unsigned and at most `bits` wide, and so is the result.

Example:
    >>> binary_text(op.AND, 0, 64, "r1", "7")
    'r1 & 7'
    >>> signed_divide = binary(op.DIV, 1, 32)
    >>> hex(signed_divide(0xFFFFFFF9, 2))  # -7 / 2
    '0xfffffffd'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from bpfseal.bpf import opcodes as op

Binary = Callable[[int, int], int]
Condition = Callable[[int, int], bool]


def signed(value: int, bits: int) -> int:
    """Return the low `bits` of `value` as a two's complement number."""
    sign = 1 << (bits - 1)
    return ((value & (2 * sign - 1)) ^ sign) - sign


def quotient(a: int, b: int) -> int:
    """Divide towards zero, where Python divides towards minus infinity; by zero it is 0."""
    if b == 0:
        return 0
    result = abs(a) // abs(b)
    return result if (a < 0) == (b < 0) else -result


def remainder(a: int, b: int) -> int:
    """Return the remainder with the sign of the dividend."""
    return a - b * quotient(a, b)


def swap(value: int, size: int) -> int:
    """Return the low `size` bytes in the opposite order."""
    low = value & ((1 << 8 * size) - 1)
    return int.from_bytes(low.to_bytes(size, "little"), "big")


FUNCTIONS: Final[Mapping[str, Binary]] = MappingProxyType(
    {"signed": signed, "quotient": quotient, "remainder": remainder, "swap": swap}
)
"""What the expressions call."""

_WIDENING: Final = {
    op.ADD: "{a} + {b}",
    op.SUB: "{a} - {b}",
    op.MUL: "{a} * {b}",
    op.LSH: "{a} << ({b} & {shift})",
    op.ARSH: "({a} ^ {sign}) - {sign} >> ({b} & {shift})",
}
_KEEPING_WIDTH: Final = {
    op.DIV: "{a} // {b} if {b} else 0",
    op.OR: "{a} | {b}",
    op.AND: "{a} & {b}",
    op.MOD: "{a} % {b} if {b} else {a}",
    op.XOR: "{a} ^ {b}",
    op.MOV: "{b}",
    op.RSH: "{a} >> ({b} & {shift})",
}
_SIGNED_DIVISION: Final = {
    op.DIV: "quotient(signed({a}, {bits}), signed({b}, {bits}))",
    op.MOD: "remainder(signed({a}, {bits}), signed({b}, {bits}))",
}


def binary_text(operation: int, off: int, bits: int, a: str, b: str) -> str | None:
    """Return ``a operation b`` on `bits` (section 4.1).

    `off` chooses the signed division and modulo (1) and the width of a sign-extending move. A
    division by zero gives 0; a modulo by zero leaves the dividend.
    """
    mask = (1 << bits) - 1
    fill = {"a": a, "b": b, "bits": bits, "shift": bits - 1, "sign": 1 << bits - 1}
    if off == 0 and operation in _KEEPING_WIDTH:
        return _KEEPING_WIDTH[operation].format_map(fill)
    if off == 0 and operation in _WIDENING:
        return f"{_WIDENING[operation].format_map(fill)} & {mask}"
    if off == 1 and operation in _SIGNED_DIVISION:
        return f"{_SIGNED_DIVISION[operation].format_map(fill)} & {mask}"
    if operation == op.MOV and off in (8, 16, 32) and off < bits:
        return f"signed({b}, {off}) & {mask}"
    return None


def byte_order_text(code: int, width: int, a: str) -> str | None:
    """Return ``to_le``, ``to_be`` or ``bswap`` of the low `width` bits (section 4.2).

    The machine is little-endian, so ``to_le`` only cuts off the high bits.
    """
    if width not in (16, 32, 64):
        return None
    if code == op.ALU | op.END | op.K:
        return f"{a} & {(1 << width) - 1}"
    if code in (op.ALU | op.END | op.X, op.ALU64 | op.END | op.K):
        return f"swap({a}, {width // 8})"
    return None


_UNSIGNED_CONDITIONS: Final = {
    op.JEQ: "==",
    op.JNE: "!=",
    op.JGT: ">",
    op.JGE: ">=",
    op.JLT: "<",
    op.JLE: "<=",
}
_SIGNED_CONDITIONS: Final = {op.JSGT: ">", op.JSGE: ">=", op.JSLT: "<", op.JSLE: "<="}


def condition_text(operation: int, bits: int, a: str, b: str) -> str | None:
    """Return ``a operation b`` of a conditional jump on `bits` (section 4.3)."""
    if operation == op.JSET:
        return f"{a} & {b} != 0"
    if operation in _UNSIGNED_CONDITIONS:
        return f"{a} {_UNSIGNED_CONDITIONS[operation]} {b}"
    if operation in _SIGNED_CONDITIONS:  # numbers are in signed order when their signs are turned
        sign = 1 << bits - 1
        return f"{a} ^ {sign} {_SIGNED_CONDITIONS[operation]} {b} ^ {sign}"
    return None


_ATOMIC: Final = {
    op.XCHG: "{operand}",
    op.CMPXCHG: "{operand} if old == {expected} else old",
} | {
    operation | fetch: text
    for fetch in (0, op.FETCH)
    for operation, text in (
        (op.ADD, "old + {operand}"),
        (op.OR, "old | {operand}"),
        (op.AND, "old & {operand}"),
        (op.XOR, "old ^ {operand}"),
    )
}


def atomic_text(operation: int, operand: str, expected: str) -> str | None:
    """Return the value that an atomic operation leaves in memory (section 5.3).

    The old value is called ``old``; `expected` is what CMPXCHG compares it with. An operation with
    and without FETCH leaves the same value, which may be wider than the memory.
    """
    text = _ATOMIC.get(operation)
    return None if text is None else text.format(operand=operand, expected=expected)


@lru_cache(maxsize=256)
def binary(operation: int, off: int, bits: int) -> Binary | None:
    """Return ``a operation b`` as a function; arguments as for `binary_text`."""
    made: Binary | None = _function(binary_text(operation, off, bits, "a", "b"))
    return made


@lru_cache(maxsize=256)
def condition(operation: int, bits: int) -> Condition | None:
    """Return ``a operation b`` of a conditional jump as a function."""
    made: Condition | None = _function(condition_text(operation, bits, "a", "b"))
    return made


def _function(text: str | None) -> Any:
    if text is None:
        return None
    return eval(f"lambda a, b: {text}", dict(FUNCTIONS))  # noqa: S307 - text of this module
