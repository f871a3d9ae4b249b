"""What the verifier checks of a program at its load.

For every program: whether each insn exists, where jumps go, which maps and kfuncs it may use. A
SYSCALL program, which the model runs, is then followed through all its paths
(`bpfseal.kernel.model.analysis`); of others the stack slots are checked that insns name directly.

Source: kernel/bpf/verifier.c, in the order of ``bpf_check``.

Example:
    >>> check(state, program)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from errno import EACCES, EBADF, EFAULT, EINVAL, EPROTO
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn, jump
from bpfseal.bpf.uapi import AttachType, ProgFlag, ProgType
from bpfseal.btf.kinds import Kind
from bpfseal.errors import KernelError
from bpfseal.kernel.model import fd_array
from bpfseal.kernel.model.analysis import analyse_program
from bpfseal.kernel.model.analysis.advice import advice
from bpfseal.kernel.model.analysis.control_flow import (
    check_functions,
    check_reachable,
    function_starts,
)
from bpfseal.kernel.model.analysis.kfunc_calls import is_missing_kfunc
from bpfseal.kernel.model.analysis.refused import Refused
from bpfseal.kernel.model.attach import check_target
from bpfseal.kernel.model.btf_info import check_btf_info, read_func_info
from bpfseal.kernel.model.btf_objects import BtfObject
from bpfseal.kernel.model.core_relo import apply_core_relos
from bpfseal.kernel.model.decode import decode, insn_starts
from bpfseal.kernel.model.helper_rules import check_helpers
from bpfseal.kernel.model.licence import is_gpl_compatible
from bpfseal.kernel.model.older_insns import trap_of
from bpfseal.kernel.model.processor import FRAME_POINTER, STACK_SIZE, Scope, Trap
from bpfseal.kernel.model.program import MapReference, ModelProgram
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.relocate import ksym_address
from bpfseal.kernel.model.state import KernelState

_MAP_SOURCES: Final = {
    op.PSEUDO_MAP_FD: "fd",
    op.PSEUDO_MAP_VALUE: "fd",
    op.PSEUDO_MAP_IDX: "index",
    op.PSEUDO_MAP_IDX_VALUE: "index",
}
_VALUE_SOURCES: Final = frozenset({op.PSEUDO_MAP_VALUE, op.PSEUDO_MAP_IDX_VALUE})
_OTHER_SOURCES: Final = frozenset({0, op.PSEUDO_FUNC})
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
_LOG_LEVELS: Final = 3
_LOG_ALL: Final = 2
"""BPF_LOG_LEVEL2 (include/linux/bpf_verifier.h)."""

_EXCEPTION_TAG: Final = b"exception_callback:"


def _refuse(number: int, function: str, log: str) -> KernelError:
    """Return a refusal of the verifier, whose message is what it writes in its log."""
    return refusal(number, f"kernel/bpf/verifier.c {function}", log, log=log)


def _advised(state: KernelState, program: ModelProgram, error: KernelError) -> KernelError:
    """Add what the kernel suggests to a refusal that came before any path was followed."""
    if state.profile.verifier.advises and program.attributes.log_level & _LOG_LEVELS:
        error.log = "\n".join([error.log, *advice(error.log)])
    return error


def check(state: KernelState, program: ModelProgram) -> None:
    """Check a program whose kfunc calls are resolved, and find the maps that it uses.

    Raises:
        KernelError: the program is refused.
    """
    relocates_first = state.profile.relocates_first
    read_func_info(program)
    if relocates_first:
        apply_core_relos(state, program)
    else:
        _add_kfuncs(state, program)
    try:
        functions = _check_functions(program)
    except KernelError as error:
        raise _advised(state, program, error) from None
    check_btf_info(program, functions)
    if not relocates_first and (program.func_info or program.line_info):
        apply_core_relos(state, program)
    malformed = _resolve_insns(state, program)
    if relocates_first:
        _add_kfuncs(state, program)
    if not is_followed(state, program):
        _check_reachable(program)
    _check_sleepable(state, program)
    program.attach_target = check_target(state, program)
    _check_kfuncs(state, program)
    if is_followed(state, program):
        log_after = _follow(state, program, malformed)
    else:
        _check_stack(program.insns)
        check_helpers(program)
        log_after = ""
    if not program.attributes.log_level & _LOG_ALL:
        state.verifier_log = ""  # of what went well only level 2 tells (do_check_common)
    state.verifier_log += log_after


def is_followed(state: KernelState, program: ModelProgram) -> bool:
    """Return whether all paths of a program are followed, so that the model may run it.

    One that a loader installs may call kfuncs of the kernel which the model knows nothing of but
    that they are there: of such a program the structure is checked.
    """
    if program.type is not ProgType.SYSCALL:
        return False
    return not program.attributes.is_kernel or all(
        state.btf.name_of(insn.imm, Kind.FUNC) in state.profile.kfuncs
        for insn in program.insns
        if insn.code == _CALL and insn.src == op.PSEUDO_KFUNC_CALL and not is_missing_kfunc(insn)
    )


def _follow(state: KernelState, program: ModelProgram, malformed: Mapping[int, Trap]) -> str:
    """Follow all paths of a program that the model will run, and return the log of that."""
    is_gpl = is_gpl_compatible(program.attributes.license)
    level = program.attributes.log_level
    findings = analyse_program(state, program, is_gpl=is_gpl, malformed=malformed, log_level=level)
    program.max_ctx_offset = findings.max_ctx_offset
    if malformed:  # no path leads to one of them (sanitize_dead_code)
        program.insns = tuple(
            jump(-1) if index in malformed else insn for index, insn in enumerate(program.insns)
        )
    return findings.log


def _add_kfuncs(state: KernelState, program: ModelProgram) -> None:
    """Check the licence of a program that calls kfuncs, and that they are functions.

    Source: ``add_kfunc_call``. What kernels have beyond the kfuncs of their profile is not known
    to the model: programs that a loader installs may call it, a loader may not.
    """
    for insn in program.insns:
        if insn.code != _CALL or insn.src != op.PSEUDO_KFUNC_CALL or is_missing_kfunc(insn):
            continue
        if not is_gpl_compatible(program.attributes.license):
            log = "cannot call kernel function from non-GPL compatible program"
            raise _refuse(EINVAL, "add_kfunc_call", log)
        if insn.off and program.is_signed and state.profile.verifies_in_verifier:
            reason = "signed program cannot bind any BTF"
            log = f"{reason}\nfailed to find BTF for kernel function"
            raise refusal(EACCES, "kernel/bpf/verifier.c fd_array_get_btf", reason, log=log)
        if insn.off:
            _check_module(state, program, insn.off)
        is_function = state.btf.name_of(insn.imm, Kind.FUNC) is not None
        if program.type is ProgType.SYSCALL and not is_function:
            log = f"kernel btf_id {insn.imm} is not a function"
            raise _refuse(EINVAL, "add_kfunc_call", log)


def _check_module(state: KernelState, program: ModelProgram, index: int) -> None:
    """Check the BTF of a module that a kfunc call names by index (``__find_kfunc_desc_btf``)."""
    number, log = EINVAL, "BTF fd for kfunc is not a module BTF"
    fds = program.attributes.fd_array
    if index < 0:
        log = "negative offset disallowed for kernel module function call"
    elif not fds:
        number, log = EPROTO, "kfunc offset > 0 without fd_array is invalid"
    elif index >= len(fds):
        number, log = EFAULT, ""
    elif not isinstance(found := state.fds.find(fds[index]), BtfObject):
        number = EBADF if found is None else EINVAL
        log = "invalid module BTF fd specified"
    log = "\n".join(filter(None, (log, "failed to find BTF for kernel function")))
    raise _refuse(number, "add_kfunc_call", log)


def _check_functions(program: ModelProgram) -> tuple[int, ...]:
    """Check that jumps stay in their function, and return where functions start."""
    try:
        starts = function_starts(program.insns)
        check_functions(program.insns, starts)
    except Refused as refused:
        raise _refuse(refused.errno, refused.function, refused.message) from refused
    return starts


def _check_reachable(program: ModelProgram) -> None:
    """Check that some jump leads to every insn (``check_cfg``).

    A function that handles exceptions is reached by no jump; a tag in the BTF says which it is.
    """
    if program.btf is not None and _EXCEPTION_TAG in program.btf.btf.strings:
        return
    try:
        check_reachable(program.insns)
    except Refused as refused:
        raise _refuse(refused.errno, refused.function, refused.message) from refused


def _resolve_insns(state: KernelState, program: ModelProgram) -> dict[int, Trap]:
    """Check that every insn exists, and find the maps that ld_imm64 insns name.

    Kernels do both in one pass, ``resolve_pseudo_ldimm64`` up to Linux 7.0 and
    ``check_and_resolve_insns`` from 7.1 on.

    Returns:
        What is wrong with insns of a program that will be followed and matters only where a path
        leads there.
    """
    insns = program.insns
    has_packet = program.type in _PACKET_TYPES
    followed = is_followed(state, program)
    starts = insn_starts(insns)
    malformed = {}
    for index in sorted(starts):
        insn = insns[index]
        if has_packet and insn.insn_class == op.LD and insn.code & 0xE0 in _PACKET_LOADS:
            continue
        try:
            older = trap_of(state.profile.verifier, insn)
            if older is not None:
                raise older
            if not state.profile.checks_all_fields and insn.insn_class == op.LDX:
                _check_mode(insn)
            decode(insns, index, starts)
        except Trap as trap:
            waits = trap.scope is Scope.PATH or (
                trap.scope is Scope.FIELDS and not state.profile.checks_all_fields
            )
            if not followed or not waits:
                raise _refuse(trap.errno, f"bpf_check, insn {index}", trap.message) from trap
            malformed[index] = trap
        if insn.code != op.LD_IMM64:
            continue
        if insn.src == op.PSEUDO_BTF_ID:
            _resolve_symbol(state, program, index)
        elif insn.src not in _OTHER_SOURCES:
            _resolve_map(state, program, index)
    return malformed


def _check_mode(insn: Insn) -> None:
    """Check the mode of a load, which kernels up to 7.0 do first (``resolve_pseudo_ldimm64``)."""
    if insn.code & 0xE0 not in (op.MEM, op.MEMSX):
        raise Trap("BPF_LDX uses reserved fields", scope=Scope.EVERYWHERE)


def _resolve_symbol(state: KernelState, program: ModelProgram, index: int) -> None:
    """Check a ld_imm64 of the address of a kernel symbol (``check_pseudo_btf_id``)."""
    insn, second = program.insns[index : index + 2]
    if second.imm and not isinstance(state.fds.find(second.imm), BtfObject):
        log = "invalid module BTF object FD specified."
        raise _refuse(EINVAL, "check_pseudo_btf_id", log)
    if program.type is ProgType.SYSCALL and not second.imm:
        ksym_address(state, insn.imm)


def _resolve_map(state: KernelState, program: ModelProgram, index: int) -> None:
    insn, second = program.insns[index : index + 2]
    by = _MAP_SOURCES.get(insn.src)
    into_value = insn.src in _VALUE_SOURCES
    offset = second.imm & 0xFFFFFFFF
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
    """Check that the program type may call each kfunc (``check_kfunc_call``).

    Of a program that is followed the kfuncs count that a path leads to.
    """
    if is_followed(state, program):
        return
    for index, insn in enumerate(program.insns):
        if insn.code != _CALL or insn.src != op.PSEUDO_KFUNC_CALL or is_missing_kfunc(insn):
            continue
        name = state.btf.name_of(insn.imm, Kind.FUNC)
        types = state.profile.kfuncs.get(name or "")
        if types is None:
            continue
        if program.type not in types:
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
