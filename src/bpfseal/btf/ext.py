"""The .BTF.ext section: func_info, line_info and CO-RE relocation records.

Layout: Documentation/bpf/btf.rst, "The .BTF.ext section". Records are kept as rows of 32-bit words,
grouped by the ELF section that they belong to; instruction offsets are in bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from bpfseal.btf.btf import MAGIC, Btf
from bpfseal.errors import InputError

_MIN_HEADER_SIZE = 24
_CORE_HEADER_SIZE = 32


@dataclass(frozen=True, slots=True)
class InfoSection:
    """The records of one ELF section.

    Attributes:
        name: the ELF section's name.
        records: rows of 32-bit words; the first word is the instruction's byte offset.
    """

    name: str
    records: Sequence[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Info:
    """One kind of records.

    Attributes:
        record_size: bytes of one record.
        sections: the records by ELF section, in file order.
    """

    record_size: int = 0
    sections: tuple[InfoSection, ...] = ()

    def records_of(self, name: str) -> Sequence[tuple[int, ...]]:
        """Return the records of an ELF section; empty if it has none."""
        for section in self.sections:
            if section.name == name:
                return section.records
        return ()


@dataclass(frozen=True, slots=True)
class BtfExt:
    """A parsed .BTF.ext section."""

    func_info: Info = Info()
    line_info: Info = Info()
    core_relos: Info = Info()

    @classmethod
    def from_bytes(cls, raw: bytes, btf: Btf, where: str = ".BTF.ext") -> BtfExt:
        """Parse a .BTF.ext section of the same byte order as its BTF.

        Raises:
            InputError: malformed data, with the place.
        """
        sign = "<" if btf.byteorder == "little" else ">"
        if len(raw) < _MIN_HEADER_SIZE or raw[:2] != MAGIC.to_bytes(2, btf.byteorder):
            raise InputError("no .BTF.ext header", where=where)
        version, flags, header_size = struct.unpack_from(f"{sign}BBI", raw, 2)
        if version != 1 or flags or not _MIN_HEADER_SIZE <= header_size <= len(raw):
            raise InputError(f"unknown .BTF.ext header (version {version})", where=where)
        count = 6 if header_size >= _CORE_HEADER_SIZE else 4
        fields = struct.unpack_from(f"{sign}{count}I", raw, 8)
        parts = (("func_info", 2), ("line_info", 4), ("core_relo", 4))
        infos = []
        for index, (name, minimum) in enumerate(parts[: count // 2]):
            offset, size = fields[2 * index : 2 * index + 2]
            start = header_size + offset
            if offset % 4 or start + size > len(raw):
                raise InputError(f"{name} lies outside the section", where=where)
            infos.append(
                _parse_info(raw[start : start + size], sign, minimum, btf, f"{where} {name}")
            )
        return cls(*infos)


def _parse_info(data: bytes, sign: str, minimum: int, btf: Btf, where: str) -> Info:
    if not data:
        return Info()
    if len(data) % 4:
        raise InputError("its size is no multiple of 4", where=where)
    words = struct.unpack(f"{sign}{len(data) // 4}I", data)
    record_size = words[0]
    if record_size < 4 * minimum or record_size % 4:
        raise InputError(f"records of {record_size} bytes", where=where)
    width = record_size // 4
    sections = []
    index = 1
    while index < len(words):
        if index + 2 > len(words):
            raise InputError("a section header is cut off", where=where)
        name_off, count = words[index : index + 2]
        index += 2
        end = index + count * width
        if not count or end > len(words):
            raise InputError(f"{count} records do not fit", where=where)
        if name_off >= len(btf.strings):
            raise InputError("a section name lies outside the strings", where=where)
        columns = (words[index + column : end : width] for column in range(width))
        rows = list(zip(*columns, strict=True))
        sections.append(InfoSection(btf.string(name_off), rows))
        index = end
    if not sections:
        raise InputError("it has no records", where=where)
    return Info(record_size, tuple(sections))
