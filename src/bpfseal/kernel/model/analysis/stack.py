"""Reads and writes of the stack: spilled values, single bytes, and ranges that helpers use.

Source: ``check_stack_read``, ``check_stack_write``, ``check_stack_range_initialized`` and
``check_stack_access_within_bounds`` in kernel/bpf/verifier.c.

Example:
    >>> write(env, 10, -8, 8, scalar.ZERO)
    >>> read(env, 10, -8, 8) == scalar.ZERO
    True
"""

from __future__ import annotations

from errno import EACCES, EFAULT, EINVAL
from typing import Final, Literal

from bpfseal.bpf import opcodes as op
from bpfseal.kernel.model.analysis import precision, scalar, tnum
from bpfseal.kernel.model.analysis.env import Env
from bpfseal.kernel.model.analysis.scalar import Scalar
from bpfseal.kernel.model.analysis.state import Frame
from bpfseal.kernel.model.analysis.values import (
    INVALID,
    MISC,
    MISC_SLOT,
    SLOT_SIZE,
    SPILLED,
    ZERO_BYTE,
    Pointer,
    PointerKind,
    Slot,
    Value,
)
from bpfseal.kernel.model.processor import STACK_SIZE

MAX_VAR_OFF: Final = 1 << 29
"""BPF_MAX_VAR_OFF (include/linux/bpf_verifier.h)."""

Access = Literal["read", "write"]

_DIRECTION: Final = {"read": "read from", "write": "write to"}
_WIDTHS: Final = {1: 8, 2: 16, 4: 32, 8: 64}


def span(pointer: Pointer, off: int) -> tuple[int, int]:
    """Return the least and the largest offset from the frame pointer that an access may have."""
    off += pointer.off
    if pointer.var is None:
        return off, off
    return off + pointer.var.smin, off + pointer.var.smax


def check_bounds(
    env: Env, register: int, off: int, size: int, access: Access, *, by_helper: bool = False
) -> None:
    """Check that an access stays within the 512 bytes of a frame.

    Args:
        env: the program.
        register: the register with the stack pointer.
        off: the offset from what it points to.
        size: bytes, 0 or more; less for a size that is not known to be positive.
        access: read or write.
        by_helper: a helper makes the access.

    Raises:
        Refused: EACCES below the frame, EINVAL above it.
    """
    pointer = env.state.registers[register]
    assert isinstance(pointer, Pointer)  # noqa: S101 - the caller looked
    function, direction = "check_stack_access_within_bounds", _DIRECTION[access]
    if by_helper and not env.facts.names_helper_access:
        direction = "indirect access to"
    variable = pointer.variable
    if not variable.is_const and (variable.smax >= MAX_VAR_OFF or variable.smin <= -MAX_VAR_OFF):
        message = f"invalid unbounded variable-offset {direction} stack R{register}"
        raise env.refuse(EACCES, function, message)
    low, high = span(pointer, off)
    if not -STACK_SIZE <= low < 0:
        errno = EACCES
    elif high + size > 0:
        errno = EINVAL
    elif size < 0:
        errno = EFAULT
    else:
        env.note_stack_use(pointer, low)
        return
    if pointer.var is None:
        message = f"invalid {direction} stack R{register} off={low} size={size}"
    else:
        known, fixed = env.offset_of(pointer)
        bits, shown = tnum.text(known), off + fixed
        message = (
            f"invalid variable-offset {direction} stack R{register} var_off={bits}"
            f" off={shown} size={size}"
        )
    raise env.refuse(errno, function, message)


def read(env: Env, register: int, pointer: Pointer, off: int, size: int) -> Scalar | Pointer:
    """Return what a load of the stack gives, with its high bytes still as they were spilled.

    Raises:
        Refused: EACCES for a part of a spilled pointer, or for bytes that were never written.
    """
    frame = env.frame_of(pointer)
    if pointer.var is not None:
        return _read_variable(env, frame, pointer, off, size)
    off += pointer.off
    at = -off - 1
    slot = frame.slot(at // SLOT_SIZE)
    kinds = "".join(slot.bytes[(at - i) % SLOT_SIZE] for i in range(size))
    if slot.is_spill and slot.spilled is not None:
        spilled_size = SLOT_SIZE - len(slot.bytes.rstrip(SPILLED))
        if not isinstance(slot.spilled, Pointer):
            _note(env, pointer.frame, at // SLOT_SIZE)
        if size == spilled_size == SLOT_SIZE:
            return slot.spilled
        if isinstance(slot.spilled, Pointer):
            raise env.refuse(EACCES, "check_stack_read_fixed_off", "invalid size of register fill")
        if size <= spilled_size and off % SLOT_SIZE == 0:
            return slot.spilled
    if at // SLOT_SIZE > max(frame.stack, default=-1):  # below all that was ever written
        message = f"invalid read from stack R{register} off={off} size={size}"
    else:
        message = f"invalid read from stack off {off}+{{}} size {size}"
    _check_initialised(env, kinds, message)
    return scalar.ZERO if kinds == ZERO_BYTE * size else scalar.of_width(_WIDTHS[size])


def _check_initialised(env: Env, kinds: str, message: str) -> None:
    if INVALID in kinds and not env.rights.perfmon:
        place = message.format(kinds.index(INVALID))
        raise env.refuse(EACCES, "check_stack_read_fixed_off", place)


def _read_variable(env: Env, frame: Frame, pointer: Pointer, off: int, size: int) -> Scalar:
    low, high = span(pointer, off)
    kinds = _kinds(frame, low, high + size - low)
    _check_initialised(env, kinds, f"invalid read from stack off {low}+{{}} size {size}")
    return scalar.ZERO if set(kinds) == {ZERO_BYTE} else scalar.of_width(_WIDTHS[size])


def _kinds(frame: Frame, low: int, size: int) -> str:
    """Return the kinds of the bytes from an offset upward."""
    ats = (-off - 1 for off in range(low, low + size))
    return "".join(frame.slot(at // SLOT_SIZE).bytes[at % SLOT_SIZE] for at in ats)


def write(env: Env, pointer: Pointer, off: int, size: int, value: Value) -> None:
    """Let a store change the stack. `value` is ``None`` for bytes of which nothing is known.

    Raises:
        Refused: EACCES for a part of a pointer, EINVAL for a stack pointer in a caller's frame.
    """
    frame = env.frame_of(pointer)
    if pointer.var is not None:
        _write_variable(env, frame, pointer, off, size, value)
        return
    off += pointer.off
    at = -off - 1
    index = at // SLOT_SIZE
    function = "check_stack_write_fixed_off"
    if size != SLOT_SIZE and frame.slot(index).is_spill:
        spilled, message = frame.slot(index).spilled, "attempt to corrupt spilled pointer on stack"
        env.check_no_leak(spilled, function, message)
    if isinstance(value, Pointer):
        if size != SLOT_SIZE:
            raise env.refuse(EACCES, function, "invalid size of register spill")
        if value.kind is PointerKind.STACK and frame is not env.state.frame:
            message = "cannot spill pointers to stack into stack frame of the caller"
            raise env.refuse(EINVAL, function, message)
        frame.set_slot(index, Slot(SPILLED * SLOT_SIZE, value))
        _note(env, pointer.frame, index)
        return
    kept = frame.slot(index).bytes
    if value is not None and off % SLOT_SIZE == 0:
        rest = kept[: SLOT_SIZE - size].replace(SPILLED, MISC).replace(ZERO_BYTE, MISC)
        frame.set_slot(index, Slot(rest + SPILLED * size, _spilled(value, size)))
        _note(env, pointer.frame, index)
        return
    is_zero = value is not None and value.value == value.mask == 0
    if is_zero:
        _mark_stored(env)
    kind = ZERO_BYTE if is_zero else MISC
    changed = list(kept.replace(SPILLED, MISC)) if SPILLED in kept else list(kept)
    for i in range(size):
        changed[(at - i) % SLOT_SIZE] = kind
    frame.set_slot(index, Slot("".join(changed)))


def _note(env: Env, frame: int, index: int) -> None:
    """Note which slot an insn spills to or fills from (``insn_stack_access_flags``)."""
    history = env.state.history
    if history is not None:
        history.note = precision.slot_key(frame, index)


def _mark_stored(env: Env) -> None:
    """Mark the register that a store insn stores: that it is zero is relied on."""
    insn = env.insns[env.index]
    if insn.insn_class == op.STX:
        precision.mark_register(env, insn.src)


def _spilled(value: Scalar, size: int) -> Scalar:
    """Return a scalar as it is kept; one that does not fit is no longer the register's equal."""
    if value.id and value.umax >> 8 * size:
        return value._replace(id=0)
    return value


def _write_variable(
    env: Env, frame: Frame, pointer: Pointer, off: int, size: int, value: Value
) -> None:
    """Write somewhere in a range: whatever is there may have changed."""
    low, high = span(pointer, off)
    keep_zero = isinstance(value, Scalar) and value.value == value.mask == 0
    if keep_zero:
        _mark_stored(env)
    for at in range(-high - size, -low):
        index = at // SLOT_SIZE
        slot = frame.slot(index)
        kinds = list(slot.bytes.replace(SPILLED, MISC))
        if not (keep_zero and kinds[at % SLOT_SIZE] == ZERO_BYTE):
            kinds[at % SLOT_SIZE] = MISC
        frame.set_slot(index, Slot("".join(kinds)))


def use_range(
    env: Env, register: int, size: int, access: Access, *, zero_allowed: bool, is_exact: bool
) -> None:
    """Let a helper use so many bytes behind a stack pointer.

    Args:
        env: the program.
        register: the register with the pointer.
        size: the largest number of bytes.
        access: what the helper does with them.
        zero_allowed: no bytes at all are fine.
        is_exact: a helper that writes fills exactly so many bytes and reads none.

    Raises:
        Refused: EACCES or EINVAL.
    """
    pointer = env.state.registers[register]
    assert isinstance(pointer, Pointer)  # noqa: S101 - the caller looked
    function = "check_stack_range_initialized"
    if size == 0 and not zero_allowed:
        raise env.refuse(EACCES, function, "invalid zero-sized read")
    check_bounds(env, register, 0, size, access, by_helper=True)
    if size == 0:
        return
    frame = env.frame_of(pointer)
    low, high = span(pointer, 0)
    if access == "read" or pointer.var is not None or not is_exact:
        kinds = _kinds(frame, low, high + size - low)
        message = f"invalid read from stack R{register} off {low}+{{}} size {size}"
        _check_initialised(env, kinds, message)
    if access == "write":
        _clobber(frame, low, high + size - low)


def _clobber(frame: Frame, low: int, size: int) -> None:
    """Make bytes ones of which nothing is known."""
    first, last = -low - 1, -low - size
    for index in range(last // SLOT_SIZE, first // SLOT_SIZE + 1):
        start, end = index * SLOT_SIZE, index * SLOT_SIZE + SLOT_SIZE - 1
        if last <= start and end <= first:
            frame.set_slot(index, MISC_SLOT)
            continue
        kinds = list(frame.slot(index).bytes.replace(SPILLED, MISC))
        for at in range(max(start, last), min(end, first) + 1):
            kinds[at % SLOT_SIZE] = MISC
        frame.set_slot(index, Slot("".join(kinds)))


def constant_key(env: Env, pointer: Pointer, size: int) -> int | None:
    """Return the number in the bytes that a pointer leads to, if it is known.

    Source: ``get_constant_map_key``.
    """
    if pointer.kind is not PointerKind.STACK or pointer.var is not None or pointer.off >= 0:
        return None
    frame = env.frame_of(pointer)
    at = -pointer.off - 1
    slot = frame.slot(at // SLOT_SIZE)
    behind = slot.bytes[at % SLOT_SIZE :: -1]
    if len(behind) - len(behind.lstrip(ZERO_BYTE)) >= size:
        return 0
    if not isinstance(slot.spilled, Scalar) or not slot.spilled.is_const or not slot.is_spill:
        return None
    # The kernel counts what was spilled from here up, and takes the whole number for the key.
    if len(behind) - len(behind.lstrip(SPILLED)) != size:
        return None
    precision.mark(env, precision.slot_key(pointer.frame, at // SLOT_SIZE))
    return slot.spilled.value
