"""Which numbers a path depended on: only these must agree when another path is held against it.

A number matters where a jump was decided by it, where it moved a pointer, or where it was a size.
From there the insns of the path are gone through backward, and the registers and stack slots that
it came from are marked in the states that were remembered on the way.

Source: ``__mark_chain_precision``, ``backtrack_insn`` and ``propagate_precision`` in
kernel/bpf/verifier.c (kernel/bpf/backtrack.c of 7.2).

Example:
    >>> mark(env, register_key(0, 3))
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn
from bpfseal.kernel.model.analysis.env import Env
from bpfseal.kernel.model.analysis.helper_table import CALLBACKS
from bpfseal.kernel.model.analysis.scalar import Scalar
from bpfseal.kernel.model.analysis.state import Node, State
from bpfseal.kernel.model.analysis.values import Value

_FRAME_SHIFT: Final = 10
_SLOTS: Final = 1 << 6
"""Keys of stack slots begin here, those of registers at 0."""

_WHERE: Final = (1 << _FRAME_SHIFT) - 1
_CALL: Final = op.JMP | op.CALL
_EXIT: Final = op.JMP | op.EXIT


def register_key(frame: int, register: int) -> int:
    """Return the number that stands for a register of a frame."""
    return frame << _FRAME_SHIFT | register


def slot_key(frame: int, slot: int) -> int:
    """Return the number that stands for a stack slot of a frame."""
    return frame << _FRAME_SHIFT | _SLOTS + slot


def mark(env: Env, *keys: int) -> None:
    """Mark what the insn that is looked at depends on (``mark_chain_precision``)."""
    state = env.state
    if keys and state.parent is not None:
        assert state.history is not None  # noqa: S101 - the insn that is looked at
        _Backtrack(env, state, keys).run(state.history.before)


def mark_register(env: Env, register: int) -> None:
    """Mark a register of the current frame that the insn depends on, if it holds a number."""
    frame = len(env.state.frames) - 1
    if isinstance(env.state.frames[frame].registers[register], Scalar):
        mark(env, register_key(frame, register))


def propagate(env: Env, old: State) -> None:
    """Mark on the path what `old`, which covers it, depended on (``propagate_precision``)."""
    if old.precise and env.state.parent is not None:
        _Backtrack(env, env.state, old.precise).run(env.state.history)


def tied_keys(state: State, ids: set[int]) -> tuple[int, ...]:
    """Return what is tied to numbers with these ids (``collect_linked_regs``)."""
    return tuple(
        key for key, value in _values(state) if isinstance(value, Scalar) and value.id in ids
    )


def value_at(state: State, key: int) -> Value:
    """Return what a register or stack slot holds."""
    number, where = key >> _FRAME_SHIFT, key & _WHERE
    if number >= len(state.frames):
        return None
    frame = state.frames[number]
    if where < _SLOTS:
        return frame.registers[where]
    slot = frame.slot(where - _SLOTS)
    return slot.spilled if slot.is_spill else None


def _values(state: State) -> Iterable[tuple[int, Value]]:
    for number, frame in enumerate(state.frames):
        for register, value in enumerate(frame.registers):
            yield register_key(number, register), value
        for index, slot in frame.stack.items():
            if slot.is_spill:
                yield slot_key(number, index), slot.spilled


def _is_sought(node: Node, wanted: set[int]) -> bool:
    """Whether the way back from a step was gone already; otherwise note that it is."""
    before = node.sought
    if before is None:
        # A number costs less than a set, and most ways back look for one thing.
        node.sought = next(iter(wanted)) if len(wanted) == 1 else wanted.copy()
        return False
    known = {before} if isinstance(before, int) else before
    if wanted <= known:
        return True
    node.sought = known | wanted
    return False


class _Backtrack:
    """One way back: what is looked for, and in which frame the insns are."""

    def __init__(self, env: Env, state: State, keys: Iterable[int]) -> None:
        self._insns = env.insns
        self._state = state
        self._wanted = set(keys)
        self._frame = len(state.frames) - 1
        self._following = env.index

    def run(self, node: Node | None) -> None:
        wanted, state = self._wanted, self._state
        while state.parent is not None:
            while node is not None:
                if not self._step(node):
                    self._mark_all()
                    return
                if not wanted or _is_sought(node, wanted):
                    return
                self._following = node.index
                node = node.before
            state = state.parent
            for key in tuple(wanted):
                if key in state.precise or not isinstance(value_at(state, key), Scalar):
                    wanted.discard(key)
                else:
                    state.precise.add(key)
            if not wanted:
                return
            node = state.history
        self._mark_all()

    def _mark_all(self) -> None:
        """Give up: every number mattered (``mark_all_scalars_precise``)."""
        state = self._state.parent
        while state is not None:
            state.precise |= {k for k, value in _values(state) if isinstance(value, Scalar)}
            state = state.parent

    def _step(self, node: Node) -> bool:
        """Go back over an insn; return whether that can be done."""
        insn, note = self._insns[node.index], node.note
        if type(note) is tuple:
            self._tie(note)
        done = self._insn(insn, node)
        if type(note) is tuple:
            self._tie(note)
        return done

    def _tie(self, keys: tuple[int, ...]) -> None:
        if not self._wanted.isdisjoint(keys):
            self._wanted.update(keys)

    def _insn(self, insn: Insn, node: Node) -> bool:
        kind = insn.code & 7
        if kind in (op.ALU, op.ALU64):
            self._alu(insn)
        elif kind in (op.LDX, op.LD):
            self._load(insn.dst, node.note)
        elif kind in (op.ST, op.STX):
            return self._store(insn, node.note)
        elif insn.code == _CALL:
            self._call(insn, node.index)
        elif insn.code == _EXIT:
            self._exit()
        elif insn.code & op.X and insn.code & 0xF0 not in (op.JA, op.JCOND):
            pair = {self._key(insn.dst), self._key(insn.src)}
            if not self._wanted.isdisjoint(pair):
                self._wanted |= pair
        return True

    def _key(self, register: int) -> int:
        return register_key(self._frame, register)

    def _alu(self, insn: Insn) -> None:
        target = self._key(insn.dst)
        operation = insn.code & 0xF0
        if target not in self._wanted or operation in (op.NEG, op.END):
            return
        if operation == op.MOV:
            self._wanted.discard(target)
        if insn.code & op.X:
            self._wanted.add(self._key(insn.src))

    def _load(self, register: int, note: object) -> None:
        key = self._key(register)
        if key in self._wanted:
            self._wanted.discard(key)
            if type(note) is int:
                self._wanted.add(note)

    def _store(self, insn: Insn, note: object) -> bool:
        if insn.code & 0xE0 == op.ATOMIC and insn.insn_class == op.STX:
            if insn.imm == op.LOAD_ACQ:
                self._load(insn.dst, note)
                return True
            fetched = 0 if insn.imm == op.CMPXCHG else insn.src
            if (
                insn.imm & op.FETCH
                and insn.imm != op.STORE_REL
                and self._key(fetched) in self._wanted
            ):
                self._load(fetched, note)
                return True
        if self._key(insn.dst) in self._wanted:
            return False
        if type(note) is int and note in self._wanted:
            self._wanted.discard(note)
            if insn.insn_class == op.STX:
                self._wanted.add(self._key(insn.src))
        return True

    def _call(self, insn: Insn, index: int) -> None:
        following, wanted = self._following, self._wanted
        if following == index + 1 or not self._frame:
            wanted.discard(self._key(0))
            return
        if insn.src == op.PSEUDO_CALL:
            for register in range(1, 6):
                key = self._key(register)
                if key in wanted:
                    wanted.discard(key)
                    wanted.add(register_key(self._frame - 1, register))
            self._frame -= 1
        elif insn.src == 0 and insn.imm in CALLBACKS:
            wanted.difference_update([self._key(register) for register in range(1, 6)])
            self._frame -= 1

    def _exit(self) -> None:
        before = self._insns[self._following - 1] if self._following else None
        result = self._key(0)
        returns = before is not None and before.code == _CALL and before.src == op.PSEUDO_CALL
        is_wanted = result in self._wanted
        self._frame += 1
        if returns and is_wanted:
            self._wanted.discard(result)
            self._wanted.add(self._key(0))
