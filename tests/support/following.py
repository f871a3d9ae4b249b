"""Follow a loader program: which bpf() commands it issues, and with which attributes.

A loader is straight-line code with small detours, so following the values of registers from top to
bottom says what each call gets. This shares nothing with the generator but the opcodes, and works
on the loaders of any generator with the same structure. It tells what a loader that was made so
does; it proves nothing about one that was made to deceive.

Example:
    >>> reading = read_loader(loader.insns, loader.metadata, loader.byteorder)  # doctest: +SKIP
    >>> [command.name("map_name") for command in reading.maps()]  # doctest: +SKIP
    ['started', 'events', 'exectrac.rodata']
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bpfseal.bpf import attr
from bpfseal.bpf import opcodes as op
from bpfseal.bpf.attr import AttrLayout
from bpfseal.bpf.insn import ByteOrder, Insn, decode_insns
from bpfseal.bpf.uapi import Cmd, Helper
from bpfseal.errors import InputError
from bpfseal.loader.model import CTX_HEADER_SIZE, MAP_DESC_SIZE, PROG_DESC_SIZE

LAYOUTS: Final[Mapping[int, AttrLayout]] = {
    Cmd.BTF_LOAD: attr.BTF_LOAD,
    Cmd.MAP_CREATE: attr.MAP_CREATE,
    Cmd.MAP_UPDATE_ELEM: attr.MAP_ELEM,
    Cmd.MAP_FREEZE: attr.MAP_FREEZE,
    Cmd.PROG_LOAD: attr.PROG_LOAD,
}
"""The commands that a loader issues."""

_POINTERS: Final = {"frame": "stack", "context": "ctx", "address": "blob"}
"""What a read through a pointer yields."""

_CALL: Final = op.JMP | op.CALL
_ARGUMENTS: Final = range(1, 6)


class Value(NamedTuple):
    """What a register holds, or a place that a value was read from or stored to.

    Attributes:
        kind: ``number``; ``address`` in the metadata; ``stack``, ``ctx`` or ``blob`` for a value
            that lies there; ``frame`` and ``context`` for the pointers; ``result`` of a call.
        number: the number, the offset, or the slot of the call.
    """

    kind: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a helper.

    Attributes:
        index: the slot of the instruction.
        helper: the id of the helper.
        arguments: what is known of r1 to r5, by register.
    """

    index: int
    helper: int
    arguments: Mapping[int, Value]


@dataclass(frozen=True, slots=True)
class Command:
    """A bpf() command.

    Attributes:
        index: the slot of the call.
        command: its number.
        raw: the attribute as it is in the metadata.
        fields: the attribute's numbers; those behind its end are 0.
        written: the fields that the loader writes before the call, and what it writes.
    """

    index: int
    command: Cmd
    raw: bytes
    fields: Mapping[str, int]
    written: Mapping[str, Value]

    def name(self, of: str) -> str:
        """Return a name in the attribute, for example ``map_name``."""
        return LAYOUTS[self.command].name_field(self.raw, of)


@dataclass(frozen=True, slots=True)
class LoaderReading:
    """What a loader does.

    Attributes:
        metadata: the metadata that the loader works on.
        calls: every call of a helper, by slot.
        commands: the bpf() commands in order.
        outputs: where each value comes from that the loader stores in its context, by offset.
        fds: the command whose result lies at a place in the end.
        ctx_reads: the offsets of the context that the loader reads.
    """

    metadata: bytes
    calls: Mapping[int, Call]
    commands: tuple[Command, ...]
    outputs: Mapping[int, Value]
    fds: Mapping[Value, Command]
    ctx_reads: frozenset[int]

    def maps(self) -> list[Command]:
        """Return the BPF_MAP_CREATE of each map in the order of the context."""
        return self._made(Cmd.MAP_CREATE, CTX_HEADER_SIZE, MAP_DESC_SIZE)

    def programs(self) -> list[Command]:
        """Return the BPF_PROG_LOAD of each program in the order of the context."""
        behind_maps = CTX_HEADER_SIZE + MAP_DESC_SIZE * len(self.maps())
        return self._made(Cmd.PROG_LOAD, behind_maps, PROG_DESC_SIZE)

    def _made(self, command: Cmd, offset: int, stride: int) -> list[Command]:
        found = []
        while (made := self.fds.get(self.outputs.get(offset, Value("")))) is not None:
            if made.command is not command:
                break
            found.append(made)
            offset += stride
        return found

    def blob(self, command: Command, name: str, size: int) -> bytes:
        """Return the bytes of the metadata that a pointer of an attribute leads to.

        Raises:
            InputError: the loader sets no such pointer, or it leads out of the metadata.
        """
        return self._bytes_at(command.written.get(name), size, f"{name} of slot {command.index}")

    def btf(self) -> bytes:
        """Return the object's BTF, or ``b""`` if the loader loads none.

        Raises:
            InputError: it lies outside of the metadata.
        """
        for command in self.commands:
            if command.command is Cmd.BTF_LOAD:
                return self.blob(command, "btf", command.fields["btf_size"])
        return b""

    def initial_value(self, made: Command) -> bytes | None:
        """Return the value that the loader puts under key 0 of a map, or ``None``.

        Raises:
            InputError: it lies outside of the metadata.
        """
        for command in self.commands:
            source = command.written.get("map_fd")
            if command.command is Cmd.MAP_UPDATE_ELEM and source and self.fds.get(source) is made:
                return self.blob(command, "value", made.fields["value_size"])
        return None

    def attach_target(self, made: Command) -> str:
        """Return the name that is looked up in the kernel's BTF for a program, or ``""``.

        Raises:
            InputError: the name lies outside of the metadata or is no text.
        """
        source = made.written.get("attach_btf_id")
        lookup = self.calls.get(source.number) if source and source.kind == "result" else None
        if lookup is None or lookup.helper != Helper.BTF_FIND_BY_NAME_KIND:
            return ""
        size = lookup.arguments.get(2, Value(""))
        if size.kind != "number":
            raise InputError("a name of unknown length", where=f"slot {lookup.index}")
        raw = self._bytes_at(lookup.arguments.get(1), size.number, f"name of slot {lookup.index}")
        try:
            return raw.rstrip(b"\0").decode("ascii")
        except UnicodeDecodeError:
            raise InputError("a name that is not ASCII", where=f"slot {lookup.index}") from None

    def _bytes_at(self, address: Value | None, size: int, where: str) -> bytes:
        if address is None or address.kind != "address":
            raise InputError("no address in the metadata", where=where)
        if not 0 <= address.number <= len(self.metadata) - size or size < 0:
            raise InputError("it reaches out of the metadata", where=where)
        return self.metadata[address.number : address.number + size]


@dataclass(slots=True)
class _Reader:
    registers: dict[int, Value] = field(
        default_factory=lambda: {1: Value("context"), 10: Value("frame")}
    )
    stores: dict[Value, Value] = field(default_factory=dict)
    outputs: dict[int, Value] = field(default_factory=dict)
    ctx_reads: set[int] = field(default_factory=set)

    def call(self, index: int) -> None:
        """Follow a call: what it leaves behind."""
        for register in _ARGUMENTS:
            self.registers.pop(register, None)
        self.registers[0] = Value("result", index)

    def step(self, insn: Insn, following: Insn | None) -> None:
        """Follow one instruction that is no call."""
        source = self.registers.get(insn.src)
        if insn.code == op.LD_IMM64 and following:
            is_blob = insn.src == op.PSEUDO_MAP_IDX_VALUE
            self.registers[insn.dst] = (
                Value("address", following.imm) if is_blob else Value("number", insn.imm)
            )
        elif insn.insn_class == op.LDX:
            self._load(insn, source)
        elif insn.insn_class == op.STX:
            self._store(insn, source)
        elif insn.insn_class in (op.ALU, op.ALU64):
            self._compute(insn, source)

    def _load(self, insn: Insn, source: Value | None) -> None:
        if source is None or source.kind not in _POINTERS:
            self.registers.pop(insn.dst, None)
            return
        place = Value(_POINTERS[source.kind], source.number + insn.off)
        self.registers[insn.dst] = place
        if place.kind == "ctx":
            self.ctx_reads.add(place.number)

    def _store(self, insn: Insn, source: Value | None) -> None:
        target = self.registers.get(insn.dst)
        if source is None or target is None or target.kind not in _POINTERS:
            return
        place = Value(_POINTERS[target.kind], target.number + insn.off)
        if place.kind == "ctx":
            self.outputs[place.number] = source
        else:
            self.stores[place] = source

    def _compute(self, insn: Insn, source: Value | None) -> None:
        known = self.registers.get(insn.dst)
        if insn.code == op.ALU64 | op.MOV | op.K:
            self.registers[insn.dst] = Value("number", insn.imm)
        elif insn.code == op.ALU64 | op.MOV | op.X and source:
            self.registers[insn.dst] = source
        elif insn.code == op.ALU64 | op.ADD | op.K and known:
            self.registers[insn.dst] = Value(known.kind, known.number + insn.imm)
        elif insn.code != op.ALU64 | op.RSH | op.K:  # a part of a result is still that result's
            self.registers.pop(insn.dst, None)


def read_loader(insns: bytes, metadata: bytes, byteorder: ByteOrder) -> LoaderReading:
    """Follow a loader program.

    Args:
        insns: the loader program.
        metadata: what it works on.
        byteorder: the byte order of both.

    Raises:
        InputError: a bpf() command whose attribute does not lie in the metadata, or that no loader
            issues.
    """
    slots = decode_insns(insns, byteorder)
    reader = _Reader()
    calls: dict[int, Call] = {}
    commands: dict[int, Command] = {}
    for index, insn in enumerate(slots):
        if insn.code != _CALL:
            reader.step(insn, slots[index + 1] if index + 1 < len(slots) else None)
            continue
        if insn.src == 0:
            known = {r: reader.registers[r] for r in _ARGUMENTS if r in reader.registers}
            calls[index] = Call(index, insn.imm, known)
            if insn.imm == Helper.SYS_BPF:
                commands[index] = _command(calls[index], reader.stores, metadata, byteorder)
        reader.call(index)
    fds = {
        place: commands[value.number]
        for place, value in reader.stores.items()
        if value.kind == "result" and value.number in commands
    }
    return LoaderReading(
        metadata, calls, tuple(commands.values()), reader.outputs, fds, frozenset(reader.ctx_reads)
    )


def _command(
    call: Call, stores: Mapping[Value, Value], metadata: bytes, byteorder: ByteOrder
) -> Command:
    where = f"slot {call.index}"
    number, address, length = (call.arguments.get(register, Value("")) for register in (1, 2, 3))
    if (number.kind, address.kind, length.kind) != ("number", "address", "number"):
        raise InputError("a bpf() command whose arguments are not constants", where=where)
    layout = LAYOUTS.get(number.number)
    if layout is None:
        raise InputError(f"bpf() command {number.number}, which no loader issues", where=where)
    at, size = address.number, length.number
    if not 0 <= at <= len(metadata) - size or size < 0:
        raise InputError("the attribute reaches out of the metadata", where=where)
    raw = metadata[at : at + size]
    padded = raw.ljust(layout.size, b"\0")  # as the kernel does with a short attribute
    return Command(
        index=call.index,
        command=Cmd(number.number),
        raw=raw,
        fields={
            name: int.from_bytes(padded[part.offset : part.end], byteorder)
            for name, part in layout.fields.items()
            if not part.is_bytes
        },
        written={
            name: stores[place]
            for name, part in layout.fields.items()
            if part.end <= size and (place := Value("blob", at + part.offset)) in stores
        },
    )
