"""Conditional jumps: which ways a path can go, and what it knows more on each of them.

Source: ``check_cond_jmp_op`` in kernel/bpf/verifier.c.

Example:
    >>> ways = split(env, jmp_imm(op.JEQ, 0, 0, 5))
"""

from __future__ import annotations

from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn
from bpfseal.kernel.model.analysis import branches, precision, scalar
from bpfseal.kernel.model.analysis.env import Env
from bpfseal.kernel.model.analysis.scalar import Scalar
from bpfseal.kernel.model.analysis.stack import MAX_VAR_OFF
from bpfseal.kernel.model.analysis.state import State
from bpfseal.kernel.model.analysis.tnum import U64
from bpfseal.kernel.model.analysis.values import Pointer, PointerKind, Value

_OPERATION: Final = 0xF0
_NEVER_NULL: Final = frozenset(
    {
        PointerKind.MAP_VALUE,
        PointerKind.MAP_KEY,
        PointerKind.MEMORY,
        PointerKind.MAP,
        PointerKind.RECORD,
    }
)
"""What is not null as long as it was not moved too far (``reg_not_null``)."""


def split(env: Env, insn: Insn) -> tuple[State | None, bool]:
    """Let a conditional jump split the path.

    Returns:
        The state of the path that jumps, ``None`` if none does; and whether a path goes on behind
        the jump, in the state that `env` has then.

    Raises:
        Refused: a register without a value.
    """
    operation, bits = insn.code & _OPERATION, 64 if insn.insn_class == op.JMP else 32
    is_register = bool(insn.code & op.X)
    # In the kernel's order: first the destination, then the source.
    target = env.read_register(insn.dst)
    source: Scalar | Pointer = (
        env.read_register(insn.src) if is_register else scalar.const(insn.imm & U64)
    )
    _check_comparison(env, insn.src, source)
    decided = _decide(env, insn, operation, target, source, bits)
    if decided is not None:
        precision.mark_register(env, insn.dst)
        if is_register:
            precision.mark_register(env, insn.src)
    if decided is True:
        return env.state, False
    if decided is False:
        return None, True
    ids = {value.id for value in (target, source) if isinstance(value, Scalar) and value.id}
    history = env.state.history
    if ids and history is not None:
        history.note = precision.tied_keys(env.state, ids)
    jumping = env.state.copy()
    if isinstance(target, Scalar) and isinstance(source, Scalar):
        for state, holds in ((jumping, True), (env.state, False)):
            _refine(state, insn, operation, target, source, bits, holds=holds)
        return jumping, True
    is_equality = operation in (op.JEQ, op.JNE) and bits == 64
    if is_equality and isinstance(target, Pointer) and isinstance(source, Pointer):
        equal = jumping if operation == op.JEQ else env.state
        _infer_not_null(env, equal, insn.src, source, target)
        _infer_not_null(env, equal, insn.dst, target, source)
    if (
        is_equality
        and isinstance(target, Pointer)
        and target.or_null
        and isinstance(source, Scalar)
        and source.value == source.mask == 0
        and (env.facts.null_by_register or not is_register)
    ):
        if is_register:
            precision.mark_register(env, insn.src)
        is_null = operation == op.JEQ
        _settle_null(jumping, target, is_null=is_null)
        _settle_null(env.state, target, is_null=not is_null)
    else:
        _check_comparison(env, insn.dst, target)
    return jumping, True


def _check_comparison(env: Env, register: int, value: Value) -> None:
    message = f"R{register} pointer comparison prohibited"
    env.check_no_leak(value, "check_cond_jmp_op", message)


def _infer_not_null(env: Env, state: State, register: int, value: Pointer, other: Pointer) -> None:
    """Let a pointer that may be null not be null, where it is one that is not."""
    if not value.or_null or other.or_null:
        return
    if PointerKind.BTF in (value.kind, other.kind):
        return
    if not env.facts.proves_by_any_pointer and not _is_not_null(other):
        return
    state.registers[register] = value._replace(or_null=False, id=0)


def _is_not_null(pointer: Pointer) -> bool:
    """Whether a pointer is not null for certain (``reg_not_null``)."""
    if pointer.or_null or pointer.kind not in _NEVER_NULL:
        return False
    low, high = pointer.off + pointer.variable.smin, pointer.off + pointer.variable.smax
    return low > -MAX_VAR_OFF and high < MAX_VAR_OFF


def _decide(
    env: Env,
    insn: Insn,
    operation: int,
    target: Scalar | Pointer,
    source: Scalar | Pointer,
    bits: int,
) -> bool | None:
    if isinstance(target, Scalar) and isinstance(source, Scalar):
        if env.facts.knows_itself and insn.code & op.X and insn.src == insn.dst:
            return branches.taken_with_itself(operation, target, bits)
        return branches.taken(operation, target, source, bits)
    pointer, other = (target, source) if isinstance(target, Pointer) else (source, target)
    if (
        isinstance(pointer, Pointer)
        and _is_not_null(pointer)
        and isinstance(other, Scalar)
        and other.value == other.mask == 0
        and operation in (op.JEQ, op.JNE)
        and bits == 64
    ):
        return operation == op.JNE
    return None


def _refine(
    state: State,
    insn: Insn,
    operation: int,
    target: Scalar,
    source: Scalar,
    bits: int,
    *,
    holds: bool,
) -> None:
    if operation == op.JSET:
        known = branches.refine_bits(target, source, bits, share=holds)
    else:
        known = branches.refine(
            operation if holds else branches.OPPOSITE[operation], target, source, bits
        )
    registers = state.registers
    for register, before, after in (
        (insn.dst, target, known[0]),
        (insn.src if insn.code & op.X else -1, source, known[1]),
    ):
        if register >= 0 and after is not before:
            kept = (
                after
                if not before.id
                else after._replace(id=before.id, delta=before.delta, delta_bits=before.delta_bits)
            )
            registers[register] = kept
            state.set_equal_scalars(kept)


def _settle_null(state: State, pointer: Pointer, *, is_null: bool) -> None:
    """Make every pointer with an id null, or a pointer that is not: nothing is given back then."""
    pointer_id = pointer.id
    if is_null and pointer.reference:
        state.give_back(pointer.reference)

    def settle(value: Value) -> Value:
        if not isinstance(value, Pointer) or value.id != pointer_id or not value.or_null:
            return value
        return scalar.ZERO if is_null else value._replace(or_null=False, id=0)

    state.replace_values(settle)
