"""Which insns of a program its verifier gets to, as far as constants decide.

CO-RE leaves constants where a program asks what the kernel has, and the verifier does not enter the
branch that they exclude. This follows numbers through registers, stack and read-only maps, and
nothing else: a branch on what it does not know is taken both ways.

Source: kernel/bpf/verifier.c ``do_check``, ``is_branch_taken``, ``bpf_map_direct_read``.

Example:
    >>> sorted(reachable(program))
    [0, 1, 4]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn
from bpfseal.bpf.uapi import MapFlag
from bpfseal.btf.kinds import Linkage
from bpfseal.kernel.model.alu import binary, condition, signed
from bpfseal.kernel.model.analysis.control_flow import (
    CALL,
    EXIT,
    GOTO,
    GOTOL,
    jump_target,
)
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.processor import FRAME_POINTER
from bpfseal.kernel.model.program import ModelProgram

MAX_STATES: Final = 32
"""States in which an insn is followed before all that is known is forgotten there."""

MAX_DEPTH: Final = 8
"""MAX_CALL_FRAMES (include/linux/bpf_verifier.h)."""

_U64: Final = (1 << 64) - 1


class _Address(NamedTuple):
    """A pointer with a known offset: into the stack of a frame, or into a read-only map."""

    base: int | ModelMap
    offset: int


_Value = int | _Address | None
"""What is known of a register or a stack slot; ``None`` for nothing."""

_Slot = tuple[int, int, int]
"""Frame, offset and size of a slot of the stack."""

_UNKNOWN: Final[tuple[_Value, ...]] = (None,) * 10


class _Frame(NamedTuple):
    """A function that waits for another: where it goes on, and what it keeps."""

    resume: int
    kept: tuple[_Value, ...]


@dataclass(frozen=True, slots=True)
class _State:
    """One way in which an insn is reached."""

    index: int
    registers: tuple[_Value, ...]
    stack: frozenset[tuple[_Slot, _Value]] = frozenset()
    frames: tuple[_Frame, ...] = ()

    def read(self, register: int) -> _Value:
        if register == FRAME_POINTER:
            return _Address(len(self.frames), 0)
        return self.registers[register] if register < FRAME_POINTER else None

    def write(self, register: int, value: _Value) -> _State:
        registers = list(self.registers)
        if register < FRAME_POINTER:
            registers[register] = value
        return replace(self, registers=tuple(registers))

    def at(self, index: int) -> _State:
        return replace(self, index=index)

    def load(self, slot: _Slot) -> _Value:
        return dict(self.stack).get(slot)

    def store(self, slot: _Slot, value: _Value) -> _State:
        frame, offset, size = slot
        kept = {
            known
            for known in self.stack
            if known[0][0] != frame
            or known[0][1] + known[0][2] <= offset
            or offset + size <= known[0][1]
        }
        added = {(slot, value)} if value is not None else set()
        return replace(self, stack=frozenset(kept | added))


def reachable(program: ModelProgram) -> frozenset[int]:
    """Return the indexes of the insns that are reached.

    Args:
        program: a program whose maps are resolved and whose insns all exist.
    """
    return _Walk(program).run()


class _Walk:
    """The exploration of one program."""

    def __init__(self, program: ModelProgram) -> None:
        self._insns = program.insns
        self._maps = {use.index: use for use in program.references}
        self._globals = _global_functions(program)
        self._seen: dict[int, set[_State]] = {}
        self._entries = {0, *self._globals}

    def run(self) -> frozenset[int]:
        started: set[int] = set()
        while self._entries - started:
            entry = min(self._entries - started)
            started.add(entry)
            pending = [_State(entry, _UNKNOWN)]
            while pending:
                state = pending.pop()
                if state.index < len(self._insns) and self._is_new(state):
                    pending += self._after(state)
        return frozenset(self._seen)

    def _is_new(self, state: _State) -> bool:
        seen = self._seen.setdefault(state.index, set())
        if state in seen:
            return False
        seen.add(state)
        return True

    def _after(self, state: _State) -> Iterator[_State]:
        """Yield the states that an insn leads to."""
        if len(self._seen[state.index]) > MAX_STATES:
            forgotten = _State(state.index, _UNKNOWN, frames=state.frames)
            if forgotten in self._seen[state.index] and state != forgotten:
                return
            self._seen[state.index].add(forgotten)
            state = forgotten
        insn = self._insns[state.index]
        following = state.at(state.index + 1)
        match insn.insn_class:
            case op.ALU | op.ALU64:
                yield _alu(following, insn)
            case op.LD:
                yield self._ld(state, insn)
            case op.LDX:
                yield _ldx(following, insn)
            case op.ST | op.STX:
                yield _store(following, insn)
            case _:
                yield from self._jump(state, insn)

    def _ld(self, state: _State, insn: Insn) -> _State:
        if not insn.is_ld_imm64:  # a load from the packet, which ends the program or gives r0
            return _clobbered(state.at(state.index + 1))
        following = state.at(state.index + 2)
        second = self._insns[state.index + 1]
        if insn.src == 0:
            value = insn.imm & 0xFFFFFFFF | (second.imm & 0xFFFFFFFF) << 32
            return following.write(insn.dst, value)
        if insn.src == op.PSEUDO_FUNC:
            self._entries.add(state.index + 1 + insn.imm)
        use = self._maps.get(state.index)
        if use is not None and use.value_offset is not None and _is_read_only(use.map):
            return following.write(insn.dst, _Address(use.map, use.value_offset))
        return following.write(insn.dst, None)

    def _jump(self, state: _State, insn: Insn) -> Iterator[_State]:
        following = state.at(state.index + 1)
        target = jump_target(insn, state.index)
        if insn.code == EXIT:
            yield from _return(state)
        elif insn.code == CALL:
            yield from self._call(state, insn)
        elif target is None or insn.code in (GOTO, GOTOL):
            yield state.at(target if target is not None else state.index + 1)
        else:
            taken = _is_taken(state, insn)
            if taken is not False:
                yield _refined(state.at(target), insn, op.JEQ)
            if taken is not True:
                yield _refined(following, insn, op.JNE)

    def _call(self, state: _State, insn: Insn) -> Iterator[_State]:
        following = state.at(state.index + 1)
        target = state.index + 1 + insn.imm
        is_inside = insn.src == op.PSEUDO_CALL and target not in self._globals
        if not is_inside or len(state.frames) + 1 >= MAX_DEPTH:
            if is_inside:
                self._entries.add(target)
            yield _clobbered(following)
            return
        frame = _Frame(state.index + 1, state.registers[6:10])
        arguments = (None, *state.registers[1:6], *(None,) * 4)
        yield replace(state, index=target, registers=arguments, frames=(*state.frames, frame))


def _global_functions(program: ModelProgram) -> frozenset[int]:
    """Return where global functions start, which are verified by themselves."""
    if program.btf is None:
        return frozenset()
    types = program.btf.btf
    return frozenset(
        start
        for start, func in program.func_info
        if start and types.type_by_id(func).vlen == Linkage.GLOBAL
    )


def _is_read_only(known: ModelMap) -> bool:
    """Whether the verifier reads a map's contents (``bpf_map_is_rdonly``)."""
    return bool(known.attributes.flags & MapFlag.RDONLY_PROG) and known.frozen


def _clobbered(state: _State) -> _State:
    """Return the state after a call, which leaves r6 to r9 and what no argument points to."""
    frames = {value.base for value in state.registers[1:6] if isinstance(value, _Address)}
    stack = frozenset(known for known in state.stack if known[0][0] not in frames)
    return replace(state, registers=(None,) * 6 + state.registers[6:], stack=stack)


def _return(state: _State) -> Iterator[_State]:
    if not state.frames:
        return
    *outer, frame = state.frames
    depth = len(state.frames)
    registers = (state.registers[0], *(None,) * 5, *frame.kept)
    stack = frozenset(known for known in state.stack if known[0][0] != depth)
    yield _State(frame.resume, registers, stack, tuple(outer))


def _operand(state: _State, insn: Insn) -> _Value:
    return state.read(insn.src) if insn.code & op.X else insn.imm & _U64


def _alu(state: _State, insn: Insn) -> _State:
    operation, wide = insn.code & 0xF0, insn.insn_class == op.ALU64
    left, right = state.read(insn.dst), _operand(state, insn)
    if operation == op.MOV and wide and not insn.off:
        return state.write(insn.dst, right)
    if isinstance(left, _Address) and isinstance(right, int) and wide:
        moves = {op.ADD: left.offset + signed(right, 64), op.SUB: left.offset - signed(right, 64)}
        moved = moves.get(operation)
        value = None if moved is None else _Address(left.base, moved)
        return state.write(insn.dst, value)
    bits = 64 if wide else 32
    mask = (1 << bits) - 1
    compute = binary(operation, insn.off, bits) if operation not in (op.NEG, op.END) else None
    if operation == op.MOV:
        left = 0
    if compute is None or not isinstance(left, int) or not isinstance(right, int):
        return state.write(insn.dst, None)
    return state.write(insn.dst, compute(left & mask, right & mask) & mask)


def _ldx(state: _State, insn: Insn) -> _State:
    address, size = state.read(insn.src), op.ACCESS_BYTES[insn.code & 0x18]
    value: _Value = None
    if isinstance(address, _Address):
        offset = address.offset + insn.off
        if isinstance(address.base, int):
            value = state.load((address.base, offset, size))
        else:
            value = _read_map(address.base, offset, size)
        if insn.code & 0xE0 == op.MEMSX and isinstance(value, int):
            value = signed(value, 8 * size) & _U64
    return state.write(insn.dst, value)


def _read_map(known: ModelMap, offset: int, size: int) -> int | None:
    value = known.lookup(bytes(4)) or b""
    if not 0 <= offset <= len(value) - size:
        return None
    return int.from_bytes(value[offset : offset + size], "little")


def _store(state: _State, insn: Insn) -> _State:
    address, size = state.read(insn.dst), op.ACCESS_BYTES[insn.code & 0x18]
    is_plain = insn.code & 0xE0 == op.MEM
    if isinstance(address, _Address) and isinstance(address.base, int):
        value = state.read(insn.src) if insn.insn_class == op.STX else insn.imm & _U64
        if isinstance(value, int):
            value &= (1 << 8 * size) - 1
        elif size != op.ACCESS_BYTES[op.DW]:
            value = None
        slot = (address.base, address.offset + insn.off, size)
        state = state.store(slot, value if is_plain else None)
    if not is_plain:  # an atomic operation, which may fetch the old value
        state = state.write(insn.src, None).write(0, None)
    return state


def _is_taken(state: _State, insn: Insn) -> bool | None:
    """Return whether a branch is taken, ``None`` if that is not known."""
    left, right = state.read(insn.dst), _operand(state, insn)
    bits = 64 if insn.insn_class == op.JMP else 32
    holds = condition(insn.code & 0xF0, bits)
    if holds is None or not isinstance(left, int) or not isinstance(right, int):
        return None
    mask = (1 << bits) - 1
    return bool(holds(left & mask, right & mask))


def _refined(state: _State, insn: Insn, equal: int) -> _State:
    """Return a state in which a 64-bit comparison has told what a register holds."""
    right = _operand(state, insn)
    tells = insn.insn_class == op.JMP and insn.code & 0xF0 == equal
    known = isinstance(state.read(insn.dst), (int, _Address))
    return (
        state if known or not tells or not isinstance(right, int) else state.write(insn.dst, right)
    )
