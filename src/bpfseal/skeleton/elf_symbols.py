"""Where the functions of a program or library lie in its file: what a uprobe is put on.

Only the standard library is needed, so this works where a skeleton is loaded.

Example:
    >>> function_offsets(Path("/bin/sh"), "main")  # doctest: +SKIP
    {'main': 18432}
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, NamedTuple

from bpfseal.errors import InputError
from bpfseal.input_file import read_file

_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_IDENT: Final = b"\x7fELF\x02\x01"
"""The magic, ELFCLASS64, ELFDATA2LSB."""

_MAX_SIZE: Final = 1 << 30
"""Bytes of the largest program or library that is looked into."""

_PT_LOAD: Final = 1
_SHT_SYMTAB: Final = 2
_SHT_DYNSYM: Final = 11
_STT_FUNC: Final = 2

_MAX_SEGMENTS: Final = 256
"""PT_LOAD segments; linkers make fewer than ten."""

_SHARING: Final = 8
"""How often each byte of the file may belong to a symbol or a name: linkers let a name be the end
of another one."""


class _Section(NamedTuple):
    """What is read of a section header."""

    kind: int
    offset: int
    size: int
    link: int


def function_offsets(path: Path, pattern: str) -> dict[str, int]:
    """Return the offsets of the functions whose name matches a pattern, in bytes into the file.

    Args:
        path: a 64-bit little-endian ELF file.
        pattern: a name, or one with ``*``, ``?`` and ``[...]``.

    Raises:
        InputError: it cannot be read or is no such file.
    """
    try:
        data = read_file(path, limit=_MAX_SIZE, only_regular=True)
        if data[:6] != _IDENT:
            raise InputError("no 64-bit little-endian ELF file", where=str(path))
        return _offsets(data, pattern)
    except (struct.error, IndexError, ValueError, OverflowError):
        raise InputError("a malformed ELF file", where=str(path)) from None


def _offsets(data: bytes, pattern: str) -> dict[str, int]:
    _, _, _, _, _, phoff, shoff, _, _, phsize, phnum, shsize, shnum, _ = _HEADER.unpack_from(data)
    if (phnum and phsize != _SEGMENT.size) or (shnum and shsize != _SECTION.size):
        raise ValueError
    headers = [_SEGMENT.unpack_from(data, phoff + phsize * number) for number in range(phnum)]
    segments = [header for header in headers if header[0] == _PT_LOAD]
    if len(segments) > _MAX_SEGMENTS:
        raise ValueError
    rows = [_SECTION.unpack_from(data, shoff + shsize * number) for number in range(shnum)]
    sections = [_Section(row[1], row[4], row[5], row[6]) for row in rows]
    found = {}
    for name, address in _functions(data, sections):
        for _, _, offset, start, _, size, _, _ in segments:
            if start <= address < start + size:
                if fnmatchcase(name, pattern):
                    found[name] = address - start + offset
                break
    return found


def _functions(data: bytes, sections: list[_Section]) -> Iterator[tuple[str, int]]:
    """Yield name and address of every function that is defined.

    Tables and names may not share so many bytes that the work is more than the file is worth.

    Raises:
        ValueError: they do, or a name has no end.
    """
    left = _SHARING * len(data)
    for table in sections:
        if table.kind not in (_SHT_SYMTAB, _SHT_DYNSYM):
            continue
        names = sections[table.link]
        left -= table.size
        if left < 0:
            raise ValueError
        symbols = data[table.offset : table.offset + table.size]
        whole = len(symbols) // _SYMBOL.size * _SYMBOL.size
        for name, info, _, section, address, _ in _SYMBOL.iter_unpack(symbols[:whole]):
            if info & 0xF == _STT_FUNC and section:
                start = names.offset + name
                end = data.index(b"\0", start)
                left -= end - start
                if left < 0:
                    raise ValueError
                yield data[start:end].decode("utf-8", "surrogateescape"), address
