"""Read a loader program back: which bpf() commands it issues, and with which attributes.

A loader is straight-line code with small detours, so following the values of registers from top to
bottom says what each call gets. It shares nothing with the generator but the opcodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from bpfseal.bpf import attr
from bpfseal.bpf import opcodes as op
from bpfseal.bpf.attr import AttrLayout
from bpfseal.bpf.insn import Insn, decode_insns
from bpfseal.bpf.uapi import Cmd, Helper
from bpfseal.loader.model import Loader

LAYOUTS: dict[int, AttrLayout] = {
    Cmd.BTF_LOAD: attr.BTF_LOAD,
    Cmd.MAP_CREATE: attr.MAP_CREATE,
    Cmd.MAP_UPDATE_ELEM: attr.MAP_ELEM,
    Cmd.MAP_FREEZE: attr.MAP_FREEZE,
    Cmd.PROG_LOAD: attr.PROG_LOAD,
}


class Value(NamedTuple):
    """What a register holds.

    Attributes:
        kind: ``number``; ``address`` in the blob; ``stack``, ``ctx`` or ``blob`` for a value that
            was read from there; ``frame`` and ``context`` for the pointers; ``result`` of a helper.
        number: the number, offset or helper id.
    """

    kind: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a helper with what is known of r1 to r5."""

    index: int
    helper: int
    arguments: dict[int, Value]
    writes: dict[int, Value]


@dataclass(frozen=True, slots=True)
class Command:
    """A bpf() command.

    Attributes:
        command: its number.
        raw: the attribute as it is in the metadata.
        fields: the attribute's numbers.
        written: the fields that the loader writes before the call, and what it writes.
    """

    command: Cmd
    raw: bytes
    fields: dict[str, int]
    written: dict[str, Value]

    def name(self, of: str) -> str:
        return LAYOUTS[self.command].name_field(self.raw, of)


@dataclass(slots=True)
class _Reader:
    registers: dict[int, Value] = field(default_factory=dict)
    writes: dict[int, Value] = field(default_factory=dict)

    def step(self, insn: Insn, following: Insn | None) -> None:
        """Follow one instruction that is no call."""
        source = self.registers.get(insn.src)
        if insn.code == op.LD_IMM64 and following:
            is_blob = insn.src == op.PSEUDO_MAP_IDX_VALUE
            self.registers[insn.dst] = (
                Value("address", following.imm) if is_blob else Value("number", insn.imm)
            )
        elif insn.code == op.ALU64 | op.MOV | op.K:
            self.registers[insn.dst] = Value("number", insn.imm)
        elif insn.code == op.ALU64 | op.MOV | op.X and source:
            self.registers[insn.dst] = source
        elif insn.insn_class == op.LDX and source:
            kind = {"frame": "stack", "context": "ctx", "address": "blob"}.get(source.kind, "?")
            self.registers[insn.dst] = Value(kind, source.number + insn.off)
        elif insn.insn_class == op.STX:
            target = self.registers.get(insn.dst)
            if target and target.kind == "address" and source:
                self.writes[target.number + insn.off] = source


def helper_calls(loader: Loader) -> list[Call]:
    """Return every call of a helper in the order of the instructions."""
    insns = decode_insns(loader.insns, loader.byteorder)
    reader = _Reader({1: Value("context"), 10: Value("frame")})
    calls = []
    for index, insn in enumerate(insns):
        if insn.code == op.JMP | op.CALL and insn.src == 0:
            known = {r: value for r, value in reader.registers.items() if 1 <= r <= 5}
            calls.append(Call(index, insn.imm, known, dict(reader.writes)))
            reader.registers[0] = Value("result", insn.imm)
        else:
            reader.step(insn, insns[index + 1] if index + 1 < len(insns) else None)
    return calls


def commands(loader: Loader) -> list[Command]:
    """Return the bpf() commands of a loader in order."""
    found = []
    for call in helper_calls(loader):
        if call.helper != Helper.SYS_BPF:
            continue
        command = Cmd(call.arguments[1].number)
        at, size = call.arguments[2].number, call.arguments[3].number
        assert [call.arguments[r].kind for r in (1, 2, 3)] == ["number", "address", "number"]
        raw = loader.metadata[at : at + size]
        layout = LAYOUTS[command]
        written = {
            name: call.writes[at + part.offset]
            for name, part in layout.fields.items()
            if at + part.offset in call.writes and part.end <= size
        }
        fields = {
            name: int.from_bytes(raw[part.offset : part.end], loader.byteorder)
            for name, part in layout.fields.items()
            if part.end <= size and not part.is_bytes
        }
        found.append(Command(command, raw, fields, written))
    return found


def only(loader: Loader, command: Cmd) -> Command:
    """Return the one bpf() command of a kind."""
    (found,) = [entry for entry in commands(loader) if entry.command is command]
    return found


def blob(loader: Loader, command: Command, name: str, size: int) -> bytes:
    """Return the bytes of the metadata that a pointer of an attribute leads to."""
    value = command.written[name]
    assert value.kind == "address"
    return loader.metadata[value.number : value.number + size]


def program_insns(loader: Loader, number: int = 0) -> list[Insn]:
    """Return the instructions of a program that the loader loads, before it relocates them."""
    load = [entry for entry in commands(loader) if entry.command is Cmd.PROG_LOAD][number]
    raw = blob(loader, load, "insns", 8 * load.fields["insn_cnt"])
    return decode_insns(raw, loader.byteorder)
