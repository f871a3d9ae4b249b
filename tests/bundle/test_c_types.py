"""Variables of global data are declared in C so that they lie where the section has them."""

from __future__ import annotations

import pytest

from bpfseal.btf.btf import Btf
from bpfseal.btf.builder import BtfBuilder
from bpfseal.btf.kinds import Kind, Linkage
from bpfseal.bundle.c_types import declare, is_identifier, section_variables
from bpfseal.errors import InputError
from support.btf_writer import BtfWriter


def btf_of(writer: BtfBuilder) -> Btf:
    return Btf.from_bytes(writer.encode())


def declared(writer: BtfBuilder, type_id: int, name: str = "x") -> str:
    return declare(btf_of(writer), type_id, name)


@pytest.mark.parametrize(
    ("name", "size", "encoding", "expected"),
    [
        ("int", 4, 1, "int x"),
        ("unsigned long long", 8, 0, "unsigned long long x"),
        ("long unsigned int", 8, 0, "long unsigned int x"),
        ("char", 1, 1, "char x"),
        ("_Bool", 1, 4, "bool x"),
        ("odd", 2, 0, "__u16 x"),
        ("odd", 8, 1, "__s64 x"),
        ("__int128", 16, 1, "unsigned char x[16]"),
        ("boolean", 4, 4, "unsigned char x[4]"),
    ],
)
def test_integers(name: str, size: int, encoding: int, expected: str) -> None:
    writer = BtfWriter()
    assert declared(writer, writer.add_encoded_int(name, size, encoding)) == expected


def test_typedefs_and_modifiers_become_what_they_stand_for() -> None:
    writer = BtfWriter()
    const = writer.add_modifier(Kind.CONST, writer.add_int("int", 4, signed=True))
    typedef = writer.add_typedef("pid_t", writer.add_modifier(Kind.VOLATILE, const))
    assert declared(writer, typedef) == "int x"


def test_arrays_pointers_enums_and_floats() -> None:
    writer = BtfWriter()
    char = writer.add_int("char", 1, signed=True)
    rows = writer.add_array(writer.add_array(char, 4, char), 3, char)
    assert declared(writer, rows) == "char x[3][4]"
    pointer = writer.add_ptr(writer.add_ptr(0))
    assert declared(writer, pointer) == "void *x"
    assert declared(writer, writer.add_array(pointer, 2, char)) == "void *x[2]"
    assert declared(writer, writer.add_enum("e", {"A": 1})) == "unsigned int x"
    assert declared(writer, writer.add_raw(Kind.FLOAT, 8, name="double")) == "double x"


def test_named_structs_are_named_and_unnamed_ones_are_printed() -> None:
    writer = BtfWriter()
    number = writer.add_int("int", 4, signed=True)
    named = writer.add_struct("hist", 8, [("slots", number, 0)])
    assert declared(writer, writer.add_array(named, 5, number)) == "struct hist x[5]"
    unnamed = writer.add_struct("", 16, [("a", number, 0), ("b", named, 64)])
    assert declared(writer, unnamed) == "struct { int a; char __pad1[4]; struct hist b; } x"
    tail = writer.add_struct("", 8, [("a", number, 0)])
    assert declared(writer, tail) == "struct { int a; char __pad1[4]; } x"


def test_a_type_that_is_too_large_to_print_is_refused() -> None:
    writer = BtfWriter()
    inner = writer.add_int("int", 4, signed=True)
    for _ in range(14):  # 2 ** 14 members in all
        inner = writer.add_struct("", 8, [("a", inner, 0), ("b", inner, 32)])
    with pytest.raises(InputError, match="more than 4096 members"):
        declared(writer, inner)


def test_a_type_that_is_nested_too_deeply_is_refused() -> None:
    writer = BtfWriter()
    inner = writer.add_int("int", 4, signed=True)
    for _ in range(20):
        inner = writer.add_struct("", 4, [("a", inner, 0)])
    with pytest.raises(InputError, match="nested too deeply"):
        declared(writer, inner)


def test_gaps_are_padded_and_static_variables_are_hidden() -> None:
    writer = BtfWriter()
    number = writer.add_int("int", 4, signed=True)
    first = writer.add_var("first", number, Linkage.GLOBAL)
    hidden = writer.add_var("hidden", number, Linkage.STATIC)
    last = writer.add_var("last", number, Linkage.GLOBAL)
    section = writer.add_datasec(".data", [(last, 12, 4), (hidden, 4, 4), (first, 0, 4)])
    found = section_variables(btf_of(writer), section, 16)
    assert [(entry.declaration, entry.offset, entry.size) for entry in found] == [
        ("int first", 0, 4),
        ("char __pad1[8]", 4, 8),
        ("int last", 12, 4),
    ]


@pytest.mark.parametrize(
    ("places", "names", "reason"),
    [
        (((0, 4), (2, 4)), ("a", "b"), "'b' is misplaced"),
        (((0, 4), (8, 4)), ("a", "b"), "'b' is misplaced"),
        (((0, 8),), ("a",), "another size than its type"),
        (((0, 4), (4, 4)), ("a", "a"), "'a' cannot be declared in C"),
        (((0, 4),), ("a; evil",), "cannot be declared in C"),
        (((0, 4),), ("while",), "cannot be declared in C"),
    ],
)
def test_variables_that_cannot_be_are_refused(
    places: tuple[tuple[int, int], ...], names: tuple[str, ...], reason: str
) -> None:
    writer = BtfWriter()
    number = writer.add_int("int", 4, signed=True)
    ids = [writer.add_var(name, number, Linkage.GLOBAL) for name in names]
    entries = [(var, *place) for var, place in zip(ids, places, strict=True)]
    section = writer.add_datasec(".data", entries)
    with pytest.raises(InputError, match=reason):
        section_variables(btf_of(writer), section, 10)


@pytest.mark.parametrize("name", ["a", "_1", "exectrace_bpf"])
def test_identifiers(name: str) -> None:
    assert is_identifier(name)


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a\n", "int", "while", "ä", "x;y"])
def test_what_is_no_identifier(name: str) -> None:
    assert not is_identifier(name)


@pytest.mark.parametrize(("count", "fits"), [(16, True), (17, False)])
def test_variables_of_a_section_share_no_more_than_so_many_members(count: int, fits: bool) -> None:
    """Any number of variables can have one type, and each prints all of its members."""
    writer = BtfWriter()
    byte = writer.add_int("char", 1)
    members = [(f"m{number}", byte, 8 * number) for number in range(4096)]
    struct = writer.add_struct("", 4096, members)
    entries = [
        (writer.add_var(f"v{number}", struct), 4096 * number, 4096) for number in range(count)
    ]
    section = writer.add_datasec(".bss", entries, 4096 * count)
    if fits:
        assert len(section_variables(btf_of(writer), section, 4096 * count)) == count
    else:
        with pytest.raises(InputError, match="more than 65536 members in a section"):
            section_variables(btf_of(writer), section, 4096 * count)


@pytest.mark.parametrize(("length", "fits"), [(511, True), (512, False)])
def test_a_name_is_no_longer_than_a_kernel_takes(length: int, fits: bool) -> None:
    assert is_identifier("x" * length) == fits
