"""Arithmetic with pointers: which kinds may be moved, and how far.

Source: ``adjust_ptr_min_max_vals`` and ``check_reg_sane_offset`` in kernel/bpf/verifier.c.

Example:
    >>> move(env, 1, op.ADD, stack_pointer, scalar.const(8), is_64=True).off
    8
"""

from __future__ import annotations

from errno import EACCES, EINVAL
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.kernel.model.analysis import arithmetic, scalar
from bpfseal.kernel.model.analysis.env import Env
from bpfseal.kernel.model.analysis.scalar import S64_MIN, Scalar
from bpfseal.kernel.model.analysis.stack import MAX_VAR_OFF
from bpfseal.kernel.model.analysis.tnum import U64
from bpfseal.kernel.model.analysis.values import Pointer, PointerKind
from bpfseal.kernel.model.processor import STACK_SIZE

OPERATORS: Final = {
    op.ADD: "+=",
    op.SUB: "-=",
    op.MUL: "*=",
    op.DIV: "/=",
    op.OR: "|=",
    op.AND: "&=",
    op.LSH: "<<=",
    op.RSH: ">>=",
    op.MOD: "%=",
    op.XOR: "^=",
    op.MOV: "=",
    op.ARSH: "s>>=",
}
"""The operators as the kernel's disassembler writes them (kernel/bpf/disasm.c)."""

_FUNCTION: Final = "adjust_ptr_min_max_vals"
_BITWISE: Final = frozenset({op.AND, op.OR, op.XOR})


def move(
    env: Env,
    register: int,
    operation: int,
    pointer: Pointer,
    by: Scalar,
    *,
    is_64: bool,
    number_first: bool = False,
) -> Pointer | Scalar:
    """Return a pointer with a number added to it or subtracted from it.

    Args:
        env: the program.
        register: the destination, for messages.
        operation: the operation of the insn.
        pointer: the pointer.
        by: the number.
        is_64: the insn works on 64 bits.
        number_first: the number is the destination.

    Raises:
        Refused: EACCES for what the kind of pointer does not allow, EINVAL for too far.
    """
    if not is_64:
        if operation == op.SUB and env.rights.perfmon:
            return scalar.UNKNOWN
        message = f"R{register} 32-bit pointer arithmetic prohibited"
        raise env.refuse(EACCES, _FUNCTION, message)
    word = pointer.word
    if pointer.or_null:
        message = f"R{register} pointer arithmetic on {word} prohibited, null-check it first"
        raise env.refuse(EACCES, _FUNCTION, message)
    if pointer.kind is PointerKind.MAP:
        if operation == op.ADD and by == scalar.ZERO:
            return pointer
        message = f"R{register} pointer arithmetic on {word} prohibited"
        raise env.refuse(EACCES, _FUNCTION, message)
    _check_number(env, word, by)
    _check_pointer(env, pointer)
    if operation == op.ADD:
        moved = _add(pointer, by)
    elif operation == op.SUB:
        if number_first:
            message = f"R{register} tried to subtract pointer from scalar"
            raise env.refuse(EACCES, _FUNCTION, message)
        if pointer.kind is PointerKind.STACK:
            message = f"R{register} subtraction from stack pointer prohibited"
            raise env.refuse(EACCES, _FUNCTION, message)
        moved = _subtract(pointer, by)
    elif operation in _BITWISE:
        message = f"R{register} bitwise operator {OPERATORS[operation]} on pointer prohibited"
        raise env.refuse(EACCES, _FUNCTION, message)
    else:
        operator = OPERATORS[operation]
        message = f"R{register} pointer arithmetic with {operator} operator prohibited"
        raise env.refuse(EACCES, _FUNCTION, message)
    _check_pointer(env, moved)
    if moved.kind is PointerKind.STACK and not env.rights.perfmon:
        _check_speculation(env, register, moved)
    return moved


def _check_speculation(env: Env, register: int, pointer: Pointer) -> None:
    """Check that a stack pointer stays where speculation may take it.

    Source: ``check_stack_access_for_ptr_arithmetic``, for who must not bypass the defence against
    Spectre v1.
    """
    function, off = "check_stack_access_for_ptr_arithmetic", pointer.off
    if pointer.var is not None:
        bits = f"({pointer.var.value:#x}; {pointer.var.mask:#x})"
        message = (
            f"R{register} variable stack access prohibited for !root, var_off={bits} off={off}"
        )
        raise env.refuse(EACCES, function, message)
    if not -STACK_SIZE <= off < 0:
        message = (
            f"R{register} stack pointer arithmetic goes out of range, prohibited for !root;"
            f" off={off}"
        )
        raise env.refuse(EACCES, function, message)


def _add(pointer: Pointer, by: Scalar) -> Pointer:
    if by.is_const:
        return pointer._replace(off=pointer.off + by.signed_value)
    total = arithmetic.compute(op.ADD, pointer.variable, by, 64)
    return _with_variable(pointer, total)


def _subtract(pointer: Pointer, by: Scalar) -> Pointer:
    if by.is_const:
        return pointer._replace(off=pointer.off - by.signed_value)
    total = arithmetic.compute(op.SUB, pointer.variable, by, 64)
    return _with_variable(pointer, total)


def _with_variable(pointer: Pointer, variable: Scalar) -> Pointer:
    if variable.is_const:
        return pointer._replace(off=pointer.off + variable.signed_value, var=None)
    return pointer._replace(var=variable)


def _check_number(env: Env, word: str, by: Scalar) -> None:
    function = "check_reg_sane_offset"
    if by.is_const:
        if not -MAX_VAR_OFF < by.signed_value < MAX_VAR_OFF:
            message = f"math between {word} pointer and {by.signed_value} is not allowed"
            raise env.refuse(EINVAL, function, message)
        return
    _check_range(env, word, by)


def _check_range(env: Env, word: str, variable: Scalar) -> None:
    function = "check_reg_sane_offset"
    if variable.smin == S64_MIN:
        message = (
            f"math between {word} pointer and register with unbounded min value is not allowed"
        )
        raise env.refuse(EINVAL, function, message)
    if not -MAX_VAR_OFF < variable.smin < MAX_VAR_OFF:
        message = f"value {variable.smin} makes {word} pointer be out of bounds"
        raise env.refuse(EINVAL, function, message)


def _check_pointer(env: Env, pointer: Pointer) -> None:
    if pointer.off == 0 and pointer.var is None:
        return
    least = pointer.off
    if env.facts.folds_offsets and pointer.var is not None:
        least = total_offset(pointer).smin
    if not -MAX_VAR_OFF < least < MAX_VAR_OFF:
        message = f"{pointer.word} pointer offset {least} is not allowed"
        raise env.refuse(EINVAL, "check_reg_sane_offset", message)
    if pointer.var is not None and not env.facts.folds_offsets:
        _check_range(env, pointer.word, pointer.var)


def total_offset(pointer: Pointer) -> Scalar:
    """Return the whole offset of a pointer, as kernels keep it that have no other."""
    return arithmetic.compute(op.ADD, pointer.variable, scalar.const(pointer.off & U64), 64)
