"""Whether a path needs no further look, because one like it was followed to its end already.

Source: ``states_equal``, ``regsafe`` and ``stacksafe`` in kernel/bpf/verifier.c.

Example:
    >>> covers(remembered, current, [0b11], exact=False)
    True
"""

from __future__ import annotations

from typing import Final

from bpfseal.kernel.model.analysis import scalar
from bpfseal.kernel.model.analysis.precision import register_key, slot_key
from bpfseal.kernel.model.analysis.scalar import Scalar, includes
from bpfseal.kernel.model.analysis.state import Frame, State
from bpfseal.kernel.model.analysis.values import (
    EMPTY_SLOT,
    INVALID,
    MISC,
    MISC_SLOT,
    SLOT_SIZE,
    SPILLED,
    ZERO_BYTE,
    Pointer,
    Slot,
    Value,
)

_Ids = dict[int, int]
_SPILLED_SLOT: Final = SPILLED * SLOT_SIZE


def covers(old: State, new: State, live: list[int], *, exact: bool) -> bool:
    """Whether `old` allows everything that `new` does.

    Args:
        old: a state that was remembered at an insn.
        new: the state of a path that has come to the same insn.
        live: the registers that each frame may still read, as bits, by frame.
        exact: every number must agree (RANGE_WITHIN); else only those that paths from `old`
            depended on (NOT_EXACT).
    """
    if len(old.frames) != len(new.frames):
        return False
    ids: _Ids = {}
    if len(old.references) != len(new.references) or not all(
        _same_id(old_id, new_id, ids)
        for (old_id, _), (new_id, _) in zip(old.references, new.references, strict=True)
    ):
        return False
    precise = None if exact else old.precise
    for number, frame in enumerate(old.frames):
        if not _frame_covers(number, frame, new.frames[number], live[number], ids, precise):
            return False
    return True


def same(old: State, new: State, live: list[int] | None) -> bool:
    """Whether two states are the same in every respect: a path that comes back to one loops.

    Args:
        old: a state that was remembered at an insn.
        new: the state of a path that has come to the same insn.
        live: the registers that count, as bits, by frame; ``None`` for all.
    """
    if len(old.frames) != len(new.frames) or old.may_gotos != new.may_gotos:
        return False
    if old.unrolls != new.unrolls:
        return False
    for number, (a, b) in enumerate(zip(old.frames, new.frames, strict=True)):
        if a.call_site != b.call_site or a.stack != b.stack:
            return False
        if live is None:
            if a.registers != b.registers:
                return False
        elif any(
            live[number] >> register & 1 and value != b.registers[register]
            for register, value in enumerate(a.registers)
        ):
            return False
    return True


def _frame_covers(
    number: int, old: Frame, new: Frame, live: int, ids: _Ids, precise: set[int] | None
) -> bool:
    if old.call_site != new.call_site or old.callback_depth > new.callback_depth:
        return False
    new_registers = new.registers
    for register, value in enumerate(old.registers):
        if live >> register & 1:
            now = new_registers[register]
            if value is now and (value is None or not value.id):
                continue
            if (
                precise is not None
                and type(value) is Scalar
                and register_key(number, register) not in precise
            ):
                if type(now) is not Scalar:
                    return False
            elif not _value_covers(value, now, ids):
                return False
    if old.stack is new.stack and not any(slot.spilled for slot in old.stack.values()):
        return True
    new_stack = new.stack
    for index, slot in old.stack.items():
        if new_stack.get(index) is slot and (slot.spilled is None or not slot.spilled.id):
            continue
        counts = precise is None or slot_key(number, index) in precise
        if not _slot_covers(slot, new_stack.get(index, EMPTY_SLOT), ids, counts=counts):
            return False
    return True


def _value_covers(old: Value, new: Value, ids: _Ids) -> bool:
    if old is None:
        return True
    if isinstance(old, Scalar):
        if not isinstance(new, Scalar):
            return False
        if old.id and (old.delta_bits != new.delta_bits or old.delta != new.delta):
            return False
        if old.id and not _same_id(old.id, new.id, ids):
            return False
        return includes(old, new)
    if not isinstance(new, Pointer):
        return False
    if old.id != new.id and not _same_id(old.id, new.id, ids):
        return False
    if old.reference != new.reference and not _same_id(old.reference, new.reference, ids):
        return False
    if old[:2] != new[:2] or old[3:5] != new[3:5] or old[6:10] != new[6:10]:
        return False
    return old.var == new.var or includes(old.variable, new.variable)


def _same_id(old: int, new: int, ids: _Ids) -> bool:
    """Whether an id of the old state stands for the same one as before in the new state."""
    if not old:
        return True
    if not new:
        return False
    if old not in ids:
        if new in ids.values():
            return False
        ids[old] = new
    return ids[old] == new


def _slot_covers(old: Slot, new: Slot, ids: _Ids, *, counts: bool) -> bool:
    if old == new and not old.spilled:
        return True
    was, now = _whole_number(old), _whole_number(new)
    if was is not None and now is not None:
        return not counts or _value_covers(was, now, ids)
    for old_byte, new_byte in zip(old.bytes, new.bytes, strict=True):
        if old_byte in (INVALID, new_byte):
            continue
        if old_byte == MISC:
            if new_byte == INVALID or (new_byte == SPILLED and new.is_whole_pointer):
                return False
        elif old_byte == ZERO_BYTE:
            if new_byte != SPILLED or new.spilled != scalar.ZERO:
                return False
        else:
            return False
    if not old.spilled or not old.is_spill:
        return True
    if not counts and isinstance(old.spilled, Scalar):
        return isinstance(new.spilled, Scalar)
    return _value_covers(old.spilled, new.spilled, ids)


def _whole_number(slot: Slot) -> Scalar | None:
    """Return the number of 8 bytes in a slot, if it is one (``scalar_reg_for_stack``)."""
    if slot.bytes == MISC_SLOT.bytes:
        return scalar.UNKNOWN
    if slot.bytes == _SPILLED_SLOT and isinstance(slot.spilled, Scalar):
        return slot.spilled
    return None
