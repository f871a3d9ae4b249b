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
from bpfseal.kernel.model.analysis import arithmetic, scalar
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
        known = operation == op.NEG and isinstance(value, Scalar)
        env.write_register(
            insn.dst,
            arithmetic.negate(value, 64 if is_64 else 32)
            if known and isinstance(value, Scalar)
            else scalar.UNKNOWN,
        )
    else:
        _binary(env, insn, operation, is_64=is_64)


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
    elif insn.off:
        moved = arithmetic.sign_extend(value, insn.off, 64 if is_64 else 32)
    else:
        if value.mask and not value.id:  # both registers hold the same number from now on
            value = value._replace(id=env.fresh_id())
            env.write_register(insn.src, value)
        fits = is_64 or value.umax <= U32
        moved = value if fits else arithmetic.truncate(value)
    env.write_register(dst, moved)


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
        result: Value = arithmetic.compute(operation, target, source, bits)
    else:
        result = _with_pointer(env, dst, operation, target, source, is_64=is_64)
    env.write_register(dst, result)


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
    is_64: bool,
) -> Value:
    function = "adjust_reg_min_max_vals"
    if isinstance(target, Pointer) and isinstance(source, Pointer):
        if operation == op.SUB and env.rights.perfmon:
            return scalar.UNKNOWN
        message = f"R{register} pointer {OPERATORS[operation]} pointer prohibited"
        raise env.refuse(EACCES, function, message)
    if isinstance(target, Pointer):
        assert isinstance(source, Scalar)  # noqa: S101 - the other case is above
        return move(env, register, operation, target, source, is_64=is_64)
    assert isinstance(source, Pointer)  # noqa: S101 - the other case is the caller's
    return move(env, register, operation, source, target, is_64=is_64, number_first=True)
