"""Arithmetic insns on whatever registers hold (``check_alu_op`` in kernel/bpf/verifier.c).

Example:
    >>> step(env, mov64_imm(0, 7))
    >>> env.state.registers[0] == scalar.const(7)
    True
"""

from __future__ import annotations

from errno import EACCES, EINVAL
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn
from bpfseal.kernel.model.alu import signed
from bpfseal.kernel.model.analysis import arithmetic, precision, scalar
from bpfseal.kernel.model.analysis.env import Env
from bpfseal.kernel.model.analysis.pointer_math import OPERATORS, move
from bpfseal.kernel.model.analysis.scalar import Scalar
from bpfseal.kernel.model.analysis.tnum import U32, U64
from bpfseal.kernel.model.analysis.values import Pointer, Value

_OPERATION: Final = 0xF0
_SHIFTS: Final = frozenset({op.LSH, op.RSH, op.ARSH})


def step(env: Env, insn: Insn) -> None:
    """Let an arithmetic insn change the state.

    Raises:
        Refused: a register without a value, or what the operation does not allow.
    """
    operation = insn.code & _OPERATION
    is_64 = insn.code & 0x07 == op.ALU64
    if operation == op.MOV:
        _move(env, insn, is_64=is_64)
    elif operation in (op.NEG, op.END):
        value = env.read_register(insn.dst)
        message = f"R{insn.dst} pointer arithmetic prohibited"
        env.check_no_leak(value, "check_alu_op", message)
        changed: Value = scalar.UNKNOWN
        if isinstance(value, Scalar):
            changed = (
                _negated(env, value, is_64) if operation == op.NEG else _swap(env, insn, value)
            )
        env.write_register(insn.dst, changed)
    else:
        _binary(env, insn, operation, is_64=is_64)


def _negated(env: Env, value: Scalar, is_64: bool) -> Scalar:
    if not env.facts.tracks_negation:
        return scalar.UNKNOWN
    return arithmetic.negate(value, 64 if is_64 else 32)


def _swap(env: Env, insn: Insn, value: Scalar) -> Scalar:
    """Swap bytes: always in class ALU64, for big-endian in class ALU."""
    if not env.facts.swaps_bytes:
        return scalar.UNKNOWN
    swaps = insn.insn_class == op.ALU64 or bool(insn.code & op.X)
    return arithmetic.swap_bytes(value, insn.imm, swaps=swaps)


def _move(env: Env, insn: Insn, *, is_64: bool) -> None:
    dst = insn.dst
    if not insn.code & op.X:
        env.write_register(dst, scalar.const(insn.imm & (U64 if is_64 else U32)))
        return
    value = env.read_register(insn.src)
    env.check_writable(dst)
    moved: Value
    if isinstance(value, Pointer):
        if insn.off or not is_64:  # a part of a pointer is a number for who may see pointers
            part = "sign-extension part" if insn.off else "partial copy"
            env.check_no_leak(value, "check_alu_op", f"R{insn.src} {part} of pointer")
            env.write_register(dst, scalar.UNKNOWN)
            return
        moved = value
    else:
        keeps = _is_same_after_move(value, insn.off, is_64=is_64)
        if keeps:  # both registers hold one number from now on
            value = env.tied(insn.src, value)
        if insn.off:
            moved = arithmetic.sign_extend(value, insn.off, 64 if is_64 else 32)
        else:
            moved = value if is_64 else arithmetic.truncate(value)
        if keeps:
            moved = moved._replace(id=value.id, delta=value.delta, delta_bits=value.delta_bits)
    env.write_register(dst, moved)


def _is_same_after_move(value: Scalar, width: int, *, is_64: bool) -> bool:
    """Whether a move keeps a number as it is: one of 32 bits, or with the sign of fewer."""
    if width:
        return value.umax < 1 << width - 1
    return is_64 or value.umax <= U32


def _binary(env: Env, insn: Insn, operation: int, *, is_64: bool) -> None:
    dst = insn.dst
    bits = 64 if is_64 else 32
    is_register = bool(insn.code & op.X)
    source: Scalar | Pointer = (
        env.read_register(insn.src) if is_register else scalar.const(insn.imm & U64)
    )
    target = env.read_register(dst)
    if not is_register:
        _check_constant(env, operation, insn.imm, bits)
    env.check_writable(dst)
    if isinstance(target, Scalar) and isinstance(source, Scalar):
        result: Value = _link(
            insn, operation, target, source, _scalars(env, insn, operation, target, source, bits)
        )
    else:
        result = _with_pointer(
            env,
            dst,
            operation,
            target,
            source,
            is_register=insn.src if is_register else None,
            is_64=is_64,
        )
    env.write_register(dst, result)


def _scalars(
    env: Env, insn: Insn, operation: int, target: Scalar, source: Scalar, bits: int
) -> Scalar:
    if operation in (op.DIV, op.MOD):
        if not env.facts.divides_ranges:
            return scalar.UNKNOWN
        divide = arithmetic.divide if operation == op.DIV else arithmetic.remainder
        return divide(target, source, bits, is_signed=insn.off == 1)
    signs = env.facts.multiplies_signs
    return arithmetic.compute(operation, target, source, bits, signs=signs)


def _link(insn: Insn, operation: int, target: Scalar, source: Scalar, result: Scalar) -> Scalar:
    """Remember that a number is a constant more than its copies (``adjust_reg_min_max_vals``)."""
    result = result.unlinked
    if not target.id or operation not in (op.ADD, op.SUB) or target.delta_bits:
        return result
    bits = 64 if insn.insn_class == op.ALU64 else 32
    limit = U64 if bits == 64 else U32
    is_self = insn.code & op.X and insn.src == insn.dst
    if source.mask & limit or is_self or (bits == 32 and target.umax > U32):
        return result
    by = signed(source.value & limit, bits)
    if operation == op.SUB:
        by = -by
    if not -(1 << 31) < by < 1 << 31:
        return result
    return result._replace(id=target.id, delta=by, delta_bits=bits)


def _check_constant(env: Env, operation: int, imm: int, bits: int) -> None:
    if operation in (op.DIV, op.MOD) and imm == 0:
        raise env.refuse(EINVAL, "check_alu_op", "div by zero")
    if operation in _SHIFTS and not 0 <= imm < bits:
        raise env.refuse(EINVAL, "check_alu_op", f"invalid shift {imm}")


def _with_pointer(
    env: Env,
    register: int,
    operation: int,
    target: Scalar | Pointer,
    source: Scalar | Pointer,
    *,
    is_register: int | None,
    is_64: bool,
) -> Value:
    function = "adjust_reg_min_max_vals"
    if isinstance(target, Pointer) and isinstance(source, Pointer):
        if operation == op.SUB and env.rights.perfmon:
            return scalar.UNKNOWN
        message = f"R{register} pointer {OPERATORS[operation]} pointer prohibited"
        raise env.refuse(EACCES, function, message)
    if isinstance(target, Pointer) and is_register is not None:
        precision.mark_register(env, is_register)
    if isinstance(target, Pointer):
        assert isinstance(source, Scalar)  # noqa: S101 - the other case is above
        return move(env, register, operation, target, source, is_64=is_64)
    assert isinstance(source, Pointer)  # noqa: S101 - the other case is the caller's
    precision.mark_register(env, register)
    return move(env, register, operation, source, target, is_64=is_64, number_first=True)
