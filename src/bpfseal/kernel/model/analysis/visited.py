"""States that were seen at an insn: which paths need no further look, and which loop for ever.

Source: ``is_state_visited`` in kernel/bpf/verifier.c (kernel/bpf/states.c of 7.2).

Example:
    >>> visited.knows(index)
    False
"""

from __future__ import annotations

from errno import EINVAL
from typing import Final

from bpfseal.kernel.model.analysis import precision, pruning, scalar
from bpfseal.kernel.model.analysis.control_flow import MAY_GOTO, Flow, calls_callback
from bpfseal.kernel.model.analysis.env import Env
from bpfseal.kernel.model.analysis.log_state import whole_state
from bpfseal.kernel.model.analysis.refused import Refused
from bpfseal.kernel.model.analysis.scalar import Scalar, includes
from bpfseal.kernel.model.analysis.state import State

_PATIENCE: Final = 3
_PATIENCE_AT_LOOPS: Final = 64
"""A state that was compared in vain so often for each time that it helped is forgotten."""

_MIN_INSNS: Final = 8
_MIN_JUMPS: Final = 2
_MIN_LOOP_INSNS: Final = 100
_MIN_LOOP_JUMPS: Final = 20
"""A state is remembered after so many insns and jumps, in a loop after so many insns or jumps."""


_SLOTS: Final = 8
"""Slots of the stack that are compared in the time of an insn, roughly."""


class Visited:
    """The states that are remembered.

    Attributes:
        insns: how many insns were looked at, counting repeats.
        jumps: how many jumps were, calls and exits too.
        count: how many states were remembered.
        most_at_once: the most that an insn had when a path came to it.
        comparing: the model's own work at comparing states, in units of
            `bpfseal.kernel.model.work`: as much as that many insns.
    """

    def __init__(self, env: Env, flow: Flow) -> None:
        self._env = env
        self._flow = flow
        self._states: dict[int, list[State]] = {}
        self._hints: dict[int, int] = {}
        self.insns = 0
        self.jumps = 0
        self.count = 0
        self.most_at_once = 0
        self.comparing = 0
        self._insns_before = 0
        self._jumps_before = 0

    def knows(self, index: int) -> bool:
        """Whether the path need not be followed from here; otherwise remember its state.

        Raises:
            Refused: EINVAL, the path came back to where it was, in the same state.
        """
        env = self._env
        seen = self._states.get(index)
        insn = env.insns[index]
        is_may_goto, comes_back = insn.code == MAY_GOTO, calls_callback(insn)
        is_forced = is_may_goto or comes_back
        is_due = is_forced or self._is_due(in_loop=False)
        if not seen:
            if is_due:
                self._remember(index)
            return False
        state, live = env.state, self._live(env.state, index)
        weight = 1 + sum(len(frame.stack) for frame in state.frames) // _SLOTS
        hint = self._hints.get(index, -1)
        now = state.registers[hint] if hint >= 0 else None
        is_due_in_loop = is_forced or (is_due and self._is_due(in_loop=True))
        for old in reversed(seen):
            if old.branches:
                is_due = is_due_in_loop
                if now is not None:  # most rounds of a loop differ in the same register
                    was = old.frames[-1].registers[hint]
                    if type(was) is type(now) is Scalar and not was[2] <= now[2] <= was[3]:
                        old.misses += is_due
                        continue
                self.comparing += weight
                if (
                    comes_back or (is_may_goto and old.may_gotos != state.may_gotos)
                ) and pruning.covers(old, state, live, exact=True):
                    self._hit(old, loops_to=old)
                    return True
                if not comes_back:
                    self._check_loop(old, live, index)
                hint = self._hints[index] = _differing(old, state, live[-1])
                now = state.registers[hint] if hint >= 0 else None
            else:
                # What a loop depended on is known in full only when all its paths have ended, and
                # not in the states within it: there every number counts.
                entry = old.loop_entry
                self.comparing += weight
                if pruning.covers(old, state, live, exact=entry is not None):
                    self._hit(old, loops_to=entry)
                    return True
            old.misses += is_due
        self.most_at_once = max(self.most_at_once, len(seen))
        if is_due:
            patience = _PATIENCE_AT_LOOPS if is_forced else _PATIENCE
            seen[:] = [
                old
                for old in seen
                if old.misses <= (patience if old.branches else _PATIENCE) * (old.hits + 1)
            ]
            self._remember(index)
        return False

    def widen(self, index: int, target: State, *, here: bool) -> None:
        """Forget numbers that a loop changes: its next round is then covered by this one.

        Args:
            index: the insn that the loop comes back to.
            target: the state of the next round.
            here: the path was at the insn already, when its state may have been remembered.

        Source: ``find_prev_entry`` and ``widen_imprecise_scalars``.
        """
        sites = [frame.call_site for frame in target.frames]
        old = target.parent
        if here and old is not None and old.index == index:
            old = old.parent
        while old is not None:
            if old.index == index and [frame.call_site for frame in old.frames] == sites:
                _widen(old, target)
                return
            old = old.parent

    def _live(self, state: State, index: int) -> list[int]:
        """Return the registers that each frame may still read, as bits."""
        if len(state.frames) == 1:
            return [self._flow.live[index]]
        live = [
            self._flow.live[frame.call_site + (not frame.is_callback)] for frame in state.frames[1:]
        ]
        live.append(self._flow.live[index])
        return live

    def _hit(self, old: State, *, loops_to: State | None) -> None:
        """End a path that is covered by `old`, with what that depended on."""
        old.hits += 1
        precision.propagate(self._env, old)
        if loops_to is not None and loops_to.branches:
            seen = self._env.state.parent
            while seen is not None and seen is not loops_to:
                if seen.loop_entry is None or seen.loop_entry.depth > loops_to.depth:
                    seen.loop_entry = loops_to
                seen = seen.parent

    def _is_due(self, *, in_loop: bool) -> bool:
        """Whether enough was followed since a state was remembered: states cost room and time."""
        insns = self.insns - self._insns_before
        jumps = self.jumps - self._jumps_before
        if in_loop:
            return insns >= _MIN_LOOP_INSNS or jumps >= _MIN_LOOP_JUMPS
        return insns >= _MIN_INSNS and jumps >= _MIN_JUMPS

    def _remember(self, index: int) -> None:
        state = self._env.state
        remembered = state.copy()
        remembered.index = index
        remembered.depth = 0 if state.parent is None else state.parent.depth + 1
        state.parent = remembered
        state.history = None
        self.count += 1
        self._states.setdefault(index, []).append(remembered)
        self._insns_before, self._jumps_before = self.insns, self.jumps

    def _check_loop(self, old: State, live: list[int], index: int) -> None:
        env, state = self._env, self._env.state
        clears = env.facts.clears_dead
        if not pruning.same(old, state, live if clears else None):
            return
        message = f"infinite loop detected at insn {index}"
        shown = live[-1] if clears else -1
        refused: Refused = env.refuse(EINVAL, "is_state_visited", message)
        refused.detail = "\n".join(
            (
                f"cur state: {whole_state(env, state, shown)}",
                f"old state: {whole_state(env, old, shown, until=state)}",
            )
        )
        raise refused


def _differing(old: State, new: State, live: int) -> int:
    """Return a register that a loop changes, -1 for none: the next states differ there too."""
    pairs = zip(old.registers, new.registers, strict=True)
    for register, (was, now) in enumerate(pairs):
        if live >> register & 1 and _differs(was, now):
            return register
    return -1


def _differs(was: object, now: object) -> bool:
    """Whether one number is not covered by another."""
    return type(was) is Scalar and type(now) is Scalar and not includes(was, now)


def _widen(old: State, new: State) -> None:
    """Forget the numbers that have changed and on which nothing depended."""
    for number, (before, frame) in enumerate(zip(old.frames, new.frames, strict=True)):
        for register, (was, now) in enumerate(zip(before.registers, frame.registers, strict=True)):
            key = precision.register_key(number, register)
            if _is_forgotten(was, now) and key not in old.precise:
                frame.registers[register] = scalar.UNKNOWN
        for index, slot in list(frame.stack.items()):
            was_slot = before.slot(index)
            key = precision.slot_key(number, index)
            if not slot.is_spill or not was_slot.is_spill or key in old.precise:
                continue
            if _is_forgotten(was_slot.spilled, slot.spilled):
                frame.set_slot(index, slot._replace(spilled=scalar.UNKNOWN))


def _is_forgotten(was: object, now: object) -> bool:
    return isinstance(was, Scalar) and isinstance(now, Scalar) and was != now
