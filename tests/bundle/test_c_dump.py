"""C declarations are written as libbpf prints them, or not at all."""

from __future__ import annotations

import pytest

from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import Kind, Linkage
from bpfseal.bundle.c_dump import DIALECTS, CDump, data_sections
from bpfseal.bundle.c_layout import paddings
from bpfseal.errors import InputError
from support.btf_writer import BtfWriter

NEW, OLD = DIALECTS


class TooMuchError(Exception):
    """More was written than anybody asked for."""


def members(writer: BtfWriter, type_id: int, name: str = "x", size: int = 4) -> str:
    """Return the members of a section with one variable."""
    variable = writer.add_var(name, type_id)
    section = writer.add_datasec(".bss", [(variable, 0, size)], size)
    btf = Btf.from_bytes(writer.encode())
    parts: list[str] = []

    def put(text: str) -> None:
        parts.append(text)
        if len(parts) > 5000:
            raise TooMuchError

    CDump(btf, NEW, put).section(btf.type_by_id(section))
    return "".join(parts)


@pytest.mark.parametrize(
    ("at", "target", "alignment", "in_bitfield", "expected"),
    [
        (8, 32, 4, False, []),
        (8, 64, 4, False, ["long: 0"]),
        (32, 128, 4, False, ["long: 64"]),
        (3, 8, 1, True, ["char: 5"]),
        (3, 5, 1, True, ["char: 2"]),
        (64, 64 + 72, 1, False, ["long: 64", "char: 8"]),
        (64, 64, 8, False, []),
        (8, 24, 1, False, ["short: 0", "char: 8"]),
    ],
)
def test_paddings(
    at: int, target: int, alignment: int, in_bitfield: bool, expected: list[str]
) -> None:
    """``btf_dump_emit_bit_padding`` in tools/lib/bpf/btf_dump.c."""
    assert list(paddings(at, target, alignment=alignment, in_bitfield=in_bitfield)) == expected


@pytest.mark.parametrize(
    "name",
    [
        "friend",
        "class",
        "__extension__",
        "__typeof__",
        "int x;",
        "a b",
        "a(",
        "",
        "1",
        "struct",
        "/*",
    ],
)
def test_a_type_has_a_name_that_all_compilers_take_for_one(name: str) -> None:
    writer = BtfWriter()
    number = writer.add_int("int", 4, signed=True)
    for type_id in (
        writer.add_typedef(name, number),
        writer.add_int(name, 4),
        writer.add_raw(Kind.FLOAT, 4, name=name),
    ):
        with pytest.raises(InputError, match="cannot be named"):
            members(writer, type_id)


@pytest.mark.parametrize("name", ["bool", "wchar_t", "final", "pid_t", "__builtin_va_list"])
def test_names_of_types_that_are_taken(name: str) -> None:
    writer = BtfWriter()
    number = writer.add_int("int", 4, signed=True)
    assert members(writer, writer.add_typedef(name, number)) == f"\t\t{name} x;\n"


@pytest.mark.parametrize("name", ["int", "__attribute__", "a b", "f()", "x; int y", "x[", "\\"])
def test_a_member_has_a_name(name: str) -> None:
    writer = BtfWriter()
    number = writer.add_int("int", 4, signed=True)
    with pytest.raises(InputError, match="cannot be declared"):
        members(writer, writer.add_struct("", 4, [(name, number, 0)]))


@pytest.mark.parametrize("name", ["int", "__attribute__", "1x"])
def test_a_variable_has_a_name(name: str) -> None:
    writer = BtfWriter()
    with pytest.raises(InputError, match="cannot be declared"):
        members(writer, writer.add_int("int", 4, signed=True), name)


@pytest.mark.parametrize("name", ["", "a b", "A = 1, B"])
def test_an_enumerator_has_a_name(name: str) -> None:
    writer = BtfWriter()
    with pytest.raises(InputError):
        members(writer, writer.add_enum("", {name: 1}))


def test_types_within_themselves_are_refused() -> None:
    writer = BtfWriter()
    itself = len(Btf.from_bytes(writer.encode()).starts)
    with pytest.raises(InputError, match="no alignment"):
        members(writer, writer.add_struct("", 4, [("x", itself, 0)]))


def test_long_chains_are_refused() -> None:
    writer = BtfWriter()
    type_id = writer.add_int("int", 4, signed=True)
    for _ in range(100):
        type_id = writer.add_ptr(type_id)
    with pytest.raises(InputError, match="no declaration"):
        members(writer, type_id, size=8)


def test_functions_of_functions_are_refused_at_some_depth() -> None:
    writer = BtfWriter()
    type_id = writer.add_int("int", 4, signed=True)
    for _ in range(100):
        type_id = writer.add_ptr(writer.add_func_proto(0, [("x", type_id)]))
    with pytest.raises(InputError, match="nested too deeply"):
        members(writer, type_id, size=8)


def test_what_shares_its_parts_stops_where_the_sink_stops() -> None:
    """20 structs, each with the one before twice, print as a million members."""
    writer = BtfWriter()
    type_id, size = writer.add_int("char", 1, signed=True), 1
    for _ in range(20):
        type_id = writer.add_struct("", 2 * size, [("a", type_id, 0), ("b", type_id, 8 * size)])
        size *= 2
    with pytest.raises(TooMuchError):
        members(writer, type_id, size=size)


def test_variables_that_overlap_are_refused() -> None:
    writer = BtfWriter()
    number = writer.add_int("int", 4, signed=True)
    entries = [(writer.add_var("x", number), 0, 4), (writer.add_var("y", number), 2, 4)]
    section = writer.add_datasec(".data", entries, 8)
    btf = Btf.from_bytes(writer.encode())
    parts: list[str] = []
    with pytest.raises(InputError, match="misplaced"):
        CDump(btf, NEW, parts.append).section(btf.type_by_id(section))


def test_static_variables_are_not_shown_and_padding_is_counted() -> None:
    writer = BtfWriter()
    number = writer.add_int("int", 4, signed=True)
    entries = [
        (writer.add_var("hidden", number, Linkage.STATIC), 0, 4),
        (writer.add_var("first", number), 4, 4),
        (writer.add_var("gap.1", number), 16, 4),
    ]
    section = writer.add_datasec(".data", entries, 20)
    btf = Btf.from_bytes(writer.encode())
    parts: list[str] = []
    CDump(btf, NEW, parts.append).section(btf.type_by_id(section))
    assert "".join(parts) == (
        "\t\tchar __pad0[4];\n\t\tint first;\n\t\tchar __pad1[8];\n\t\tint gap_1;\n"
    )


def test_the_first_section_of_a_member_counts() -> None:
    """``find_type_for_map`` in tools/bpf/bpftool/gen.c."""
    writer = BtfWriter()
    first = writer.add_datasec(".data.a-b", [], 0)
    writer.add_datasec(".data.a_b", [], 0)
    writer.add_datasec(".maps", [], 0)
    found = data_sections(Btf.from_bytes(writer.encode()))
    assert {ident: section.id for ident, section in found.items()} == {"data_a_b": first}


def test_enums_get_a_mode_and_earlier_releases_cannot_declare_them() -> None:
    writer = BtfWriter()
    section = writer.add_datasec(
        ".bss", [(writer.add_var("x", writer.add_enum("", {"A": 1}, 1)), 0, 1)]
    )
    btf = Btf.from_bytes(writer.encode())
    parts: list[str] = []
    CDump(btf, NEW, parts.append).section(btf.type_by_id(section))
    assert "".join(parts) == "\t\tenum {\n\t\t\tA = 1,\n\t\t} __attribute__((mode(byte))) x;\n"
    with pytest.raises(InputError, match="an enum of 1 bytes"):
        CDump(btf, OLD, parts.append).section(btf.type_by_id(section))
