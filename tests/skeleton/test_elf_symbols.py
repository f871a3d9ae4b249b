"""Symbol tables of programs that nobody vouches for: the work is bounded by the file."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from bpfseal.errors import InputError
from bpfseal.skeleton.elf_symbols import function_offsets
from support.programs import program_elf


def test_offsets_of_functions_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(program_elf(["main", "helper"]))
    assert function_offsets(path, "*") == {"main": 0x1000, "helper": 0x1010}
    assert function_offsets(path, "h*") == {"helper": 0x1010}


def refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(InputError, match="a malformed ELF file"):
        function_offsets(path, "*")


def test_headers_of_size_0_do_not_make_many_of_one(tmp_path: Path) -> None:
    data = bytearray(program_elf(["main"]))
    struct.pack_into("<HH", data, 0x3A, 0, 0xFFFF)  # e_shentsize, e_shnum
    refused(tmp_path / "sections", bytes(data))
    data = bytearray(program_elf(["main"]))
    struct.pack_into("<HH", data, 0x36, 0, 0xFFFF)  # e_phentsize, e_phnum
    refused(tmp_path / "segments", bytes(data))


def test_names_that_share_their_bytes_are_bounded(tmp_path: Path) -> None:
    names = ["x" * size for size in range(1, 400)]
    refused(tmp_path / "names", program_elf(names, shared="x" * 400))


def test_tables_that_share_their_bytes_are_bounded(tmp_path: Path) -> None:
    refused(tmp_path / "tables", program_elf(["main"] * 50, tables=100))


def test_many_segments_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "segments", program_elf(["main"], segments=300))
