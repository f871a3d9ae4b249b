"""Finding types, following modifiers, sizes and alignments."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bpfseal.btf.btf import MAX_RESOLVE_DEPTH, Btf
from bpfseal.btf.kinds import MODIFIERS, Kind
from bpfseal.errors import InputError
from support.btf_writer import BtfWriter

MODIFIER_KINDS = sorted(MODIFIERS)


def parse(writer: BtfWriter) -> Btf:
    return Btf.from_bytes(writer.encode())


def test_the_lowest_id_with_a_name_is_found() -> None:
    writer = BtfWriter()
    first = writer.add_int("same", 4)
    second = writer.add_typedef("same", first)
    btf = parse(writer)
    assert btf.find("same") == first
    assert btf.find("same", Kind.TYPEDEF) == second
    assert btf.find("same", Kind.STRUCT, Kind.TYPEDEF) == second
    assert btf.find("same", Kind.FUNC) is None
    assert btf.find("other") is None


def test_types_without_a_name_are_not_found_by_the_empty_name() -> None:
    writer = BtfWriter()
    writer.add_ptr(0)
    assert parse(writer).find("") is None


def test_a_name_at_two_string_offsets_is_one_name() -> None:
    writer = BtfWriter()
    tail = writer.add_int("task", 4)
    writer.add_typedef("subtask", tail)
    other = writer.add_ptr(tail)
    writer._words[-3] = writer.string("subtask") + 3
    assert parse(writer).find("task", Kind.PTR) == other


@pytest.mark.parametrize("kind", MODIFIER_KINDS, ids=lambda kind: kind.name)
def test_each_modifier_is_skipped(kind: Kind) -> None:
    writer = BtfWriter()
    number = writer.add_int("int", 4)
    outer = writer.add_modifier(kind, writer.add_modifier(Kind.CONST, number), "name")
    assert parse(writer).skip_modifiers(outer).id == number


def test_modifiers_of_void_lead_to_void() -> None:
    writer = BtfWriter()
    const = writer.add_modifier(Kind.CONST, 0)
    assert parse(writer).skip_modifiers(const).kind is Kind.VOID


def test_modifiers_in_a_circle_are_refused() -> None:
    writer = BtfWriter()
    writer.add_modifier(Kind.CONST, 2)
    writer.add_modifier(Kind.VOLATILE, 1)
    with pytest.raises(InputError, match="circle"):
        parse(writer).skip_modifiers(1)


def chain(length: int) -> tuple[BtfWriter, int]:
    """An INT behind `length` modifiers."""
    writer = BtfWriter()
    type_id = writer.add_int("int", 4)
    for _ in range(length):
        type_id = writer.add_modifier(Kind.CONST, type_id)
    return writer, type_id


@pytest.mark.parametrize("measure", [Btf.resolve_size, Btf.align_of])
def test_modifiers_are_followed_as_far_as_the_kernel_does(
    measure: Callable[[Btf, int], int],
) -> None:
    writer, type_id = chain(MAX_RESOLVE_DEPTH - 1)
    assert measure(parse(writer), type_id) == 4
    writer, type_id = chain(MAX_RESOLVE_DEPTH)
    with pytest.raises(InputError, match="type 1 has no"):
        measure(parse(writer), type_id)


def sized(writer: BtfWriter) -> dict[str, tuple[int, int, int]]:
    """Types by what they are: id, size, alignment."""
    short = writer.add_int("short", 2)
    wide = writer.add_int("__int128", 16)
    enum = writer.add_enum("e", {"A": 0}, size=1)
    array = writer.add_array(short, 5)
    return {
        "int": (short, 2, 2),
        "int128": (wide, 16, 8),
        "pointer": (writer.add_ptr(0), 8, 8),
        "enum": (enum, 1, 1),
        "enum64": (writer.add_enum64("e64", {"A": 0}), 8, 8),
        "float": (writer.add_raw(Kind.FLOAT, 4, name="float"), 4, 4),
        "array": (array, 10, 2),
        "array of arrays": (writer.add_array(array, 3), 30, 2),
        "empty array": (writer.add_array(enum, 0), 0, 1),
        "typedef of array": (writer.add_typedef("t", array), 10, 2),
    }


@pytest.mark.parametrize("name", sized(BtfWriter()))
def test_each_sized_type_has_its_size_and_alignment(name: str) -> None:
    writer = BtfWriter()
    type_id, size, align = sized(writer)[name]
    btf = parse(writer)
    assert (btf.resolve_size(type_id), btf.align_of(type_id)) == (size, align)


def test_structs_unions_and_sections_have_the_size_they_state() -> None:
    writer = BtfWriter()
    struct = writer.add_struct("s", 24, [])
    union = writer.add_raw(Kind.UNION, 12, name="u")
    var = writer.add_var("v", struct)
    datasec = writer.add_datasec(".data", [(var, 0, 24)], 40)
    tag = writer.add_decl_tag("tag", struct)
    btf = parse(writer)
    assert [btf.resolve_size(i) for i in (struct, union, var, datasec, tag)] == [24, 12, 24, 40, 24]


@pytest.mark.parametrize("kind", [Kind.FWD, Kind.FUNC_PROTO], ids=lambda kind: kind.name)
def test_types_without_a_size_are_refused(kind: Kind) -> None:
    writer = BtfWriter()
    type_id = writer.add_modifier(Kind.CONST, writer.add_raw(kind, name="x"))
    btf = parse(writer)
    with pytest.raises(InputError, match="has no size"):
        btf.resolve_size(type_id)
    with pytest.raises(InputError, match="has no alignment"):
        btf.align_of(type_id)


def test_void_has_no_size() -> None:
    with pytest.raises(InputError, match="has no size"):
        parse(BtfWriter()).resolve_size(0)


def test_arrays_of_more_than_4_gib_are_refused() -> None:
    writer = BtfWriter()
    row = writer.add_array(writer.add_int("int", 4), 1 << 20)
    matrix = writer.add_array(row, 1 << 20)
    with pytest.raises(InputError, match="larger than 4 GiB"):
        parse(writer).resolve_size(matrix)


def test_a_type_of_size_zero_has_no_alignment() -> None:
    writer = BtfWriter()
    empty = writer.add_int("nothing", 0)
    with pytest.raises(InputError, match="has no alignment"):
        parse(writer).align_of(empty)
