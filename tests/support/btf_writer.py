"""Write BTF and .BTF.ext of any kind and byte order, for tests that say in Python what they hold.

Example:
    >>> btf = BtfWriter()
    >>> number = btf.add_int("int", 4, signed=True)
    >>> btf.add_array(number, 3)
    2
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

from bpfseal.bpf.insn import ByteOrder
from bpfseal.btf.btf import MAGIC
from bpfseal.btf.builder import BtfBuilder
from bpfseal.btf.kinds import Kind, Linkage

Rows = Mapping[str, Sequence[tuple[int, ...]]]
"""Records of .BTF.ext by ELF section; the first word of each is a byte offset."""

KIND_FLAG = 1 << 31


class BtfWriter(BtfBuilder):
    """The builder, with every kind and with either byte order."""

    def string(self, text: str) -> int:
        """Return the offset of a string, which is added if it is new."""
        return self._string(text)

    def add_raw(
        self,
        kind: int,
        third: int = 0,
        body: Sequence[int] = (),
        *,
        name: str = "",
        name_off: int = 0,
        vlen: int = 0,
    ) -> int:
        """Add a record word by word and return its id; `vlen` may include `KIND_FLAG`."""
        self._words += (self._string(name) or name_off, kind << 24 | vlen, third, *body)
        self._count += 1
        return self._count - 1

    def add_modifier(self, kind: Kind, type_id: int, name: str = "") -> int:
        return self.add_raw(kind, type_id, name=name)

    def add_array(self, element: int, count: int, index: int = 0) -> int:
        return self.add_raw(Kind.ARRAY, 0, (element, index or element, count))

    def add_enum(self, name: str, values: Mapping[str, int], size: int = 4) -> int:
        body = [word for text, value in values.items() for word in (self.string(text), value)]
        return self.add_raw(Kind.ENUM, size, body, name=name, vlen=len(values))

    def add_enum64(self, name: str, values: Mapping[str, int]) -> int:
        body = [
            word
            for text, value in values.items()
            for word in (self.string(text), value & 0xFFFFFFFF, value >> 32)
        ]
        return self.add_raw(Kind.ENUM64, 8, body, name=name, vlen=len(values))

    def add_encoded_int(self, name: str, size: int, encoding: int) -> int:
        return self.add_raw(Kind.INT, size, (encoding << 24 | size * 8,), name=name)

    def add_var(self, name: str, type_id: int, linkage: int = Linkage.GLOBAL) -> int:
        return self.add_raw(Kind.VAR, type_id, (linkage,), name=name)

    def add_datasec(self, name: str, entries: Iterable[tuple[int, int, int]], size: int = 0) -> int:
        body = [word for entry in entries for word in entry]
        return self.add_raw(Kind.DATASEC, size, body, name=name, vlen=len(body) // 3)

    def add_decl_tag(self, name: str, type_id: int) -> int:
        return self.add_raw(Kind.DECL_TAG, type_id, (0xFFFFFFFF,), name=name)

    def encode(self, byteorder: ByteOrder = "little", *, header_size: int = 24) -> bytes:
        """Return the bytes, with the 24-byte header that compilers write."""
        sign = "<" if byteorder == "little" else ">"
        types = struct.pack(f"{sign}{len(self._words)}I", *self._words)
        sizes = (0, len(types), len(types), len(self._strings))
        header = struct.pack(f"{sign}HBBI4I", MAGIC, 1, 0, header_size, *sizes)
        return header.ljust(header_size, b"\0") + types + bytes(self._strings)


def encode_ext(
    btf: BtfWriter,
    byteorder: ByteOrder = "little",
    *,
    func_info: Rows | None = None,
    line_info: Rows | None = None,
    core_relos: Rows | None = None,
) -> bytes:
    """Return a .BTF.ext section; its section names are added to `btf`, so encode that later."""
    sign = "<" if byteorder == "little" else ">"
    fields: list[int] = []
    body = b""
    for rows, width in ((func_info, 2), (line_info, 4), (core_relos, 4)):
        words = [4 * width] if rows else []
        for section, records in (rows or {}).items():
            words += (btf.string(section), len(records))
            words += (word for record in records for word in record)
        fields += (len(body), 4 * len(words))
        body += struct.pack(f"{sign}{len(words)}I", *words)
    header = struct.pack(f"{sign}HBBI6I", MAGIC, 1, 0, 32, *fields)
    return header + body


def every_kind() -> BtfWriter:
    """One type of each kind, with ids equal to the numbers of the kinds."""
    writer = BtfWriter()
    writer.add_int("int", 4, signed=True)
    writer.add_ptr(1)
    writer.add_array(1, 7)
    writer.add_struct("s", 8, [("a", 1, 0), ("b", 1, 32)])
    writer.add_raw(Kind.UNION, 4, (writer.string("u"), 1, 0), name="un", vlen=1)
    writer.add_enum("e", {"ONE": 1})
    writer.add_raw(Kind.FWD, name="later", vlen=KIND_FLAG)
    writer.add_typedef("alias", 1)
    writer.add_modifier(Kind.VOLATILE, 8)
    writer.add_modifier(Kind.CONST, 9)
    writer.add_modifier(Kind.RESTRICT, 10)
    writer.add_func("f", 13, Linkage.STATIC)
    writer.add_func_proto(0, [("x", 1)])
    writer.add_var("v", 4)
    writer.add_datasec(".data", [(14, 0, 8)], 8)
    writer.add_raw(Kind.FLOAT, 8, name="double")
    writer.add_decl_tag("tag", 14)
    writer.add_modifier(Kind.TYPE_TAG, 1, "user")
    writer.add_enum64("big", {"HUGE": 1 << 40})
    return writer
