"""Small ELF files of programs, for what looks functions up in them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")


def program_elf(
    names: Sequence[str], *, shared: str = "", segments: int = 1, tables: int = 1
) -> bytes:
    """Return an x86-64 program with functions of 16 bytes from 0x1000 on.

    Args:
        names: their names.
        shared: the only string of the string table: each name is an end of it.
        segments: PT_LOAD headers, all the same.
        tables: section headers of the one symbol table.
    """
    strings, symbols = bytearray(1), bytearray(_SYMBOL.size)
    if shared:
        strings += shared.encode() + b"\0"
    for number, name in enumerate(names):
        start = 1 + len(shared) - len(name) if shared else len(strings)
        if not shared:
            strings += name.encode() + b"\0"
        symbols += _SYMBOL.pack(start, 0x12, 0, 1, 0x1000 + 16 * number, 16)
    load = _SEGMENT.pack(1, 5, 0x1000, 0x1000, 0x1000, 0x100000, 0x100000, 0x1000) * segments
    symbols_at = _HEADER.size + len(load)
    strings_at = symbols_at + len(symbols)
    table = _SECTION.pack(0, 2, 0, 0, symbols_at, len(symbols), 1, 0, 8, _SYMBOL.size)
    strtab = _SECTION.pack(0, 3, 0, 0, strings_at, len(strings), 0, 0, 1, 0)
    sections = bytes(_SECTION.size), strtab, table * tables
    header = _HEADER.pack(
        *(b"\x7fELF\x02\x01\x01", 2, 62, 1, 0x1000, _HEADER.size, strings_at + len(strings), 0),
        *(_HEADER.size, _SEGMENT.size, segments, _SECTION.size, 2 + tables, 1),
    )
    return header + load + bytes(symbols) + bytes(strings) + b"".join(sections)
