"""The .BTF.ext section: func_info, line_info and CO-RE relocation records.

Layout: Documentation/bpf/btf.rst, "The .BTF.ext section". Records are kept as rows of 32-bit words,
grouped by the ELF section that they belong to; instruction offsets are in bytes.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from bpfseal.bpf.insn import INSN_SIZE
from bpfseal.bpf.words import from_bytes
from bpfseal.btf.btf import MAGIC, Btf
from bpfseal.errors import InputError

_MIN_HEADER_SIZE = 24
_CORE_HEADER_SIZE = 32


@dataclass(frozen=True, slots=True)
class InfoSection:
    """The records of one ELF section.

    Attributes:
        name: the ELF section's name.
        words: the records, one right after the other.
        width: words of one record; the first is the instruction's byte offset.
    """

    name: str
    words: array[int]
    width: int

    @property
    def records(self) -> list[tuple[int, ...]]:
        """The records as rows of words."""
        return self.rows(range(len(self.words) // self.width))

    @property
    def offsets(self) -> array[int]:
        """The byte offset of each record's instruction."""
        return self.words[:: self.width]

    def rows(self, numbers: Iterable[int]) -> list[tuple[int, ...]]:
        """Return the records with these numbers."""
        width, words = self.width, self.words
        return [tuple(words[width * number : width * (number + 1)]) for number in numbers]


class _Places:
    """Where in a section's records those of a range of instructions are."""

    def __init__(self, offsets: array[int]) -> None:
        self.misplaced = next((offset for offset in offsets if offset % INSN_SIZE), None)
        self._order: Sequence[int] = range(len(offsets))
        self._offsets = offsets
        if any(first > second for first, second in pairwise(offsets)):
            self._order = sorted(self._order, key=offsets.__getitem__)
            self._offsets = array("I", map(offsets.__getitem__, self._order))

    def between(self, first: int, end: int) -> list[int]:
        """Return the numbers of the records with these byte offsets, in the order of the file."""
        start, stop = bisect_left(self._offsets, first), bisect_left(self._offsets, end)
        return sorted(self._order[start:stop])


@dataclass(frozen=True)
class Info:
    """One kind of records.

    Attributes:
        record_size: bytes of one record.
        sections: the records by ELF section, in file order.
    """

    record_size: int = 0
    sections: tuple[InfoSection, ...] = ()

    def records_of(self, name: str) -> list[tuple[int, ...]]:
        """Return the records of an ELF section; empty if it has none."""
        section = self._by_name.get(name)
        return section.records if section else []

    def records_between(self, name: str, first: int, end: int) -> list[tuple[int, ...]]:
        """Return those records of an ELF section whose byte offset is in ``range(first, end)``."""
        section = self._by_name.get(name)
        return section.rows(self._places(section).between(first, end)) if section else []

    def misplaced(self, name: str) -> int | None:
        """Return the first byte offset in an ELF section that is no instruction, if any."""
        section = self._by_name.get(name)
        return self._places(section).misplaced if section else None

    @cached_property
    def _by_name(self) -> dict[str, InfoSection]:
        return {section.name: section for section in reversed(self.sections)}

    @cached_property
    def _known_places(self) -> dict[str, _Places]:
        return {}

    def _places(self, section: InfoSection) -> _Places:
        places = self._known_places.get(section.name)
        if places is None:
            places = self._known_places[section.name] = _Places(section.offsets)
        return places


@dataclass(frozen=True, slots=True)
class BtfExt:
    """A parsed .BTF.ext section."""

    func_info: Info = Info()
    line_info: Info = Info()
    core_relos: Info = Info()

    @property
    def size(self) -> int:
        """Bytes of all records."""
        infos = (self.func_info, self.line_info, self.core_relos)
        return sum(4 * len(section.words) for info in infos for section in info.sections)

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
            infos.append(_parse_info(raw[start : start + size], minimum, btf, f"{where} {name}"))
        return cls(*infos)


def _parse_info(data: bytes, minimum: int, btf: Btf, where: str) -> Info:
    if not data:
        return Info()
    if len(data) % 4:
        raise InputError("its size is no multiple of 4", where=where)
    words = from_bytes(data, btf.byteorder)
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
        sections.append(InfoSection(btf.string(name_off), words[index:end], width))
        index = end
    if not sections:
        raise InputError("it has no records", where=where)
    return Info(record_size, tuple(sections))
