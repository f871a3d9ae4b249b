"""ELF files that are no BPF objects, or are cut or damaged."""

from __future__ import annotations

import struct

import pytest

from bpfseal.bpf.insn import ByteOrder
from bpfseal.errors import InputError
from bpfseal.object import read_object
from bpfseal.object.elf import read_elf
from support.elf_writer import (
    EHDR_SIZE,
    SHDR_SIZE,
    SHT_SYMTAB,
    STB_LOCAL,
    STB_WEAK,
    STT_FUNC,
    STT_NOTYPE,
    STV_HIDDEN,
    ElfWriter,
)
from support.files import EXAMPLE
from support.object_writer import ObjectWriter

SHOFF, SHENTSIZE, SHNUM, SHSTRNDX = 40, 58, 60, 62
"""Offsets of fields of the ELF header."""


def sample() -> bytes:
    writer = ObjectWriter()
    writer.add_program("xdp", "main")
    return writer.encode()


def changed(raw: bytes, offset: int, layout: str, value: int) -> bytes:
    damaged = bytearray(raw)
    struct.pack_into(layout, damaged, offset, value)
    return bytes(damaged)


def header_of(raw: bytes, index: int) -> int:
    """Return where the header of a section begins."""
    (start,) = struct.unpack_from("<Q", raw, SHOFF)
    return int(start) + SHDR_SIZE * index


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_sections_and_symbols_are_read_in_both_byte_orders(byteorder: ByteOrder) -> None:
    writer = ElfWriter(byteorder)
    code = writer.add_section("xdp", b"12345678", flags=6)
    writer.add_symbol("f", code, 8, 16, type=STT_FUNC, bind=STB_WEAK, visibility=STV_HIDDEN)
    elf = read_elf(writer.encode())
    section = elf.section("xdp")
    assert elf.byteorder == byteorder
    assert section
    assert (section.index, section.data, section.size, section.is_code) == (1, b"12345678", 8, True)
    symbol = elf.symbols[1]
    assert (symbol.name, symbol.section, symbol.value, symbol.size) == ("f", 1, 8, 16)
    assert (symbol.type, symbol.bind, symbol.is_hidden) == (STT_FUNC, STB_WEAK, True)
    assert elf.section("other") is None


@pytest.mark.parametrize(
    ("section", "type_", "bind", "is_extern"),
    [
        (0, STT_NOTYPE, 1, True),
        (0, STT_NOTYPE, STB_WEAK, True),
        (1, STT_NOTYPE, 1, False),
        (0, STT_FUNC, 1, False),
        (0, STT_NOTYPE, STB_LOCAL, False),
    ],
)
def test_an_extern_is_undefined_untyped_and_not_local(
    section: int, type_: int, bind: int, is_extern: bool
) -> None:
    writer = ElfWriter()
    writer.add_section("x")
    writer.add_symbol("s", section, type=type_, bind=bind)
    assert read_elf(writer.encode()).symbols[1].is_extern == is_extern


def test_an_object_without_a_machine_is_taken() -> None:
    assert read_elf(ElfWriter(machine=0).encode()).symbols


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not an ELF file"),
        (b"\x7fELG" + bytes(60), "not an ELF file"),
        (b"#!/bin/sh\n", "not an ELF file"),
        (b"\x7fELF", "ELF headers cannot be read"),
        (b"\x7fELF" + bytes(60), "ELF headers cannot be read"),
        (ElfWriter(machine=62).encode(), "ELF file is for EM_X86_64, not for EM_BPF"),
        (ElfWriter(machine=0x1234).encode(), "ELF file is for 4660, not for EM_BPF"),
        (ElfWriter(has_symbols=False).encode(), "no symbol tables .is the object stripped"),
        (changed(sample(), SHSTRNDX, "<H", 99), "section table is out of range"),
        (changed(sample(), SHNUM, "<H", 0xFF00), "section table is out of range"),
        (changed(sample(), SHNUM, "<H", 0x7F00), "does not fit the file"),
        (changed(sample(), SHOFF, "<Q", 1 << 63), "does not fit the file"),
        (changed(sample(), SHOFF, "<Q", len(sample())), "does not fit the file"),
        (changed(sample(), SHOFF, "<Q", 0), "section table is out of range"),
    ],
)
def test_what_is_no_bpf_object_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_elf(raw)


def test_a_32_bit_file_is_refused() -> None:
    ident = b"\x7fELF\1\1\1" + bytes(9)
    header = struct.pack("<HHIIIIIHHHHHH", 1, 247, 1, 0, 0, 52, 0, 52, 0, 0, 40, 1, 0)
    with pytest.raises(InputError, match="ELF file is not 64-bit"):
        read_elf(ident + header + bytes(40))


def test_two_symbol_tables_are_refused() -> None:
    writer = ElfWriter()
    writer.add_section(".symtab2", type=SHT_SYMTAB)
    with pytest.raises(InputError, match="2 symbol tables"):
        read_elf(writer.encode())


@pytest.mark.parametrize(
    ("section", "field", "layout", "value", "message"),
    [
        (".symtab", 40, "<I", 99, "its string table is missing"),
        (".symtab", 40, "<I", 1, "its string table is missing"),
        (".symtab", 32, "<Q", 25, "its size is no multiple of 24"),
        ("xdp", 24, "<Q", 1 << 40, "section 'xdp': it ends at 0x10000000010, behind"),
        ("xdp", 32, "<Q", 1 << 63, "ELF sections overlap"),
        ("xdp", 0, "<I", 4096, "name of section 2: it lies outside its string table"),
        (".shstrtab", 24, "<Q", 1 << 40, "section names: it ends at"),
    ],
)
def test_a_damaged_section_header_is_refused(
    section: str, field: int, layout: str, value: int, message: str
) -> None:
    raw = sample()
    elf = read_elf(raw)
    found = elf.section(section)
    assert found
    with pytest.raises(InputError, match=message):
        read_elf(changed(raw, header_of(raw, found.index) + field, layout, value))


def test_a_symbol_name_outside_the_strings_is_refused() -> None:
    raw = sample()
    table = read_elf(raw).section(".symtab")
    assert table
    (start,) = struct.unpack_from("<Q", raw, header_of(raw, table.index) + 24)
    with pytest.raises(InputError, match="name of symbol 1: it lies outside"):
        read_elf(changed(raw, start + 24, "<I", 4096))


def test_names_that_are_no_utf8_are_escaped() -> None:
    raw = sample().replace(b"main", b"ma\xffn")
    assert [f.name for f in read_object(raw, "x.o").functions] == ["ma\\xffn"]


def test_btf_of_the_other_byte_order_is_refused() -> None:
    writer = ObjectWriter("big")
    writer.has_btf = False
    writer.elf.add_section(".BTF", writer.btf.encode("little"))
    with pytest.raises(InputError, match="its byte order is not the object's"):
        writer.read()


def test_malformed_btf_is_refused_with_its_section() -> None:
    writer = ObjectWriter()
    writer.has_btf = False
    writer.elf.add_section(".BTF", bytes(40))
    with pytest.raises(InputError, match=r"\.BTF: no BTF magic"):
        writer.read()


EXAMPLE_BYTES = EXAMPLE.read_bytes()


@pytest.mark.parametrize("start", range(0, 16 * 16, 16))
def test_an_object_cut_at_any_16th_byte_is_refused(start: int) -> None:
    for size in range(start, len(EXAMPLE_BYTES), 256):
        with pytest.raises(InputError):
            read_object(EXAMPLE_BYTES[:size], "cut.o")


def test_every_cut_in_the_header_is_refused() -> None:
    for size in range(EHDR_SIZE):
        with pytest.raises(InputError):
            read_object(EXAMPLE_BYTES[:size], "cut.o")


def test_sections_that_share_their_bytes_many_times_are_refused() -> None:
    """Each section keeps its bytes: a small file must not become a large object."""
    writer = ElfWriter()
    writer.add_section(".data", data=bytes(4096))
    raw = bytearray(writer.encode())
    (table,) = struct.unpack_from("<Q", raw, SHOFF)
    (count,) = struct.unpack_from("<H", raw, SHNUM)
    last = raw[table + 64 * (count - 1) : table + 64 * count]
    whole = bytearray(last)
    struct.pack_into("<IIQQQQ", whole, 0, 0, 1, 0, 0, 0, len(raw))
    raw[table + 64 * count :] = whole * 8
    struct.pack_into("<H", raw, SHNUM, count + 8)
    with pytest.raises(InputError, match="ELF sections overlap"):
        read_elf(bytes(raw))


def test_section_headers_of_another_size_are_refused() -> None:
    raw = changed(sample(), SHENTSIZE, "<H", 0)
    with pytest.raises(InputError, match="does not fit the file"):
        read_elf(raw)
