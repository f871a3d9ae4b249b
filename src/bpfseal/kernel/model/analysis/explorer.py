"""Follow every path through a program until each has ended or is like one that did.

Source: ``do_check``, ``is_state_visited`` and ``push_stack`` in kernel/bpf/verifier.c.

Example:
    >>> Explorer(env, flow).run()
"""

from __future__ import annotations

from collections.abc import Callable
from errno import E2BIG, EACCES, EFAULT, EINVAL
from typing import Final, NamedTuple

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn
from bpfseal.kernel.model.analysis import (
    alu_insns,
    callbacks,
    helper_calls,
    kfunc_calls,
    precision,
)
from bpfseal.kernel.model.analysis.control_flow import (
    CALL,
    EXIT,
    GOTO,
    GOTOL,
    MAY_GOTO,
    Flow,
    jump_target,
    uses,
)
from bpfseal.kernel.model.analysis.disassembly import insn_line
from bpfseal.kernel.model.analysis.env import Env
from bpfseal.kernel.model.analysis.jumps import split
from bpfseal.kernel.model.analysis.log_state import change_line, state_line
from bpfseal.kernel.model.analysis.memory_insns import load_imm64, load_insn, store_insn
from bpfseal.kernel.model.analysis.state import Frame, Node, State
from bpfseal.kernel.model.analysis.values import Pointer, PointerKind
from bpfseal.kernel.model.analysis.visited import Visited
from bpfseal.kernel.model.processor import Trap
from bpfseal.kernel.model.work import Work

MAX_PENDING: Final = 8192
"""Paths that may wait to be followed, BPF_COMPLEXITY_LIMIT_JMP_SEQ (kernel/bpf/verifier.c). More of
them are EFAULT on Linux 6.18.44 (measured)."""

_COMPARISONS: Final = frozenset(
    {op.JEQ, op.JNE, op.JGT, op.JGE, op.JLT, op.JLE, op.JSGT, op.JSGE, op.JSLT, op.JSLE, op.JSET}
)
_SILENT: Final = frozenset({EXIT, GOTO, GOTOL, MAY_GOTO})


class _Pending(NamedTuple):
    """A path that waits to be followed."""

    state: State
    target: int
    came_from: int
    log_position: int


class Explorer:
    """One verification.

    Attributes:
        visited: the states that are remembered, and the counts of what was looked at.
    """

    def __init__(self, env: Env, flow: Flow) -> None:
        self._env = env
        self._flow = flow
        self._pending: list[_Pending] = []
        self.visited = Visited(env, flow)

    def run(self) -> None:
        """Follow all paths.

        Raises:
            Refused: the program is not safe, or too complex to tell.
            CapabilityError: it is too complex for the model.
        """
        env = self._env
        env.state.registers[1] = Pointer(PointerKind.CTX)
        came_from = -1
        while True:
            self._follow(came_from)
            if not self._pending:
                return
            env.state, env.index, came_from, position = self._pending.pop()
            env.log.rewind(position)

    def _follow(self, came_from: int) -> None:
        """Follow the current path until it ends."""
        env, insns, joins = self._env, self._env.insns, self._flow.joins
        limit = env.profile.max_insns
        handlers, log = self._HANDLERS, env.log
        malformed, visited = env.malformed, self.visited
        show_state = True
        index = env.index
        while index >= 0:
            env.index = index
            insn = insns[index]
            visited.insns += 1
            if visited.insns + visited.comparing > env.patience:
                raise Work.exhausted()
            if visited.insns > limit:
                message = f"BPF program is too large. Processed {visited.insns} insn"
                raise env.refuse(E2BIG, "do_check", message)
            if index in joins and visited.knows(index):
                self._end_branch(env.state)
                if log.level:
                    safe = f"from {came_from} to {index}: safe" if show_state else f"{index}: safe"
                    log.write(safe)
                return
            if log.level:
                self._log_insn(index, came_from, show_state=show_state)
                before = dict(env.state.frame.stack)
            state = env.state
            state.history = Node(state.history, index)
            if index in malformed:
                self._refuse_malformed(insn, malformed[index])
            following = handlers[insn.code & 7](self, insn, index)
            if log.level and insn.code not in _SILENT and following >= 0:
                reads, writes = uses(insn)
                used = 1 if insn.code == CALL else reads | writes
                log.comment(change_line(env.state, used, before))
            show_state = following != index + 1 and insn.code != op.LD_IMM64
            came_from = index
            index = following
        self._end_branch(env.state)

    def _refuse_malformed(self, insn: Insn, trap: Trap) -> None:
        """Refuse an insn, but for a write to r10: its operands are looked at before that.

        So is what a jump compares (``check_cond_jmp_op``).
        """
        if insn.code & 7 in (op.JMP, op.JMP32) and insn.code & 0xF0 in _COMPARISONS:
            self._env.read_register(insn.dst)
        if trap.errno != EACCES:
            raise self._env.refuse(trap.errno, "do_check", trap.message)

    def _log_insn(self, index: int, came_from: int, *, show_state: bool) -> None:
        log, state = self._env.log, self._env.state
        if show_state:
            origin = f"from {came_from} to {index}" if came_from >= 0 else f"{index}"
            log.write(f"{origin}: {state_line(state)}")
        log.write(f"{index}: {insn_line(self._env.insns, index)}")

    # One class of insns each. Every handler returns the insn that comes next, -1 for none.

    def _alu(self, insn: Insn, index: int) -> int:
        alu_insns.step(self._env, insn)
        return index + 1

    def _ld(self, insn: Insn, index: int) -> int:
        load_imm64(self._env, insn, index)
        return index + 2

    def _ldx(self, insn: Insn, index: int) -> int:
        load_insn(self._env, insn)
        return index + 1

    def _store(self, insn: Insn, index: int) -> int:
        store_insn(self._env, insn)
        return index + 1

    def _jump(self, insn: Insn, index: int) -> int:
        code = insn.code
        self.visited.jumps += 1
        if code == CALL:
            return self._call(insn, index)
        if code == EXIT:
            return self._exit()
        target = jump_target(insn, index)
        assert target is not None  # noqa: S101 - every other insn of these classes jumps
        if code in (GOTO, GOTOL):
            return target
        if code == MAY_GOTO:
            again = self._env.state.copy()
            again.may_gotos += 1
            self.visited.widen(index, again, here=True)
            self._push(again, index + 1, index)
            return target
        jumping, goes_on = split(self._env, insn)
        if jumping is None:
            return index + 1
        if not goes_on:
            return target
        self._push(jumping, target, index)
        return index + 1

    def _call(self, insn: Insn, index: int) -> int:
        if insn.src == op.PSEUDO_CALL:
            return self._call_function(insn, index)
        if insn.src == op.PSEUDO_KFUNC_CALL:
            if kfunc_calls.is_missing_kfunc(insn):
                self._env.missing_kfuncs.add(index)
            else:
                kfunc_calls.call(self._env, insn.imm)
        else:
            waiting = helper_calls.call(self._env, insn.imm)
            if waiting is not None:
                self._push(waiting, waiting.frame.start, index)
        return index + 1

    def _call_function(self, insn: Insn, index: int) -> int:
        env = self._env
        frames = env.state.frames
        env.check_call_depth()
        target = index + 1 + insn.imm
        frame = Frame(len(frames), index, target)
        frame.registers[1:6] = frames[-1].registers[1:6]
        frames[-1].scrub()
        frames.append(frame)
        return target

    def _exit(self) -> int:
        env = self._env
        frames = env.state.frames
        if len(frames) == 1:
            self._check_given_back()
            env.check_no_leak(env.read_register(0), "do_check", "R0 leaks addr as return value")
            return -1
        result = frames[-1].registers[0]
        if isinstance(result, Pointer) and result.kind is PointerKind.STACK:
            message = "cannot return stack pointer to the caller"
            raise env.refuse(EINVAL, "prepare_func_exit", message)
        if frames[-1].is_callback:
            precision.mark_register(env, 0)
            callbacks.check_result(env, result)
            index = frames.pop().call_site
            self.visited.widen(index, env.state, here=False)
            return index
        left = frames.pop()
        frames[-1].registers[0] = result
        return left.call_site + 1

    def _check_given_back(self) -> None:
        """Check that the program has given back what it must (``check_resource_leak``)."""
        env = self._env
        left = [
            f"Unreleased reference id={reference} alloc_insn={index}"
            for reference, index in env.state.references
        ]
        if left:
            if env.facts.names_leaks_at_exit:
                left.append("BPF_EXIT instruction in main prog would lead to reference leak")
            raise env.refuse(EINVAL, "check_reference_leak", "\n".join(left))

    _HANDLERS: Final[dict[int, Callable[[Explorer, Insn, int], int]]] = {
        op.LD: _ld,
        op.LDX: _ldx,
        op.ST: _store,
        op.STX: _store,
        op.ALU: _alu,
        op.JMP: _jump,
        op.JMP32: _jump,
        op.ALU64: _alu,
    }

    # Paths that wait, and states that were seen.

    def _push(self, state: State, index: int, came_from: int) -> None:
        """Keep a path for later."""
        if state.parent is not None:
            state.parent.branches += 1
        self._pending.append(_Pending(state, index, came_from, self._env.log.position))
        if len(self._pending) > MAX_PENDING:
            message = f"The sequence of {len(self._pending)} jumps is too complex."
            raise self._env.refuse(EFAULT, "push_stack", message)

    def _end_branch(self, state: State) -> None:
        """Count the end of a path in the states that it has come through."""
        seen = state.parent
        while seen is not None:
            seen.branches -= 1
            if seen.branches:
                return
            entry, above = seen.loop_entry, seen.parent
            if (
                entry is not None
                and entry is not seen
                and above is not None
                and (above.loop_entry is None or above.loop_entry.depth > entry.depth)
            ):
                above.loop_entry = entry
            seen = above
