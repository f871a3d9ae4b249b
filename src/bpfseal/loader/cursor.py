"""How far the instructions and the metadata of a loader are used while it is read.

A step is taken from the instructions, a piece of data from the metadata, each where the last one
ended (`bpfseal.loader.reading`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NoReturn

from bpfseal.bpf.attr import AttrLayout
from bpfseal.bpf.insn import INSN_SIZE, ByteOrder
from bpfseal.errors import InputError
from bpfseal.loader import steps
from bpfseal.loader.emitter import PROLOGUE_SLOTS
from bpfseal.loader.forms import Form


@dataclass(frozen=True, slots=True)
class _Part:
    """An attribute up to a field.

    Attributes:
        numbers: the layout of its numbers.
        names: their names.
        unknown: a bit for each bit outside of the known fields, in little-endian order.
    """

    numbers: struct.Struct
    names: tuple[str, ...]
    unknown: int


@lru_cache(maxsize=64)
def _part(layout: AttrLayout, last: str, known: tuple[str, ...], byteorder: ByteOrder) -> _Part:
    names: list[str] = []
    text, size = "<" if byteorder == "little" else ">", 0
    for name, part in sorted(layout.fields.items(), key=lambda item: item[1].offset):
        if part.end <= layout.end(last):
            code = f"{part.size}x" if part.is_bytes else {4: "I", 8: "Q"}[part.size]
            text += "x" * (part.offset - size) + code
            size = part.end
            names += [] if part.is_bytes else [name]
    unknown = bytearray(b"\xff" * size)
    for name in known:
        part = layout.fields[name]
        unknown[part.offset : part.end] = bytes(part.size)
    return _Part(struct.Struct(text), tuple(names), int.from_bytes(unknown, "little"))


@dataclass(slots=True)
class Cursor:
    """The two parts of a loader, and how far each is used.

    Attributes:
        insns: the loader program.
        metadata: what it works on.
        byteorder: the byte order of both.
        at: bytes of the instructions that are taken.
        used: bytes of the metadata that are taken.
        traces: the loader prints what it does.
        forms: the patterns of its steps.
    """

    insns: bytes
    metadata: bytes
    byteorder: ByteOrder
    at: int = 0
    used: int = 0
    traces: bool = False
    forms: Mapping[str, Form] = field(default_factory=dict)

    # The instructions

    def refuse(self, message: str, at: int | None = None) -> NoReturn:
        """Say that this is no loader."""
        slot = (self.at if at is None else at) // INSN_SIZE
        raise InputError(f"no loader that a generator makes: {message}", where=f"slot {slot}")

    def accept(self, name: str) -> tuple[int, ...] | None:
        """Take a step if it comes next, and return its open numbers."""
        form = self.forms[name]
        found = form.match(self.insns, self.at)
        if found is not None:
            self.at += form.size
        return found

    def take(self, name: str) -> tuple[int, ...]:
        """Take a step, which must come next, and return its open numbers."""
        found = self.accept(name)
        if found is None:
            self.refuse(f"expected the step {name}")
        return found

    def expect(self, name: str, *numbers: int) -> None:
        """Take a step with these numbers, which must come next."""
        at = self.at
        if self.take(name) != numbers:
            self.refuse(f"the step {name} is about something else", at)

    def check_result(self) -> None:
        """Take the jump to the cleanup block on an error."""
        self.expect("check_result", PROLOGUE_SLOTS - self.at // INSN_SIZE - 1)

    def trace(self, name: str = "trace_result") -> None:
        """Take the printing of a line, in loaders that print."""
        if self.traces:
            line, size = self.take(name)
            self.string(line, size)

    def accept_if(self, name: str, *numbers: int) -> bool:
        """Take a step if it comes next with these numbers."""
        at = self.at
        if self.accept(name) == numbers:
            return True
        self.at = at
        return False

    def size_of(self, name: str) -> int:
        """Return the bytes of a step."""
        return self.forms[name].size

    def store(self, at: int) -> int:
        """Take the writing of an address to an offset, and return what it is the address of."""
        found, target = self.take("store")
        if found != at:
            self.refuse(f"an address is written to {found}, not {at}")
        return target

    def log(self, layout: AttrLayout, prefix: str, at: int) -> None:
        """Take what the host wants of the log."""
        self.expect("log", *(at + layout.offset(prefix + name) for name, _, _ in steps.CTX_LOG))

    # The metadata

    def data(self, at: int, size: int) -> bytes:
        """Take the next piece of the metadata, which a step has at this offset."""
        end = self.used + size
        if at != self.used or size < 0 or end > len(self.metadata):
            self.refuse(f"{size} bytes of metadata at {at}, used are {self.used}")
        padding = self.metadata[end : end + -size % 8]
        if padding != bytes(-size % 8):
            self.refuse(f"the metadata at {end} is not padded with zeros")
        self.used = end + len(padding)
        return self.metadata[at:end]

    def zeros(self, at: int, size: int) -> None:
        """Take a piece that the loader itself fills."""
        if self.data(at, size).strip(b"\0"):
            self.refuse(f"the {size} bytes of metadata at {at} are not zero")

    def string(self, at: int, size: int) -> bytes:
        """Take a string with its final zero."""
        raw = self.data(at, size)
        if raw.find(0) != size - 1:
            self.refuse(f"no string of {size} bytes in the metadata at {at}")
        return raw[:-1]

    def name(self, at: int, size: int) -> str:
        """Take a name of the kernel."""
        return self.text(self.string(at, size))

    def text(self, raw: bytes) -> str:
        """Return a name as text."""
        if not raw.isascii() or not (text := raw.decode()).isprintable():
            self.refuse(f"the name {raw[:40]!r} is no printable text")
        return text

    def peek(self, layout: AttrLayout, last: str, at: int, size: int) -> dict[str, int]:
        """Return the numbers of an attribute that is not taken yet."""
        part = _part(layout, last, (), self.byteorder)
        if size != part.numbers.size or not 0 <= at <= len(self.metadata) - size:
            self.refuse(f"an attribute of {size} bytes at {at}")
        return dict(zip(part.names, part.numbers.unpack_from(self.metadata, at), strict=True))

    def attribute(self, layout: AttrLayout, last: str, at: int, known: tuple[str, ...]) -> bytes:
        """Take an attribute in which nothing but the known fields is set."""
        part = _part(layout, last, known, self.byteorder)
        raw = self.data(at, part.numbers.size)
        if int.from_bytes(raw, "little") & part.unknown:
            self.refuse(f"the attribute at {at} has unknown fields")
        return raw

    def name_field(self, layout: AttrLayout, raw: bytes, name: str) -> str:
        """Return a name in an attribute."""
        part = layout.fields[name]
        text, zero, rest = raw[part.offset : part.end].partition(b"\0")
        if not zero or any(rest):
            self.refuse(f"{name} is no string")
        return self.text(text)
