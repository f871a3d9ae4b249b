"""What the verifier checks of a program at its load.

For every program: whether each insn exists, where jumps go, which maps and kfuncs it may use. A
SYSCALL program, which the model runs, is then followed through all its paths
(`bpfseal.kernel.model.analysis`); of others the stack slots are checked that insns name directly.

Source: kernel/bpf/verifier.c, in the order of ``bpf_check``.

Example:
    >>> check(state, program)
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import EACCES, EINVAL
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn
from bpfseal.bpf.uapi import AttachType, ProgFlag, ProgType
from bpfseal.btf.kinds import Kind
from bpfseal.errors import KernelError
from bpfseal.kernel.model import fd_array
from bpfseal.kernel.model.analysis import analyse_program
from bpfseal.kernel.model.decode import decode, insn_starts
from bpfseal.kernel.model.processor import FRAME_POINTER, STACK_SIZE, Trap
from bpfseal.kernel.model.program import MapReference, ModelProgram
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.state import KernelState

GPL_COMPATIBLE: Final = frozenset(
    {
        "GPL",
        "GPL v2",
        "GPL and additional rights",
        "Dual BSD/GPL",
        "Dual MIT/GPL",
        "Dual MPL/GPL",
    }
)
"""Licences that may call kfuncs (include/linux/license.h)."""

_MAP_SOURCES: Final = {
    op.PSEUDO_MAP_FD: "fd",
    op.PSEUDO_MAP_VALUE: "fd",
    op.PSEUDO_MAP_IDX: "index",
    op.PSEUDO_MAP_IDX_VALUE: "index",
}
_VALUE_SOURCES: Final = frozenset({op.PSEUDO_MAP_VALUE, op.PSEUDO_MAP_IDX_VALUE})
_OTHER_SOURCES: Final = frozenset({0, op.PSEUDO_BTF_ID, op.PSEUDO_FUNC})
_PACKET_LOADS: Final = frozenset({op.ABS, op.IND})
_PACKET_TYPES: Final = frozenset({ProgType.SOCKET_FILTER, ProgType.SCHED_CLS, ProgType.SCHED_ACT})
"""Types that may load from the packet by the legacy insns (``may_access_skb``)."""

_SLEEPABLE_TYPES: Final = frozenset({ProgType.LSM, ProgType.KPROBE, ProgType.STRUCT_OPS})
_SLEEPABLE_TRACING: Final = frozenset(
    {
        AttachType.TRACE_FENTRY,
        AttachType.TRACE_FEXIT,
        AttachType.MODIFY_RETURN,
        AttachType.TRACE_ITER,
        AttachType.TRACE_FSESSION,
    }
)
_CALL: Final = op.JMP | op.CALL
_ENDS: Final = frozenset({op.JMP | op.EXIT, op.JMP | op.JA, op.JMP32 | op.JA})


def _refuse(number: int, function: str, log: str) -> KernelError:
    """Return a refusal of the verifier, whose message is what it writes in its log."""
    return refusal(number, f"kernel/bpf/verifier.c {function}", log, log=log)


def check(state: KernelState, program: ModelProgram) -> None:
    """Check a program whose kfunc calls are resolved, and find the maps that it uses.

    Raises:
        KernelError: the program is refused.
    """
    _check_licence(program)
    _check_func_info(program)
    _check_structure(program)
    _resolve_maps(state, program)
    _check_sleepable(state, program)
    _check_kfuncs(state, program)
    if program.type is ProgType.SYSCALL:
        _follow(state, program)
    else:
        _check_stack(program.insns)


def _follow(state: KernelState, program: ModelProgram) -> None:
    """Follow all paths of a program that the model will run."""
    is_gpl = program.attributes.license in GPL_COMPATIBLE
    level = program.attributes.log_level
    findings = analyse_program(state, program, is_gpl=is_gpl, log_level=level)
    program.max_ctx_offset = findings.max_ctx_offset
    state.verifier_log += findings.log


def _check_licence(program: ModelProgram) -> None:
    calls_kfunc = any(
        insn.code == _CALL and insn.src == op.PSEUDO_KFUNC_CALL for insn in program.insns
    )
    if calls_kfunc and program.attributes.license not in GPL_COMPATIBLE:
        log = "cannot call kernel function from non-GPL compatible program"
        raise _refuse(EINVAL, "add_kfunc_call", log)


def _check_func_info(program: ModelProgram) -> None:
    """Check the functions of a program against its BTF (``check_btf_func_early``)."""
    previous = -1
    for insn_offset, type_id in program.attributes.func_info:
        if program.btf is None or program.btf.function_name(type_id) is None:
            raise _refuse(EINVAL, "check_btf_func_early", f"invalid type id {type_id} in func info")
        if previous < 0 < insn_offset:
            log = f"nonzero insn_off {insn_offset} for the first func info record"
            raise _refuse(EINVAL, "check_btf_func_early", log)
        if insn_offset <= previous:
            log = f"same or smaller insn offset ({insn_offset}) than previous func info record"
            raise _refuse(EINVAL, "check_btf_func_early", log)
        previous = insn_offset


def _check_structure(program: ModelProgram) -> None:
    """Check that every insn exists and that jumps stay in the program (``check_subprogs``)."""
    insns = program.insns
    has_packet = program.type in _PACKET_TYPES
    starts = insn_starts(insns)
    for index in sorted(starts):
        insn = insns[index]
        if has_packet and insn.insn_class == op.LD and insn.code & 0xE0 in _PACKET_LOADS:
            continue
        try:
            decode(insns, index, starts)
        except Trap as trap:
            raise _refuse(trap.errno, f"bpf_check, insn {index}", trap.message) from trap
    if insns[max(starts)].code not in _ENDS:
        raise _refuse(EINVAL, "check_subprogs", "last insn is not an exit or jmp")


def _resolve_maps(state: KernelState, program: ModelProgram) -> None:
    """Find the map of each ld_imm64 that names one (``resolve_pseudo_ldimm64``)."""
    insns = program.insns
    for index, insn in enumerate(insns):
        if not insn.is_ld_imm64 or insn.src in _OTHER_SOURCES:
            continue
        by = _MAP_SOURCES.get(insn.src)
        into_value = insn.src in _VALUE_SOURCES
        offset = insns[index + 1].imm & 0xFFFFFFFF
        if by is None or (offset and not into_value):
            log = "unrecognized bpf_ld_imm64 insn"
            raise _refuse(EINVAL, f"resolve_pseudo_ldimm64, insn {index}", log)
        find = fd_array.map_by_fd if by == "fd" else fd_array.map_at
        named = find(state, program, insn.imm)
        program.references.append(MapReference(index, named, offset if into_value else None))
        if into_value:
            named.value_address(offset)


def _check_sleepable(state: KernelState, program: ModelProgram) -> None:
    """Check the flag BPF_F_SLEEPABLE (``check_attach_btf_id``)."""
    sleepable = bool(program.attributes.flags & ProgFlag.SLEEPABLE)
    if program.type is ProgType.SYSCALL:
        if not sleepable:
            raise _refuse(EINVAL, "check_attach_btf_id", "Syscall programs can only be sleepable")
        return
    can_sleep = program.type in _SLEEPABLE_TYPES or (
        program.type is ProgType.TRACING
        and program.attributes.expected_attach_type in _SLEEPABLE_TRACING
    )
    if sleepable and not can_sleep:
        log = state.profile.not_sleepable_log
        raise _refuse(EINVAL, "check_attach_btf_id", log)


def _check_kfuncs(state: KernelState, program: ModelProgram) -> None:
    """Check that each kfunc may be called (``check_kfunc_call``).

    Which kfuncs a kernel has beyond those of its profile is not known to the model: programs that
    a loader installs may call them, a loader may not.
    """
    for index, insn in enumerate(program.insns):
        if insn.code != _CALL or insn.src != op.PSEUDO_KFUNC_CALL:
            continue
        if insn.off and program.is_signed and state.profile.verifies_in_verifier:
            raise _refuse(EACCES, "fd_array_get_btf", "signed program cannot bind any BTF")
        name = state.btf.name_of(insn.imm, Kind.FUNC)
        types = state.profile.kfuncs.get(name or "")
        if types is None and program.type is not ProgType.SYSCALL:
            continue
        if name is None:
            log = f"kernel btf_id {insn.imm} is not a function"
            raise _refuse(EINVAL, "add_kfunc_call", log)
        if types is None or program.type not in types:
            log = f"calling kernel function {name} is not allowed"
            raise _refuse(EACCES, f"check_kfunc_call, insn {index}", log)


def _check_stack(insns: Sequence[Insn]) -> None:
    """Check the stack slots that insns name directly (``check_stack_access_within_bounds``)."""
    starts = insn_starts(insns)
    for index in sorted(starts):
        insn = insns[index]
        if insn.insn_class == op.LDX:
            base, access = insn.src, "read from"
        elif insn.insn_class in (op.ST, op.STX):
            base, access = insn.dst, "write to"
        else:
            continue
        size = op.ACCESS_BYTES[insn.code & 0x18]
        if base == FRAME_POINTER and not -STACK_SIZE <= insn.off <= -size:
            log = f"invalid {access} stack R10 off={insn.off} size={size}"
            raise _refuse(EACCES, "check_stack_access_within_bounds", log)
