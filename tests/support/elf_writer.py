"""Write 64-bit BPF ELF files: sections, symbols and relocations, in either byte order.

Example:
    >>> elf = ElfWriter()
    >>> code = elf.add_section("xdp", bytes(8), flags=SHF_ALLOC | SHF_EXECINSTR)
    >>> _ = elf.add_symbol("main", code, size=8, type=STT_FUNC)
    >>> elf.encode()[:4]
    b'\\x7fELF'
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

from bpfseal.bpf.insn import ByteOrder

SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS, SHT_REL = 1, 2, 3, 8, 9
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION = 0, 1, 2, 3
STV_DEFAULT, STV_INTERNAL, STV_HIDDEN = 0, 1, 2

EM_BPF = 247
EHDR_SIZE, SHDR_SIZE, SYM_SIZE = 64, 64, 24


@dataclass(slots=True)
class Section:
    """A section to write; `size` is that of its data unless it is given."""

    name: str
    type: int = SHT_PROGBITS
    flags: int = 0
    data: bytes | bytearray = b""
    link: int = 0
    info: int = 0
    entry_size: int = 0
    size: int | None = None


@dataclass(slots=True)
class Symbol:
    """A symbol to write."""

    name: str
    section: int
    value: int
    size: int
    type: int
    bind: int
    visibility: int


@dataclass
class ElfWriter:
    """An object file in the making.

    Attributes:
        byteorder: the byte order of the file.
        machine: ``e_machine``.
        has_symbols: a symbol table is written.
        shares_names: names that are equal, or end in the same way, share one place in their table.
        relocation_copies: how often each relocation section is written.
    """

    byteorder: ByteOrder = "little"
    machine: int = EM_BPF
    has_symbols: bool = True
    shares_names: bool = False
    relocation_copies: int = 1
    sections: list[Section] = field(default_factory=lambda: [Section("", 0)])
    symbols: list[Symbol] = field(default_factory=list)
    relocations: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def add_section(
        self,
        name: str,
        data: bytes = b"",
        *,
        type: int = SHT_PROGBITS,  # noqa: A002 (the field's name)
        flags: int = 0,
        size: int | None = None,
    ) -> int:
        """Add a section and return its index."""
        self.sections.append(Section(name, type, flags, data, size=size))
        return len(self.sections) - 1

    def add_symbol(
        self,
        name: str,
        section: int,
        value: int = 0,
        size: int = 0,
        *,
        type: int = STT_OBJECT,  # noqa: A002 (the field's name)
        bind: int = STB_GLOBAL,
        visibility: int = STV_DEFAULT,
    ) -> int:
        """Add a symbol and return its index; index 0 is the null symbol."""
        self.symbols.append(Symbol(name, section, value, size, type, bind, visibility))
        return len(self.symbols)

    def add_relocation(self, section: int, offset: int, symbol: int) -> None:
        """Let `offset` in a section refer to a symbol."""
        self.relocations.setdefault(section, []).append((offset, symbol))

    def encode(self) -> bytes:
        """Return the file."""
        sign = "<" if self.byteorder == "little" else ">"
        sections = list(self.sections)
        symtab = len(sections)
        if self.has_symbols:
            sections += self._symbol_sections(sign, symtab)
        for target, entries in self.relocations.items():
            data = b"".join(struct.pack(f"{sign}QQ", at, sym << 32 | 1) for at, sym in entries)
            name = f".rel{sections[target].name}"
            copy = Section(name, SHT_REL, 0, data, symtab, target, 16)
            sections += [replace(copy) for _ in range(self.relocation_copies)]
        names = Section(".shstrtab", SHT_STRTAB)
        sections.append(names)
        names.data, offsets = self._string_table([section.name for section in sections])
        body = bytearray()
        headers = bytearray()
        for section, name_offset in zip(sections, offsets, strict=True):
            body += bytes(-len(body) % 8)
            offset = EHDR_SIZE + len(body) if section.type else 0
            body += section.data
            size = len(section.data) if section.size is None else section.size
            headers += struct.pack(
                f"{sign}IIQQQQIIQQ",
                name_offset,
                section.type,
                section.flags,
                0,
                offset,
                size,
                section.link,
                section.info,
                8 if section.type else 0,
                section.entry_size,
            )
        body += bytes(-len(body) % 8)
        ident = b"\x7fELF" + bytes([2, 1 if self.byteorder == "little" else 2, 1]) + bytes(9)
        header = struct.pack(
            f"{sign}HHIQQQIHHHHHH",
            1,
            self.machine,
            1,
            0,
            0,
            EHDR_SIZE + len(body),
            0,
            EHDR_SIZE,
            0,
            0,
            SHDR_SIZE,
            len(sections),
            len(sections) - 1,
        )
        return b"".join((ident, header, body, headers))

    def _symbol_sections(self, sign: str, symtab: int) -> tuple[Section, Section]:
        strings, offsets = self._string_table([symbol.name for symbol in self.symbols])
        table = bytes(SYM_SIZE) + b"".join(
            struct.pack(
                f"{sign}IBBHQQ",
                name,
                symbol.bind << 4 | symbol.type,
                symbol.visibility,
                symbol.section,
                symbol.value,
                symbol.size,
            )
            for symbol, name in zip(self.symbols, offsets, strict=True)
        )
        return (
            Section(".symtab", SHT_SYMTAB, 0, table, symtab + 1, 1, SYM_SIZE),
            Section(".strtab", SHT_STRTAB, 0, strings),
        )

    def _string_table(self, names: list[str]) -> tuple[bytes, list[int]]:
        """Return a string table and the offset of each name in it."""
        table = bytearray(1)
        offsets = []
        known = {"": 0}
        for name in names:
            if name not in known or not self.shares_names:
                entry = name.encode() + b"\0" if name else b""
                found = table.find(entry) if self.shares_names else -1
                known[name] = found if found >= 0 else len(table) if name else 0
                if found < 0:
                    table += entry
            offsets.append(known[name])
        return bytes(table), offsets
