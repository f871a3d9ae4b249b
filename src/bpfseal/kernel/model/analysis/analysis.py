"""The analysis of one program from its first insn to the verdict.

Example:
    >>> findings = analyse_program(state, program, log_level=1)
    >>> findings.log.splitlines()[-1]
    'processed 7 insns (limit 1000000)'
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from errno import EACCES, EINVAL
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.uapi import ProgFlag
from bpfseal.btf.kinds import Linkage
from bpfseal.kernel.model.analysis.advice import advice
from bpfseal.kernel.model.analysis.control_flow import CALL, Flow, analyse, function_starts
from bpfseal.kernel.model.analysis.disassembly import insn_line
from bpfseal.kernel.model.analysis.env import Env
from bpfseal.kernel.model.analysis.explorer import Explorer
from bpfseal.kernel.model.analysis.log import UNENDED, Log, statistics
from bpfseal.kernel.model.analysis.map_struct import map_fields
from bpfseal.kernel.model.analysis.refused import Refused
from bpfseal.kernel.model.decode import insn_starts
from bpfseal.kernel.model.processor import FRAME_POINTER, STACK_SIZE, Trap
from bpfseal.kernel.model.program import ModelProgram
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.state import KernelState

NOTHING_MALFORMED: Final[Mapping[int, Trap]] = MappingProxyType({})

_ALIGNMENT: Final = ProgFlag.STRICT_ALIGNMENT | ProgFlag.ANY_ALIGNMENT

_WITH_INIT_PRIVATE: Final = frozenset({"6.18-unverified"})
"""Profiles of an update whose ``struct bpf_map`` has ``init_private`` (measured: 6.18.44)."""

_ALL_PATHS: Final = 2
"""BPF_LOG_LEVEL2 (include/linux/bpf_verifier.h)."""

_STACK_ROUNDING: Final = 16
"""Stack of a function in a chain of calls counts in whole steps (``round_up_stack_depth``)."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known of a program that passed.

    Attributes:
        log: the verifier's log, empty at level 0.
        processed: how many insns were looked at.
        max_ctx_offset: the end of the part of the context that the program uses: a run needs a
            context of so many bytes.
    """

    log: str
    processed: int
    max_ctx_offset: int


def analyse_program(
    state: KernelState,
    program: ModelProgram,
    *,
    is_gpl: bool,
    malformed: Mapping[int, Trap] = NOTHING_MALFORMED,
    log_level: int = 0,
) -> Findings:
    """Follow all paths of a program whose maps and kfuncs are resolved.

    Args:
        state: the kernel.
        program: the program.
        is_gpl: its licence is compatible with the GPL.
        malformed: what is wrong with insns, by index, and matters only where a path leads there.
        log_level: as in ``union bpf_attr``: 0, 1 for the failing path, 2 for all.

    Raises:
        KernelError: the program is refused. Its log ends with the reason.
        CapabilityError: it is too complex for the model.
    """
    log = Log(log_level)
    env = Env(
        insns=program.insns,
        references={reference.index: reference for reference in program.references},
        profile=state.profile,
        btf=state.btf,
        is_gpl=is_gpl,
        rights=state.rights,
        functions=_functions(program),
        malformed=malformed,
        log=log,
        strict_alignment=program.attributes.flags & _ALIGNMENT == ProgFlag.STRICT_ALIGNMENT,
        map_fields=lambda *, is_array: map_fields(
            has_hash=state.profile.has_exclusive_maps,
            has_excl=state.has_excl,
            has_wait_list=state.profile.has_wait_list,
            has_init_private=state.profile.name in _WITH_INIT_PRIVATE,
            is_array=is_array,
        ),
        patience=max(state.work.left, 0),
    )
    processed = 0
    explorer: Explorer | None = None
    flow: Flow | None = None
    try:
        _log_functions(env)
        flow = analyse(program.insns)
        if log.level & _ALL_PATHS and env.facts.shows_live_registers:
            _log_live_registers(env, flow)
        explorer = Explorer(env, flow)
        explorer.run()
        _check_stack_depth(env, flow)
        if env.missing_kfuncs:
            message = "invalid kernel function call not eliminated in verifier pass"
            raise env.refuse(EINVAL, "fixup_kfunc_call", message)
    except Refused as refused:
        log.write(refused.message)
        if refused.detail:
            log.write(refused.detail)
        if log.level and env.facts.advises:
            for line in advice(
                refused.message.splitlines()[-1], is_scrubbed=_is_scrubbed(env, refused)
            ):
                log.write(line)
        _log_statistics(env, flow, explorer)
        state.verifier_log_peak = log.peak
        reason = refused.message.splitlines()[-1]
        source = f"kernel/bpf/verifier.c {refused.function}, insn {env.index}"
        raise refusal(refused.errno, source, reason, log=log.text.rstrip("\n")) from refused
    finally:
        if explorer:
            state.work.use(explorer.visited.insns + explorer.visited.comparing)
    processed = explorer.visited.insns
    if log.is_wanted and not log.level & _ALL_PATHS:
        log.rewind(0)
    _log_statistics(env, flow, explorer)
    state.verifier_log_peak = log.peak
    return Findings(log.text, processed, env.max_ctx_offset)


def _is_scrubbed(env: Env, refused: Refused) -> bool:
    """Whether a register that cannot be read had a value until a call."""
    found = re.fullmatch(r"R(\d+) !read_ok", refused.message)
    return found is not None and bool(env.state.frame.scrubbed >> int(found[1]) & 1)


def _log_functions(env: Env) -> None:
    """Write where functions begin (``add_subprog_and_kfunc``)."""
    if env.log.level & _ALL_PATHS:
        for number, start in enumerate(function_starts(env.insns)):
            env.log.write(f"func#{number} @{start}")


def _log_live_registers(env: Env, flow: Flow) -> None:
    """Write which registers each insn may find in use (``compute_live_registers``)."""
    env.log.write("Live regs before insn:")
    for index in sorted(insn_starts(env.insns)):
        live = "".join(str(n) if flow.live[index] >> n & 1 else "." for n in range(FRAME_POINTER))
        env.log.write(f"    {index:3d}: {live} {insn_line(env.insns, index)}")


def _functions(program: ModelProgram) -> dict[int, bool]:
    """Return whether each function of a program with func_info is static, by its first insn."""
    if program.btf is None:
        return {}
    btf = program.btf.btf
    return {
        start: btf.type_by_id(type_id).vlen == Linkage.STATIC
        for start, type_id in program.func_info
    }


def _log_statistics(env: Env, flow: Flow | None, explorer: Explorer | None) -> None:
    """Write the end of the log: how long it took, which is no time here, and what was seen."""
    log = env.log
    if log.has_statistics:
        log.write("verification time 10 usec")
        starts = flow.functions if flow is not None else (0,)
        depths = "+".join(str(env.stack_depths.get(start, 0)) for start in starts)
        log.write(f"stack depth {depths}")
    if log.is_wanted:
        log.write(_summary(env, explorer), joins=log.ends_with(UNENDED))


def _summary(env: Env, explorer: Explorer | None) -> str:
    limit = env.profile.max_insns
    if explorer is None:
        return statistics(0, limit)
    seen = explorer.visited
    return statistics(seen.insns, limit, seen.most_at_once, seen.count)


def _check_stack_depth(env: Env, flow: Flow) -> None:
    """Check that the stacks of a chain of calls fit together (``check_max_stack_depth``).

    Raises:
        Refused: EACCES.
    """
    calls = _calls(env, flow)

    def check(function: int, used: int, depth: int) -> None:
        own = max(env.stack_depths.get(function, 0), 1)
        used += -(-own // _STACK_ROUNDING) * _STACK_ROUNDING
        if used > STACK_SIZE:
            message = f"combined stack size of {depth} calls is {used}. Too large"
            raise env.refuse(EACCES, "check_max_stack_depth", message)
        for called in calls.get(function, ()):
            check(called, used, depth + 1)

    check(0, 0, 1)


def _calls(env: Env, flow: Flow) -> Mapping[int, set[int]]:
    """Return the functions that each function calls, or has a helper call."""
    calls: dict[int, set[int]] = {}
    functions = [*flow.functions, len(env.insns)]
    for start, end in pairwise(functions):
        for index in range(start, end):
            insn = env.insns[index]
            if (insn.code == CALL and insn.src == op.PSEUDO_CALL) or (
                insn.code == op.LD_IMM64 and insn.src == op.PSEUDO_FUNC
            ):
                calls.setdefault(start, set()).add(index + 1 + insn.imm)
    return calls
