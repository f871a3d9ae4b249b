"""Whether a path needs no further look, because one like it was followed to its end already.

Source: ``states_equal``, ``regsafe`` and ``stacksafe`` in kernel/bpf/verifier.c. All scalars are
compared by their ranges: the kernel, which knows the ones that mattered, follows fewer paths.

Example:
    >>> covers(remembered, current, live=0b11)
    True
"""

from __future__ import annotations

from bpfseal.kernel.model.analysis import scalar
from bpfseal.kernel.model.analysis.scalar import Scalar, includes
from bpfseal.kernel.model.analysis.state import Frame, State
from bpfseal.kernel.model.analysis.values import (
    EMPTY_SLOT,
    INVALID,
    MISC,
    SPILLED,
    ZERO_BYTE,
    Pointer,
    Slot,
    Value,
)

_Ids = dict[int, int]


def covers(old: State, new: State, live: list[int]) -> bool:
    """Whether `old` allows everything that `new` does.

    Args:
        old: a state that was remembered at an insn.
        new: the state of a path that has come to the same insn.
        live: the registers that each frame may still read, as bits, by frame.
    """
    if len(old.frames) != len(new.frames):
        return False
    ids: _Ids = {}
    if len(old.references) != len(new.references) or not all(
        _same_id(old_id, new_id, ids)
        for (old_id, _), (new_id, _) in zip(old.references, new.references, strict=True)
    ):
        return False
    return all(
        _frame_covers(old_frame, new_frame, frame_live, ids)
        for old_frame, new_frame, frame_live in zip(old.frames, new.frames, live, strict=True)
    )


def same(old: State, new: State) -> bool:
    """Whether two states are the same in every respect: a path that comes back to one loops."""
    if len(old.frames) != len(new.frames) or old.may_gotos != new.may_gotos:
        return False
    return all(
        a.call_site == b.call_site and a.registers == b.registers and a.stack == b.stack
        for a, b in zip(old.frames, new.frames, strict=True)
    )


def _frame_covers(old: Frame, new: Frame, live: int, ids: _Ids) -> bool:
    if old.call_site != new.call_site or old.callback_depth > new.callback_depth:
        return False
    new_registers = new.registers
    for number, value in enumerate(old.registers):
        if live >> number & 1 and not _value_covers(value, new_registers[number], ids):
            return False
    if old.stack is new.stack and not any(slot.spilled for slot in old.stack.values()):
        return True
    new_stack = new.stack
    for index, slot in old.stack.items():
        if not _slot_covers(slot, new_stack.get(index, EMPTY_SLOT), ids):
            return False
    return True


def _value_covers(old: Value, new: Value, ids: _Ids) -> bool:
    if old is None:
        return True
    if isinstance(old, Scalar):
        if not isinstance(new, Scalar):
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


def _slot_covers(old: Slot, new: Slot, ids: _Ids) -> bool:
    if old == new and not old.spilled:
        return True
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
    return not old.spilled or not old.is_spill or _value_covers(old.spilled, new.spilled, ids)
