"""Sections, symbols and relocations of a BPF ELF file.

pyelftools knows the header; the tables of sections, symbols and relocations are decoded in bulk,
since its entry-by-entry interface is slow on large objects.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

from elftools.common.exceptions import ELFParseError
from elftools.common.utils import struct_parse
from elftools.elf.structs import ELFStructs

from bpfseal.bpf.insn import ByteOrder
from bpfseal.bpf.strings import StringTable
from bpfseal.errors import InputError
from bpfseal.limits import MAX_NAME

EM_BPF = "EM_BPF"
_EM_NONE = "EM_NONE"
_HEADER_SIZE = 64
_EI_CLASS, _EI_DATA = 4, 5
_ELFCLASS64 = 2
_BYTE_ORDERS: dict[int, ByteOrder] = {1: "little", 2: "big"}
_MAX_SECTIONS = 0xFF00  # SHN_LORESERVE: section indices from here on mean something else

SHF_EXECINSTR = 0x4
_TYPES = {
    0: "SHT_NULL",
    1: "SHT_PROGBITS",
    2: "SHT_SYMTAB",
    3: "SHT_STRTAB",
    8: "SHT_NOBITS",
    9: "SHT_REL",
}
"""Section types that mean something for a BPF object."""

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


@dataclass(frozen=True)
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
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, ElfSection]:
        return {section.name: section for section in reversed(self.sections)}

    def functions_of(self, section: ElfSection) -> Sequence[Symbol]:
        """Return the functions of a section in the order of the symbol table."""
        return self._functions.get(section.index, ())

    @cached_property
    def _functions(self) -> dict[int, list[Symbol]]:
        functions: dict[int, list[Symbol]] = {}
        for symbol in self.symbols:
            if symbol.type == STT_FUNC:
                functions.setdefault(symbol.section, []).append(symbol)
        return functions

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
    if len(data) < _HEADER_SIZE or data[_EI_DATA] not in _BYTE_ORDERS:
        raise InputError("ELF headers cannot be read: the file is cut off, or of no byte order")
    byteorder = _BYTE_ORDERS[data[_EI_DATA]]
    if data[_EI_CLASS] != _ELFCLASS64:
        raise InputError("ELF file is not 64-bit, as BPF files are")
    try:
        elf = struct_parse(_structs(byteorder).Elf_Ehdr, io.BytesIO(data))
    except ELFParseError as error:
        raise InputError(f"ELF headers cannot be read: {error}") from None
    machine, count = elf["e_machine"], elf["e_shnum"]
    if machine not in (EM_BPF, _EM_NONE):
        raise InputError(f"ELF file is for {machine}, not for EM_BPF")
    entry = struct.Struct("<IIQQQQIIQQ" if byteorder == "little" else ">IIQQQQIIQQ")
    start, end = elf["e_shoff"], elf["e_shoff"] + count * entry.size
    names_index = elf["e_shstrndx"]
    if not start or count >= _MAX_SECTIONS or names_index >= max(count, 1):
        raise InputError(f"ELF section table is out of range ({count} sections)")
    if end > len(data) or (count and elf["e_shentsize"] != entry.size):
        raise InputError(f"ELF section table of {count} entries does not fit the file")
    headers = [_Header(*fields) for fields in entry.iter_unpack(data[start:end])]
    if sum(header.size for header in headers if header.has_data) > 2 * len(data):
        raise InputError("ELF sections overlap")
    names = StringTable(
        _section_bytes(data, headers[names_index], "section names") if headers else b"",
        "section names",
    )
    sections = tuple(
        ElfSection(
            index,
            (name := names.at(header.name, limit=MAX_NAME, where=f"name of section {index}")),
            _TYPES.get(header.type, f"{header.type:#x}"),
            header.flags,
            header.link,
            header.info,
            header.size,
            b"" if index == 0 else _section_bytes(data, header, f"section '{name}'"),
        )
        for index, header in enumerate(headers)
    )
    return Elf(byteorder, sections, _read_symbols(sections, byteorder))


@cache
def _structs(byteorder: ByteOrder) -> ELFStructs:
    """Return pyelftools' definitions of ELF headers, which it takes a while to make."""
    structs = ELFStructs(little_endian=byteorder == "little", elfclass=64)
    structs.create_basic_structs()
    return structs


class _Header(NamedTuple):
    """``Elf64_Shdr``."""

    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int

    @property
    def has_data(self) -> bool:
        """Whether its bytes lie in the file."""
        return _TYPES.get(self.type) not in ("SHT_NULL", "SHT_NOBITS")


def _section_bytes(data: bytes, header: _Header, where: str) -> bytes:
    if not header.has_data:
        return b""
    end = header.offset + header.size
    if end > len(data):
        raise InputError(f"it ends at {end:#x}, behind the file's end", where=where)
    return data[header.offset : end]


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
    strings = StringTable(sections[table.link].data, table.name)
    symbols = []
    for index, (name, info, other, section, value, size) in enumerate(
        entry.iter_unpack(table.data)
    ):
        where = f"name of symbol {index}"
        text = strings.at(name, limit=MAX_NAME, where=where) if name else ""
        symbols.append(Symbol(index, text, info & 15, info >> 4, other & 3, section, value, size))
    return tuple(symbols)
