"""Conditional jumps: which ways a path can go, and what it knows more on each of them.

Source: ``check_cond_jmp_op`` in kernel/bpf/verifier.c.

Example:
    >>> ways = split(env, jmp_imm(op.JEQ, 0, 0, 5))
"""

from __future__ import annotations

from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn
from bpfseal.kernel.model.analysis import branches, scalar
from bpfseal.kernel.model.analysis.env import Env
from bpfseal.kernel.model.analysis.scalar import Scalar
from bpfseal.kernel.model.analysis.state import State
from bpfseal.kernel.model.analysis.tnum import U64
from bpfseal.kernel.model.analysis.values import Pointer, PointerKind, Value

_OPERATION: Final = 0xF0
_NEVER_NULL: Final = frozenset(
    {PointerKind.MAP_VALUE, PointerKind.MEMORY, PointerKind.MAP, PointerKind.RECORD}
)


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
    # In the kernel's order: first the source, then the destination.
    source: Scalar | Pointer = (
        env.read_register(insn.src) if is_register else scalar.const(insn.imm & U64)
    )
    _check_comparison(env, insn.src, source)
    target = env.read_register(insn.dst)
    decided = _decide(operation, target, source, bits)
    if decided is True:
        return env.state, False
    if decided is False:
        return None, True
    jumping = env.state.copy()
    if isinstance(target, Scalar) and isinstance(source, Scalar):
        for state, holds in ((jumping, True), (env.state, False)):
            _refine(state, insn, operation, target, source, bits, holds=holds)
    elif (
        isinstance(target, Pointer)
        and target.or_null
        and source == scalar.ZERO
        and operation in (op.JEQ, op.JNE)
        and bits == 64
    ):
        is_null = operation == op.JEQ
        _settle_null(jumping, target, is_null=is_null)
        _settle_null(env.state, target, is_null=not is_null)
    else:
        _check_comparison(env, insn.dst, target)
    return jumping, True


def _check_comparison(env: Env, register: int, value: Value) -> None:
    message = f"R{register} pointer comparison prohibited"
    env.check_no_leak(value, "check_cond_jmp_op", message)


def _decide(
    operation: int, target: Scalar | Pointer, source: Scalar | Pointer, bits: int
) -> bool | None:
    if isinstance(target, Scalar) and isinstance(source, Scalar):
        return branches.taken(operation, target, source, bits)
    pointer, other = (target, source) if isinstance(target, Pointer) else (source, target)
    if (
        isinstance(pointer, Pointer)
        and pointer.kind in _NEVER_NULL
        and not pointer.or_null
        and other == scalar.ZERO
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
            kept = after if not before.id else after._replace(id=before.id)
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
