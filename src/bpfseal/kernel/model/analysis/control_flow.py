"""The shape of a program: functions, jumps, insns that nothing reaches, and live registers.

Source: ``check_subprogs``, ``check_cfg`` and ``compute_live_registers`` in kernel/bpf/verifier.c.

Example:
    >>> flow = analyse(insns)
    >>> flow.joins
    frozenset({7})
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from errno import E2BIG, EINVAL
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn
from bpfseal.kernel.model.analysis.helper_calls import argument_count
from bpfseal.kernel.model.analysis.helper_table import CALLBACKS
from bpfseal.kernel.model.analysis.refused import Refused

CALL: Final = op.JMP | op.CALL
EXIT: Final = op.JMP | op.EXIT
GOTO: Final = op.JMP | op.JA
GOTOL: Final = op.JMP32 | op.JA
MAY_GOTO: Final = op.JMP | op.JCOND

MAX_FUNCTIONS: Final = 256
"""BPF_MAX_SUBPROGS (include/linux/bpf_verifier.h)."""

_LASTS: Final = frozenset({EXIT, GOTO, GOTOL})
_ARGUMENTS: Final = 0b111110
_CLOBBERED: Final = 0b111111


@dataclass(frozen=True, slots=True)
class Flow:
    """What is known of a program before any path is followed.

    Attributes:
        joins: the insns at which paths are compared: those that jumps and callbacks lead to, calls
            of functions and what is behind them, and jumps that depend on something.
        live: registers that may be read from each insn on, as bits.
        functions: the first insn of each function, in order.
    """

    joins: frozenset[int]
    live: tuple[int, ...]
    functions: tuple[int, ...]


def jump_target(insn: Insn, index: int) -> int | None:
    """Return where a jump leads, ``None`` for an insn that is no jump inside a function."""
    code = insn.code
    if code & 7 not in (op.JMP, op.JMP32) or code & 0xF0 in (op.CALL, op.EXIT):
        return None
    return index + 1 + (insn.imm if code == GOTOL else insn.off)


def calls_callback(insn: Insn) -> bool:
    """Whether an insn calls a helper that calls a function of the program."""
    return insn.code == CALL and insn.src == 0 and insn.imm in CALLBACKS


def analyse(insns: Sequence[Insn]) -> Flow:
    """Check the shape of a program whose insns all exist.

    Raises:
        Refused: EINVAL for a jump out of its function, an end that falls through, or an insn that
            nothing reaches.
    """
    functions = function_starts(insns)
    check_functions(insns, functions)
    joins = check_reachable(insns)
    return Flow(joins, _live_registers(insns), functions)


def function_starts(insns: Sequence[Insn]) -> tuple[int, ...]:
    """Return the first insn of each function: those that are called, or whose address is taken.

    Raises:
        Refused: EINVAL for a call out of the program, E2BIG for too many functions.
    """
    starts = {0}
    for index, insn in enumerate(insns):
        is_call = insn.code == CALL and insn.src == op.PSEUDO_CALL
        if is_call or (insn.is_ld_imm64 and insn.src == op.PSEUDO_FUNC):
            target = index + 1 + insn.imm
            if not 0 <= target < len(insns):
                message = "call to invalid destination"
                raise Refused(EINVAL, "add_subprog", message)
            starts.add(target)
            if len(starts) > MAX_FUNCTIONS:
                raise Refused(E2BIG, "add_subprog", "too many subprograms")
    return tuple(sorted(starts))


def check_functions(insns: Sequence[Insn], functions: Sequence[int]) -> None:
    """Check that jumps stay in their function, and that no function falls into the next.

    Raises:
        Refused: EINVAL.
    """
    ends = [*functions[1:], len(insns)]
    for start, end in zip(functions, ends, strict=True):
        index = start
        last = start
        while index < end:
            insn = insns[index]
            target = jump_target(insn, index)
            if target is not None and not start <= target < end:
                message = f"jump out of range from insn {index} to {target}"
                raise Refused(EINVAL, "check_subprogs", message)
            last = index
            index += 2 if insn.code == op.LD_IMM64 else 1
        if insns[last].code not in _LASTS:
            raise Refused(EINVAL, "check_subprogs", "last insn is not an exit or jmp")


def check_reachable(insns: Sequence[Insn]) -> frozenset[int]:
    """Check that every insn can be reached, and return those that several paths lead to.

    Raises:
        Refused: EINVAL.
    """
    reached = bytearray(len(insns))
    joins: set[int] = set()
    pending = [0]
    while pending:
        index = pending.pop()
        while index < len(insns) and not reached[index]:
            reached[index] = 1
            insn = insns[index]
            code = insn.code
            if code == EXIT:
                break
            if (code == CALL and insn.src == op.PSEUDO_CALL) or (
                code == op.LD_IMM64 and insn.src == op.PSEUDO_FUNC
            ):
                pending.append(index + 1 + insn.imm)
                joins.update((index, index + 1 + insn.imm))
                joins.add(index + (2 if code == op.LD_IMM64 else 1))
            if calls_callback(insn):  # a callback comes back to the call
                joins.add(index)
            target = jump_target(insn, index)
            if target is not None:
                joins.add(target)
                if code not in (GOTO, GOTOL):
                    joins.add(index)
                pending.append(target)
                if code in (GOTO, GOTOL):
                    break
            index += 2 if code == op.LD_IMM64 else 1
    index = 0
    while index < len(insns):
        if not reached[index]:
            raise Refused(EINVAL, "check_cfg", f"unreachable insn {index}")
        if insns[index].code == op.LD_IMM64:
            index += 1
            if reached[index]:
                message = f"jump into the middle of ldimm64 insn {index - 1}"
                raise Refused(EINVAL, "check_cfg", message)
        index += 1
    return frozenset(joins)


def _live_registers(insns: Sequence[Insn]) -> tuple[int, ...]:
    """Return, for each insn, the registers that may be read before they are written."""
    count = len(insns)
    live = [0] * (count + 1)
    effects = [uses(insn) for insn in insns]
    targets = [jump_target(insn, index) for index, insn in enumerate(insns)]
    falls = [insn.code not in (EXIT, GOTO, GOTOL) for insn in insns]
    changed = True
    while changed:
        changed = False
        for index in range(count - 1, -1, -1):
            after = live[index + 1] if falls[index] else 0
            target = targets[index]
            if target is not None:
                after |= live[target]
            reads, writes = effects[index]
            now = reads | after & ~writes
            if now != live[index]:
                live[index] = now
                changed |= target is None or target <= index or not falls[index]
    return tuple(live)


def uses(insn: Insn) -> tuple[int, int]:
    """Return the registers that an insn reads and those that it writes."""
    code, dst, src, _, imm = insn
    kind = code & 7
    target, source = 1 << dst, 1 << src
    if kind in (op.ALU, op.ALU64):
        operation = code & 0xF0
        if operation == op.MOV:
            return (source if code & op.X else 0), target
        if operation in (op.NEG, op.END) or not code & op.X:
            return target, target
        return target | source, target
    if kind == op.LDX:
        return source, target
    if kind == op.LD:
        return 0, target
    if kind == op.ST:
        return target, 0
    if kind == op.STX:
        return _stx_uses(code, imm, target, source)
    if code == CALL:
        if src == 0:
            return (1 << argument_count(imm) + 1) - 2, _CLOBBERED
        return _ARGUMENTS, _CLOBBERED
    if code == EXIT:
        return 1, 0
    if code in (GOTO, GOTOL, MAY_GOTO):
        return 0, 0
    return (target | source if code & op.X else target), 0


def _stx_uses(code: int, imm: int, target: int, source: int) -> tuple[int, int]:
    if code & 0xE0 != op.ATOMIC:
        return target | source, 0
    if imm == op.LOAD_ACQ:
        return source, target
    if imm == op.CMPXCHG:
        return target | source | 1, 1
    return target | source, source if imm & op.FETCH and imm != op.STORE_REL else 0
