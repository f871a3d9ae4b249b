"""Build BTF from nothing, or edit the types of a parsed one.

The bytes are those that the field's reference library makes from the same calls: strings in the
order of their first use, types in the order they were added, types before strings.

Example:
    >>> builder = BtfBuilder()
    >>> builder.add_ptr(builder.add_int("int", 4, signed=True))
    2
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain

from bpfseal.bpf.words import to_bytes
from bpfseal.btf.btf import MAGIC, Btf
from bpfseal.btf.kinds import HEADER_WORDS, INT_SIGNED, Kind, Linkage

NEW_HEADER_SIZE = 32
"""Bytes of the header of a new BTF: the form with the two fields of the layout section."""


class BtfBuilder:
    """A growing type section and string section."""

    def __init__(self) -> None:
        self._words: list[int] = []
        self._strings = bytearray(1)
        self._offsets: dict[str, int] = {"": 0}
        self._count = 1

    def _string(self, text: str) -> int:
        offset = self._offsets.get(text)
        if offset is None:
            offset = self._offsets[text] = len(self._strings)
            self._strings += text.encode() + b"\0"
        return offset

    def _add(self, name: str, kind: Kind, vlen: int, third: int, body: Iterable[int] = ()) -> int:
        self._words += (self._string(name), kind << 24 | vlen, third, *body)
        self._count += 1
        return self._count - 1

    def add_int(self, name: str, size: int, *, signed: bool = False) -> int:
        """Add an INT of `size` bytes and return its id."""
        encoding = INT_SIGNED if signed else 0
        return self._add(name, Kind.INT, 0, size, [encoding << 24 | size * 8])

    def add_ptr(self, type_id: int) -> int:
        """Add a PTR to a type (0 for ``void *``) and return its id."""
        return self._add("", Kind.PTR, 0, type_id)

    def add_typedef(self, name: str, type_id: int) -> int:
        """Add a TYPEDEF and return its id."""
        return self._add(name, Kind.TYPEDEF, 0, type_id)

    def add_struct(self, name: str, size: int, members: Iterable[tuple[str, int, int]]) -> int:
        """Add a STRUCT of `size` bytes with (name, type id, bit offset) and return its id."""
        body = [
            word
            for member, type_id, offset in members
            for word in (self._string(member), type_id, offset)
        ]
        return self._add(name, Kind.STRUCT, len(body) // 3, size, body)

    def add_func_proto(self, return_id: int, params: Iterable[tuple[str, int]]) -> int:
        """Add a FUNC_PROTO with (name, type id) parameters and return its id."""
        body = [word for name, type_id in params for word in (self._string(name), type_id)]
        return self._add("", Kind.FUNC_PROTO, len(body) // 2, return_id, body)

    def add_func(self, name: str, proto_id: int, linkage: Linkage = Linkage.GLOBAL) -> int:
        """Add a FUNC and return its id."""
        return self._add(name, Kind.FUNC, linkage, proto_id)

    def encode(self) -> bytes:
        """Return the BTF as little-endian bytes."""
        types = struct.pack(f"<{len(self._words)}I", *self._words)
        header = struct.pack(
            "<HBBIIIIIII",
            MAGIC,
            1,
            0,
            NEW_HEADER_SIZE,
            0,
            len(types),
            len(types),
            len(self._strings),
            0,
            0,
        )
        return header + types + bytes(self._strings)


class BtfEditor:
    """Changes to a parsed BTF, which itself stays as it is.

    Attributes:
        words: the type section; change words in place.
    """

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self.words = array("I", btf.words)
        self._strings = btf.strings
        self._added: list[int] = []

    def start(self, type_id: int) -> int:
        """Return the index in `words` of a type's first word."""
        known = len(self._btf)
        return self._btf.starts[type_id] if type_id < known else self._added[type_id - known]

    def set_vlen(self, type_id: int, vlen: int) -> None:
        """Set the number of entries of a type, or the linkage of a FUNC."""
        index = self.start(type_id) + 1
        self.words[index] = self.words[index] & ~0xFFFFFF | vlen

    def set_third(self, type_id: int, value: int) -> None:
        """Set the size or the referenced type of a type."""
        self.words[self.start(type_id) + 2] = value

    def set_var_linkage(self, type_id: int, linkage: Linkage) -> None:
        """Set the linkage of a VAR."""
        self.words[self.start(type_id) + HEADER_WORDS] = linkage

    def set_secinfos(self, type_id: int, secinfos: Iterable[tuple[int, int, int]]) -> None:
        """Replace the entries of a DATASEC by as many others."""
        first = self.start(type_id) + HEADER_WORDS
        words = array("I", chain.from_iterable(secinfos))
        self.words[first : first + len(words)] = words

    def add_var(self, name: str, type_id: int, linkage: Linkage) -> int:
        """Append a VAR and return its id; a name that is there already is used again."""
        entry = name.encode() + b"\0"
        name_off = self._strings.find(b"\0" + entry) + 1
        if not name_off:
            name_off = len(self._strings)
            self._strings += entry
        self._added.append(len(self.words))
        self.words.extend((name_off, Kind.VAR << 24, type_id, linkage))
        return len(self._btf) + len(self._added) - 1

    def finish(self) -> Btf:
        """Return the edited BTF.

        Without new types the bytes around the type section stay as they are; with new types the
        blob is laid out again: header, types, strings.
        """
        btf = self._btf
        sign = "<" if btf.byteorder == "little" else ">"
        types = to_bytes(self.words, btf.byteorder)
        if not self._added:
            end = btf.types_offset + len(types)
            raw = btf.raw[: btf.types_offset] + types + btf.raw[end:]
            return replace(btf, raw=raw, words=self.words)
        (header_size,) = struct.unpack_from(f"{sign}I", btf.raw, 4)
        header = bytearray(btf.raw[:header_size])
        strings_size = len(self._strings)
        struct.pack_into(f"{sign}IIII", header, 8, 0, len(types), len(types), strings_size)
        return replace(
            btf,
            raw=bytes(header) + types + self._strings,
            words=self.words,
            starts=[*btf.starts, *self._added],
            kinds=btf.kinds + bytes([Kind.VAR] * len(self._added)),
            strings=self._strings,
            types_offset=header_size,
        )
