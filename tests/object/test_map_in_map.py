"""Maps of maps and their initial contents (``bpf_object__collect_map_relos``, libbpf.c)."""

from __future__ import annotations

import pytest

from bpfseal.bpf.uapi import MapType
from bpfseal.errors import InputError, UnsupportedError
from bpfseal.object.model import MapSpec
from support.object_writer import ObjectWriter


def with_inner(writer: ObjectWriter) -> dict[str, int]:
    """Add the map ``inner`` and return the members that inner maps have."""
    numbers = {"type": MapType.ARRAY, "key_size": 4, "value_size": 8, "max_entries": 1}
    writer.add_map("inner", **numbers)
    return writer.members(**numbers)


def outer(writer: ObjectWriter) -> MapSpec:
    return next(spec for spec in writer.read().maps if spec.name == "outer")


@pytest.mark.parametrize("type_", [MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS])
def test_the_inner_definition_is_part_of_the_outer_map(type_: MapType) -> None:
    writer = ObjectWriter()
    writer.add_outer_map("outer", with_inner(writer), type=type_)
    spec = outer(writer)
    assert (spec.type, spec.key_size, spec.value_size) == (type_, 4, 4)
    assert spec.inner
    assert (spec.inner.name, spec.inner.type) == ("outer.inner", MapType.ARRAY)
    assert (spec.inner.value_size, spec.inner.max_entries) == (8, 1)
    assert spec.slots == ()


def test_slots_hold_the_numbers_of_maps() -> None:
    writer = ObjectWriter()
    members = with_inner(writer)
    writer.add_map("other", type=MapType.ARRAY)
    writer.add_outer_map("outer", members, {3: "other", 0: "inner"})
    assert outer(writer).slots == ((0, 0), (3, 1))


def test_a_slot_may_hold_a_map_that_comes_later() -> None:
    writer = ObjectWriter()
    writer.add_outer_map("outer", writer.members(type=MapType.ARRAY), {0: "later"})
    writer.add_map("later", type=MapType.ARRAY)
    assert outer(writer).slots == ((0, 1),)


def test_an_inner_ring_buffer_is_rounded_too() -> None:
    writer = ObjectWriter()
    writer.add_outer_map("outer", writer.members(type=MapType.RINGBUF, max_entries=5000))
    inner = outer(writer).inner
    assert inner
    assert inner.max_entries == 8192


def test_inner_maps_have_no_inner_maps() -> None:
    writer = ObjectWriter()
    values = writer.btf.add_array(writer.btf.add_ptr(writer.map_struct({})), 0, writer.int_id)
    writer.add_outer_map("outer", {**writer.members(type=12), "values": values})
    with pytest.raises(UnsupportedError, match="unknown member 'values'") as caught:
        writer.read()
    assert "inner map 'outer'" in caught.value.where


def test_inner_maps_are_not_pinned() -> None:
    writer = ObjectWriter()
    writer.add_outer_map("outer", writer.members(type=2, pinning=1))
    with pytest.raises(UnsupportedError, match="unknown member 'pinning'"):
        writer.read()


def test_values_of_another_size_are_refused() -> None:
    writer = ObjectWriter()
    writer.add_outer_map("outer", writer.members(type=2), value_size=8)
    with pytest.raises(InputError, match="its value has 8 bytes and 4 bytes"):
        writer.read()


def test_a_slot_that_holds_no_map_is_refused() -> None:
    writer = ObjectWriter()
    members = with_inner(writer)
    writer.add_variable("number", ".data", bytes(8))
    writer.add_outer_map("outer", members, {0: "number"})
    with pytest.raises(InputError, match="slot holds 'number', which is no map"):
        writer.read()


def test_a_reference_to_the_members_is_refused() -> None:
    writer = ObjectWriter()
    members = with_inner(writer)
    writer.add_outer_map("outer", members, {0: "inner"})
    writer.fill_slot("outer", -1, "inner")
    with pytest.raises(InputError, match="fits no slot"):
        writer.read()


def test_a_reference_between_slots_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_outer_map("outer", with_inner(writer), {1: "inner"})
    section, offset, name = writer._references.pop()
    writer._references.append((section, offset - 4, name))
    with pytest.raises(InputError, match="fits no slot"):
        writer.read()


def test_a_reference_in_a_map_without_slots_is_refused() -> None:
    writer = ObjectWriter()
    with_inner(writer)
    writer.fill_slot("inner", -1, "inner")
    with pytest.raises(InputError, match="fits no slot"):
        writer.read()


def test_a_reference_between_maps_is_refused() -> None:
    writer = ObjectWriter()
    with_inner(writer)
    writer.add_variable("gap", ".maps", bytes(16), in_btf=False)
    writer._slots_at["gap"] = 32
    writer.fill_slot("gap", 0, "inner")
    with pytest.raises(InputError, match="no map at offset 0x20"):
        writer.read()


def test_a_hash_of_maps_with_contents_needs_keys_of_4_bytes() -> None:
    writer = ObjectWriter()
    members = with_inner(writer)
    writer.add_outer_map("outer", members, {0: "inner"}, type=MapType.HASH_OF_MAPS, key_size=8)
    with pytest.raises(InputError, match="needs keys of 4 bytes"):
        writer.read()


def program_array(writer: ObjectWriter, slots: dict[int, str]) -> MapSpec:
    """Return the map ``calls``, which holds these symbols."""
    writer.add_program_array("calls", slots)
    return next(spec for spec in writer.read().maps if spec.name == "calls")


def test_slots_of_a_program_array_hold_the_numbers_of_programs() -> None:
    writer = ObjectWriter()
    writer.add_program("?xdp", "optional")
    writer.add_program("xdp", "first")
    writer.add_program("xdp", "second")
    assert program_array(writer, {0: "second", 2: "first"}).slots == ((0, 1), (2, 0))


@pytest.mark.parametrize("section", [".text", "?xdp"])
def test_a_slot_that_holds_no_loaded_program_is_refused(section: str) -> None:
    writer = ObjectWriter()
    writer.add_program(section, "other")
    with pytest.raises(InputError, match="slot holds 'other', which is no program"):
        program_array(writer, {0: "other"})


def test_a_program_array_that_is_empty_is_a_map_like_others() -> None:
    writer = ObjectWriter()
    writer.add_map("calls", type=MapType.PROG_ARRAY, key_size=4, value_size=4, max_entries=1)
    assert writer.read().maps[0].type == MapType.PROG_ARRAY
