"""Functions: entry programs by section, subprograms in .text."""

from __future__ import annotations

import pytest

from bpfseal.bpf.insn import decode_insns
from bpfseal.errors import InputError, UnsupportedError
from bpfseal.object import object_name, read_object
from support.elf_writer import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    STB_LOCAL,
    STB_WEAK,
    STT_FUNC,
    STV_HIDDEN,
    STV_INTERNAL,
)
from support.object_writer import RETURN_0, ObjectWriter


def test_programs_come_by_section_and_position() -> None:
    writer = ObjectWriter()
    writer.add_program("xdp", "second")
    writer.add_program("xdp", "third")
    writer.add_subprogram("helper")
    writer.add_program("tc", "fourth")
    obj = writer.read()
    assert [f.name for f in obj.functions] == ["second", "third", "helper", "fourth"]
    assert [f.name for f in obj.programs] == ["second", "third", "fourth"]
    assert [f.section_insn for f in obj.functions] == [0, 2, 0, 0]


def test_a_function_holds_its_own_insns_only() -> None:
    writer = ObjectWriter("big")
    writer.add_program("xdp", "first")
    writer.add_program("xdp", "second", (RETURN_0[1],))
    first, second = writer.read().functions
    assert decode_insns(first.insns, "big") == list(RETURN_0)
    assert decode_insns(second.insns, "big") == [RETURN_0[1]]


def test_a_question_mark_means_not_to_load_it() -> None:
    writer = ObjectWriter()
    writer.add_program("?kprobe/x", "optional")
    writer.add_program("kprobe/x", "needed")
    obj = writer.read()
    assert [(f.name, f.section, f.autoload) for f in obj.functions] == [
        ("optional", "kprobe/x", False),
        ("needed", "kprobe/x", True),
    ]
    assert [f.elf_section for f in obj.functions] == ["?kprobe/x", "kprobe/x"]
    assert [f.name for f in obj.programs] == ["needed"]


def test_a_static_entry_program_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_program("xdp", "main", bind=STB_LOCAL)
    with pytest.raises(UnsupportedError, match="an entry program cannot be static"):
        writer.read()


@pytest.mark.parametrize(
    ("bind", "visibility", "is_global", "is_hidden"),
    [
        (STB_LOCAL, 0, False, False),
        (STB_WEAK, 0, True, False),
        (1, 0, True, False),
        (1, STV_HIDDEN, True, True),
        (1, STV_INTERNAL, True, True),
        (STB_LOCAL, STV_HIDDEN, False, False),
    ],
)
def test_linkage_of_subprograms_is_that_of_their_symbol(
    bind: int, visibility: int, is_global: bool, is_hidden: bool
) -> None:
    writer = ObjectWriter()
    writer.add_subprogram("helper", bind=bind, visibility=visibility)
    (function,) = writer.read().functions
    assert function.is_subprogram
    assert (function.is_global, function.is_hidden) == (is_global, is_hidden)


@pytest.mark.parametrize(("value", "size"), [(0, 0), (0, 4), (4, 8), (0, 12)])
def test_a_function_of_part_of_an_insn_is_refused(value: int, size: int) -> None:
    writer = ObjectWriter()
    index, _ = writer.add_program("xdp", "main")
    writer.elf.add_symbol("broken", index, value, size, type=STT_FUNC)
    with pytest.raises(InputError, match="does not hold whole instructions"):
        writer.read()


@pytest.mark.parametrize(
    ("name", "value", "size", "message"),
    [
        ("broken", 8, 16, "reaches behind its section"),
        ("other", 0, 8, "'other' begins where 'main' does"),
    ],
)
def test_a_function_that_leaves_its_section_or_shares_a_start_is_refused(
    name: str, value: int, size: int, message: str
) -> None:
    writer = ObjectWriter()
    index, _ = writer.add_program("xdp", "main")
    writer.elf.add_symbol(name, index, value, size, type=STT_FUNC)
    with pytest.raises(InputError, match=message):
        writer.read()


def test_code_without_a_function_symbol_is_no_program() -> None:
    writer = ObjectWriter()
    writer.elf.add_section("xdp", bytes(16), flags=SHF_ALLOC | SHF_EXECINSTR)
    assert writer.read().functions == ()


def test_function_at_finds_the_function_that_holds_an_insn() -> None:
    writer = ObjectWriter()
    text, _ = writer.add_subprogram("a")
    writer.add_subprogram("b")
    obj = writer.read()
    names = [f.name if (f := obj.function_at(text, insn)) else None for insn in range(-1, 5)]
    assert names == [None, "a", "a", "b", "b", None]
    assert obj.function_at(text - 1, 0) is None
    assert obj.function_at(text + 1, 0) is None


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("execsnoop.bpf.o", "execsnoop_bpf"),
        ("dir/a-b.o", "a_b"),
        ("plain", "plain"),
        ("é.o", "_"),
        ("x" * 80 + ".o", "x" * 63),
    ],
)
def test_the_name_of_an_object_is_an_identifier(file_name: str, name: str) -> None:
    assert object_name(file_name) == name


@pytest.mark.parametrize(
    ("section", "license_"),
    [(b"GPL\0", "GPL"), (b"Dual BSD/GPL\0junk", "Dual BSD/GPL"), (b"x" * 70, "x" * 63), (b"", "")],
)
def test_the_licence_is_the_text_of_its_section(section: bytes, license_: str) -> None:
    writer = ObjectWriter(license="")
    writer.elf.add_section("license", section)
    assert writer.read().license == license_


def test_without_a_section_the_licence_is_empty() -> None:
    assert ObjectWriter(license="").read().license == ""


def test_errors_name_the_file() -> None:
    with pytest.raises(InputError) as caught:
        read_object(b"", "some.bpf.o")
    assert str(caught.value) == "some.bpf.o: not an ELF file"
