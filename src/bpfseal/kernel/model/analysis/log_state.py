"""States as the kernel's log writes them (kernel/bpf/log.c ``print_verifier_state``).

Example:
    >>> state_line(State([Frame()]))
    'R10=fp0'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from bpfseal.kernel.model.analysis.scalar import (
    S32_MAX,
    S32_MIN,
    S64_MAX,
    S64_MIN,
    Scalar,
)
from bpfseal.kernel.model.analysis.state import State
from bpfseal.kernel.model.analysis.tnum import U32, U64
from bpfseal.kernel.model.analysis.values import (
    SLOT_SIZE,
    SPILLED,
    Pointer,
    PointerKind,
    Slot,
)

_U16_MAX: Final = (1 << 16) - 1
_S16_MIN: Final = -(1 << 15)
_S16_MAX: Final = (1 << 15) - 1


def state_line(state: State) -> str:
    """Return the registers and stack slots of the current frame that hold something."""
    frame = state.frame
    registers = (_register(n, value) for n, value in enumerate(frame.registers) if value)
    slots = (_slot(index, slot) for index, slot in sorted(frame.stack.items()))
    return _join(state, [*registers, *slots])


def change_line(state: State, used: int, before: Mapping[int, Slot]) -> str:
    """Return the registers that an insn used and the stack slots that it changed.

    Args:
        state: the state after the insn.
        used: the registers, as bits.
        before: the stack before the insn.
    """
    frame = state.frame
    registers = (
        _register(number, value)
        for number, value in enumerate(frame.registers)
        if value and used >> number & 1
    )
    slots = (
        _slot(index, slot)
        for index, slot in sorted(frame.stack.items())
        if before.get(index) != slot
    )
    return _join(state, [*registers, *slots])


def _join(state: State, shown: Sequence[str]) -> str:
    prefix = f"frame{len(state.frames) - 1}: " if len(state.frames) > 1 else ""
    return prefix + " ".join(shown)


def _register(number: int, value: Scalar | Pointer) -> str:
    return f"R{number}={_value(value)}"


def _slot(index: int, slot: Slot) -> str:
    at = -SLOT_SIZE * (index + 1)
    if slot.is_spill and slot.spilled is not None:
        return f"fp{at}={slot.bytes.rstrip(SPILLED)}{_value(slot.spilled)}"
    return f"fp{at}={slot.bytes}"


def _value(value: Scalar | Pointer) -> str:
    if isinstance(value, Scalar):
        if value.is_const:
            return _number(value.smin)
        return f"scalar({','.join(_scalar_facts(value))})"
    facts = []
    if value.id:
        facts.append(f"id={value.id}")
    if value.map is not None:
        given = value.map.attributes
        facts.append(f"map={value.map.name},ks={given.key_size},vs={given.value_size}")
    if value.kind is PointerKind.STACK:
        facts += _ranges(value.var) if value.var is not None else []
        return f"fp{value.off}" + (f"({','.join(facts)})" if facts else "")
    if value.off:
        facts.append(f"off={value.off}")
    if value.var is not None:
        facts += _ranges(value.var)
    return f"{value.word}({','.join(facts)})"


def _scalar_facts(value: Scalar) -> list[str]:
    return ([f"id={value.id}"] if value.id else []) + _ranges(value)


def _ranges(value: Scalar) -> list[str]:
    """Return the ranges that say something, equal ones together, then the known bits."""
    limits = [
        ("smin", value.smin, value.smin == S64_MIN),
        ("smax", value.smax, value.smax == S64_MAX),
        ("umin", value.umin, value.umin == 0),
        ("umax", value.umax, value.umax == U64),
        ("smin32", value.s32_min, value.s32_min == S32_MIN),
        ("smax32", value.s32_max, value.s32_max == S32_MAX),
        ("umin32", value.u32_min, value.u32_min == 0),
        ("umax32", value.u32_max, value.u32_max == U32),
    ]
    open_limits = [(name, number) for name, number, is_all in limits if not is_all]
    groups: dict[int, list[str]] = {}
    for name, number in open_limits:
        groups.setdefault(number, []).append(name)
    facts = ["=".join(names) + f"={_limit(names[0], number)}" for number, names in groups.items()]
    if value.mask != U64:
        facts.append(f"var_off=({value.value:#x}; {value.mask:#x})")
    return facts


def _limit(name: str, number: int) -> str:
    if name.startswith("s"):
        return _number(number)
    return str(number) if number <= _U16_MAX else f"{number:#x}"


def _number(number: int) -> str:
    """Return a signed number: short ones in decimal, others as 64 bits in hexadecimal."""
    return str(number) if _S16_MIN <= number <= _S16_MAX else f"{number & U64:#x}"
