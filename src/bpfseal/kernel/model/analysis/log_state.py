"""States as the kernel's log writes them (kernel/bpf/log.c ``print_verifier_state``).

Example:
    >>> state_line(State([Frame()]))
    'R10=fp0'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn
from bpfseal.kernel.model.analysis.control_flow import uses
from bpfseal.kernel.model.analysis.env import Env
from bpfseal.kernel.model.analysis.precision import register_key, slot_key
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
from bpfseal.kernel.model.processor import FRAME_POINTER

_U16_MAX: Final = (1 << 16) - 1
_S16_MIN: Final = -(1 << 15)
_S16_MAX: Final = (1 << 15) - 1


def state_line(state: State) -> str:
    """Return the registers and stack slots of the current frame that hold something."""
    frame, number = state.frame, len(state.frames) - 1
    registers = (_register(n, value, number) for n, value in enumerate(frame.registers) if value)
    slots = (_slot(index, slot, number) for index, slot in sorted(frame.stack.items()))
    return _join(state, [*registers, *slots])


def whole_state(env: Env, state: State, shown: int, *, until: State | None = None) -> str:
    """Return the current frame as the kernel shows a state of an infinite loop.

    Args:
        env: the program.
        state: the state.
        shown: the registers that are shown, as bits.
        until: for a state that was remembered: the state of the path that came back to it.
    """
    number = len(state.frames) - 1
    frame = state.frames[number]
    flags = _Liveness(env.insns, state, until) if env.facts.prints_liveness else None
    parts = [f"frame{number}:"] if number else []
    for register, value in enumerate(frame.registers):
        if value is not None and (shown >> register & 1 or register == FRAME_POINTER):
            key = register_key(number, register)
            mark = flags.of(key) if flags is not None else ""
            precise = "P" if key in state.precise and isinstance(value, Scalar) else ""
            parts.append(f"R{register}{mark}={precise}{_value(value, number)}")
    for index, slot in sorted(frame.stack.items()):
        key = slot_key(number, index)
        text = _slot(index, slot, number)
        if flags is not None:
            text = text.replace("=", f"{flags.of(key)}=", 1)
        if key in state.precise and isinstance(slot.spilled, Scalar):
            text = text.replace("=", "=P", 1)
        parts.append(text)
    if state.references:
        parts.append("refs=" + ",".join(str(reference) for reference, _ in state.references))
    if frame.is_callback:
        parts.append("cb")
    return " ".join(parts)


class _Liveness:
    """Which registers of a state were written before it and read behind it (``print_liveness``)."""

    def __init__(self, insns: Sequence[Insn], state: State, until: State | None) -> None:
        frame = len(state.frames) - 1
        self._written: set[int] = set()
        self._read: set[int] = set()
        call_site = state.frames[-1].call_site
        node = state.history
        while node is not None and node.index != call_site:
            reads, writes = uses(insns[node.index])
            self._written.update(_keys(frame, writes))
            if isinstance(node.note, int) and insns[node.index].insn_class in (op.ST, op.STX):
                self._written.add(node.note)
            node = node.before
        path = until
        while path is not None and path is not state:
            node = path.history
            while node is not None:
                reads, writes = uses(insns[node.index])
                self._read.difference_update(_keys(frame, writes))
                self._read.update(_keys(frame, reads))
                if isinstance(node.note, int):
                    if insns[node.index].insn_class == op.LDX:
                        self._read.add(node.note)
                    else:
                        self._read.discard(node.note)
                node = node.before
            path = path.parent

    def of(self, key: int) -> str:
        """Return the flags of a register or slot."""
        flags = ("r" if key in self._read else "") + ("w" if key in self._written else "")
        return f"_{flags}" if flags else ""


def _keys(frame: int, registers: int) -> list[int]:
    return [register_key(frame, n) for n in range(FRAME_POINTER) if registers >> n & 1]


def change_line(state: State, used: int, before: Mapping[int, Slot]) -> str:
    """Return the registers that an insn used and the stack slots that it changed.

    Args:
        state: the state after the insn.
        used: the registers, as bits.
        before: the stack before the insn.
    """
    frame, depth = state.frame, len(state.frames) - 1
    registers = (
        _register(number, value, depth)
        for number, value in enumerate(frame.registers)
        if value and used >> number & 1
    )
    slots = (
        _slot(index, slot, depth)
        for index, slot in sorted(frame.stack.items())
        if before.get(index) != slot
    )
    return _join(state, [*registers, *slots])


def _join(state: State, shown: Sequence[str]) -> str:
    prefix = f"frame{len(state.frames) - 1}: " if len(state.frames) > 1 else ""
    return prefix + " ".join(shown)


def _register(number: int, value: Scalar | Pointer, frame: int) -> str:
    return f"R{number}={_value(value, frame)}"


def _slot(index: int, slot: Slot, frame: int) -> str:
    at = -SLOT_SIZE * (index + 1)
    if slot.is_spill and slot.spilled is not None:
        return f"fp{at}={slot.bytes.rstrip(SPILLED)}{_value(slot.spilled, frame)}"
    return f"fp{at}={slot.bytes}"


def _value(value: Scalar | Pointer, frame: int) -> str:
    if isinstance(value, Scalar):
        if value.is_const:
            return _number(value.smin)
        return f"scalar({','.join(_scalar_facts(value))})"
    facts = []
    if value.id:
        facts.append(f"id={value.id}")
    if value.map is not None:
        given = value.map.attributes
        named = f"map={value.map.name}," if value.map.name else ""
        facts.append(f"{named}ks={given.key_size},vs={given.value_size}")
    if value.kind is PointerKind.STACK:
        other = f"[{value.frame}]" if value.frame != frame else ""
        if value.var is None:
            return f"fp{other}{_number(value.off)}"
        if value.off:
            facts.append(f"off={_number(value.off)}")
        return f"fp{other}({','.join([*facts, *_ranges(value.var)])})"
    if value.off:
        facts.append(f"off={_number(value.off)}")
    if value.kind in (PointerKind.RECORD, PointerKind.MEMORY):
        facts.append(f"sz={value.size}")
    if value.var is not None:
        facts += _ranges(value.var)
    return f"{value.word}({','.join(facts)})"


def _scalar_facts(value: Scalar) -> list[str]:
    delta = f"{value.delta:+d}" if value.delta_bits else ""
    return ([f"id={value.id}{delta}"] if value.id else []) + _ranges(value)


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
