"""Sections, symbols and relocations of a BPF ELF file.

pyelftools opens the file and knows the format; symbol and relocation tables are decoded in bulk
from the section bytes, since its entry-by-entry interface is slow on large objects.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

from bpfseal.bpf.insn import ByteOrder
from bpfseal.errors import InputError

EM_BPF = "EM_BPF"
_EM_NONE = "EM_NONE"
_MAX_SECTIONS = 0xFF00  # SHN_LORESERVE: section indices from here on mean something else

SHF_EXECINSTR = 0x4

STB_LOCAL = 0
STB_GLOBAL = 1
STB_WEAK = 2
STT_NOTYPE = 0
STT_OBJECT = 1
STT_FUNC = 2
STT_SECTION = 3
STV_INTERNAL = 1
STV_HIDDEN = 2


class Symbol(NamedTuple):
    """An entry of the symbol table, with ``st_info`` and ``st_other`` split up."""

    number: int
    name: str
    type: int
    bind: int
    visibility: int
    section: int
    value: int
    size: int

    @property
    def is_extern(self) -> bool:
        """Whether something outside the object defines it."""
        return self.section == 0 and self.type == STT_NOTYPE and self.bind in (STB_GLOBAL, STB_WEAK)

    @property
    def is_hidden(self) -> bool:
        """Whether it has hidden or internal visibility."""
        return self.visibility in (STV_HIDDEN, STV_INTERNAL)


class Rel(NamedTuple):
    """An entry of a SHT_REL section: byte offset in the target section, and symbol index."""

    offset: int
    symbol: int


@dataclass(frozen=True, slots=True)
class ElfSection:
    """A section.

    Attributes:
        index: the section's index.
        name: its name.
        type: its type, such as ``"SHT_PROGBITS"``.
        flags: ``sh_flags``.
        link: ``sh_link``.
        info: ``sh_info``; for relocations the index of the section they apply to.
        size: bytes in memory.
        data: the bytes in the file; empty for SHT_NOBITS.
    """

    index: int
    name: str
    type: str
    flags: int
    link: int
    info: int
    size: int
    data: bytes

    @property
    def is_code(self) -> bool:
        """Whether it holds instructions."""
        return self.type == "SHT_PROGBITS" and bool(self.flags & SHF_EXECINSTR) and self.size > 0


@dataclass(frozen=True, slots=True)
class Elf:
    """A parsed ELF file.

    Attributes:
        byteorder: the byte order of the target.
        sections: all sections by index; index 0 is the null section.
        symbols: the symbol table.
    """

    byteorder: ByteOrder
    sections: tuple[ElfSection, ...]
    symbols: tuple[Symbol, ...]

    def section(self, name: str) -> ElfSection | None:
        """Return the first section with this name."""
        return next((s for s in self.sections if s.name == name), None)

    def symbol(self, index: int, where: str) -> Symbol:
        """Return a symbol whose section exists.

        Raises:
            InputError: no such symbol, or it lies in a section that is not there.
        """
        if index >= len(self.symbols):
            raise InputError(f"symbol {index} does not exist", where=where)
        symbol = self.symbols[index]
        if symbol.section >= len(self.sections):
            raise InputError(
                f"symbol {index} '{symbol.name}' lies in section {symbol.section}, "
                "which does not exist",
                where=where,
            )
        return symbol

    def rels(self, section: ElfSection) -> list[Rel]:
        """Return the entries of a SHT_REL section.

        Raises:
            InputError: the section is cut off, or an entry lies outside its target.
        """
        sign = "<" if self.byteorder == "little" else ">"
        entry = struct.Struct(f"{sign}QQ")
        if len(section.data) % entry.size:
            raise InputError("its size is no multiple of 16", where=section.name)
        target = self.sections[section.info]
        rels = [Rel(offset, info >> 32) for offset, info in entry.iter_unpack(section.data)]
        for number, rel in enumerate(rels):
            if rel.offset >= target.size:
                raise InputError(
                    f"relocation {number} at offset {rel.offset:#x} lies outside its section "
                    f"'{target.name}' of {target.size:#x} bytes",
                    where=section.name,
                )
        return rels


def read_elf(data: bytes) -> Elf:
    """Parse a 64-bit BPF ELF file.

    Raises:
        InputError: not an ELF file, not for BPF, cut off, or without a symbol table.
    """
    if data[:4] != b"\x7fELF":
        raise InputError("not an ELF file")
    try:
        elf = ELFFile(io.BytesIO(data))
        machine, size = elf["e_machine"], elf.elfclass
        headers = [elf._get_section_header(i) for i in range(_section_count(elf))]  # noqa: SLF001
        # (the public iterator builds an object with its own tables for each section)
    except (ELFError, ConstructError, ValueError, KeyError, OverflowError, struct.error) as error:
        raise InputError(f"ELF headers cannot be read: {error}") from None
    if machine not in (EM_BPF, _EM_NONE):
        raise InputError(f"ELF file is for {machine}, not for EM_BPF")
    if size != 64:
        raise InputError(f"ELF file is {size}-bit, BPF needs 64")
    byteorder: ByteOrder = "little" if elf.little_endian else "big"
    names = _section_bytes(data, headers[elf["e_shstrndx"]], "section names") if headers else b""
    sections = tuple(
        ElfSection(
            index,
            (name := _string(names, header["sh_name"], f"name of section {index}")),
            str(header["sh_type"]),
            header["sh_flags"],
            header["sh_link"],
            header["sh_info"],
            header["sh_size"],
            b"" if index == 0 else _section_bytes(data, header, f"section '{name}'"),
        )
        for index, header in enumerate(headers)
    )
    return Elf(byteorder, sections, _read_symbols(sections, byteorder))


def _section_count(elf: ELFFile) -> int:
    count = elf.num_sections()
    if count >= _MAX_SECTIONS or elf["e_shstrndx"] >= max(count, 1):
        raise InputError(f"ELF section table is out of range ({count} sections)")
    return int(count)


def _section_bytes(data: bytes, header: Any, where: str) -> bytes:
    if header["sh_type"] == "SHT_NOBITS":
        return b""
    start, end = header["sh_offset"], header["sh_offset"] + header["sh_size"]
    if end > len(data):
        raise InputError(f"it ends at {end:#x}, behind the file's end", where=where)
    return data[start:end]


def _string(table: bytes, offset: int, where: str) -> str:
    end = table.find(0, offset)
    if end < 0:
        raise InputError("it lies outside its string table", where=where)
    return table[offset:end].decode("utf-8", "backslashreplace")


def _read_symbols(sections: tuple[ElfSection, ...], byteorder: ByteOrder) -> tuple[Symbol, ...]:
    tables = [section for section in sections if section.type == "SHT_SYMTAB"]
    if len(tables) != 1:
        raise InputError(f"{len(tables) or 'no'} symbol tables (is the object stripped?)")
    table = tables[0]
    if table.link >= len(sections) or sections[table.link].type != "SHT_STRTAB":
        raise InputError("its string table is missing", where=table.name)
    entry = struct.Struct("<IBBHQQ" if byteorder == "little" else ">IBBHQQ")
    if len(table.data) % entry.size:
        raise InputError(f"its size is no multiple of {entry.size}", where=table.name)
    strings = sections[table.link].data
    symbols = []
    for index, (name, info, other, section, value, size) in enumerate(
        entry.iter_unpack(table.data)
    ):
        text = _string(strings, name, f"name of symbol {index}") if name else ""
        symbols.append(Symbol(index, text, info & 15, info >> 4, other & 3, section, value, size))
    return tuple(symbols)
