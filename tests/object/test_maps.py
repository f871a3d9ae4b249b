"""Maps of SEC(".maps") (``parse_btf_map_def`` in tools/lib/bpf/libbpf.c)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bpfseal.bpf.uapi import MapFlag, MapType
from bpfseal.btf.kinds import Kind, Linkage
from bpfseal.errors import BpfsealError, InputError, UnsupportedError
from bpfseal.object.maps import ringbuf_size
from bpfseal.object.model import MapSource, MapSpec
from bpfseal.object.target import TargetValues
from support.object_writer import ObjectWriter

HASH, ARRAY = MapType.HASH, MapType.ARRAY


def only_map(writer: ObjectWriter, target: TargetValues | None = None) -> MapSpec:
    (spec,) = writer.read(target=target or TargetValues()).maps
    return spec


def test_numbers_are_array_lengths_and_types_are_pointers() -> None:
    writer = ObjectWriter()
    value = writer.btf.add_struct("value", 24, [])
    writer.add_map(
        "table",
        type=HASH,
        max_entries=100,
        map_flags=1,
        numa_node=3,
        key=writer.int_id,
        value=value,
    )
    spec = only_map(writer)
    assert (spec.name, spec.source, spec.type) == ("table", MapSource.DEFINED, HASH)
    assert (spec.key_size, spec.value_size, spec.max_entries) == (4, 24, 100)
    assert (spec.flags, spec.numa_node) == (MapFlag.NO_PREALLOC, 3)
    assert (spec.btf_key_type_id, spec.btf_value_type_id) == (writer.int_id, value)


def test_sizes_may_stand_without_types() -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=HASH, key_size=6, value_size=10)
    spec = only_map(writer)
    assert (spec.key_size, spec.value_size) == (6, 10)
    assert (spec.btf_key_type_id, spec.btf_value_type_id) == (0, 0)


def test_the_definition_may_hide_behind_typedefs() -> None:
    writer = ObjectWriter()
    struct = writer.map_struct(writer.members(type=ARRAY, max_entries=2))
    writer.add_variable("table", ".maps", bytes(16), writer.btf.add_typedef("map_t", struct))
    assert only_map(writer).max_entries == 2


def test_numbers_may_hide_behind_typedefs() -> None:
    writer = ObjectWriter()
    number = writer.btf.add_modifier(Kind.CONST, writer.number(ARRAY))
    writer.add_raw_map("table", {"type": writer.btf.add_typedef("n", number)})
    assert only_map(writer).type == ARRAY


@pytest.mark.parametrize("part", ["key", "value"])
def test_a_size_that_agrees_with_its_type_is_fine(part: str) -> None:
    writer = ObjectWriter()
    members = writer.members(type=HASH, **{f"{part}_size": 4, part: writer.int_id})
    writer.add_raw_map("table", members)
    assert getattr(only_map(writer), f"{part}_size") == 4


@pytest.mark.parametrize("part", ["key", "value"])
def test_a_size_that_contradicts_its_type_is_refused(part: str) -> None:
    writer = ObjectWriter()
    members = writer.members(type=HASH, **{f"{part}_size": 8, part: writer.int_id})
    writer.add_raw_map("table", members)
    with pytest.raises(InputError, match=f"its {part} has 8 bytes and 4 bytes"):
        writer.read()


@pytest.mark.parametrize(
    ("kind", "value"), [("number", 1 << 20), ("enum", 77), ("enum64", 1 << 40 | 5)]
)
def test_map_extra_may_need_64_bits(kind: str, value: int) -> None:
    writer = ObjectWriter()
    add: dict[str, Callable[[], int]] = {
        "number": lambda: writer.number(value),
        "enum": lambda: writer.btf.add_enum("", {"__unique": value}),
        "enum64": lambda: writer.btf.add_enum64("", {"__unique": value}),
    }
    writer.add_raw_map("filter", {"type": writer.number(30), "map_extra": add[kind]()})
    assert only_map(writer).map_extra == value


@pytest.mark.parametrize("pinning", [0, 1])
def test_pinning_is_known_but_left_to_user_space(pinning: int) -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=HASH, pinning=pinning)
    assert only_map(writer).pin_by_name == bool(pinning)


@pytest.mark.parametrize("type_", [MapType.RINGBUF, MapType.USER_RINGBUF])
@pytest.mark.parametrize(
    ("size", "page_size", "rounded"),
    [
        (0, 4096, 0),
        (1, 4096, 4096),
        (4096, 4096, 4096),
        (4097, 4096, 8192),
        (3 * 4096, 4096, 16384),
        (1 << 20, 4096, 1 << 20),
        (4096, 65536, 65536),
        ((1 << 31) + 1, 4096, (1 << 31) + 1),
    ],
)
def test_ring_buffers_are_rounded_to_pages(
    type_: int, size: int, page_size: int, rounded: int
) -> None:
    writer = ObjectWriter()
    writer.add_map("events", type=type_, max_entries=size)
    assert only_map(writer, TargetValues(page_size=page_size)).max_entries == rounded
    assert ringbuf_size(size, page_size) == rounded


def test_other_maps_are_not_rounded() -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=HASH, max_entries=3)
    assert only_map(writer).max_entries == 3


@pytest.mark.parametrize(("stated", "expected"), [(0, 64), (5, 5)])
def test_a_perf_event_array_without_a_number_has_an_entry_for_each_cpu(
    stated: int, expected: int
) -> None:
    writer = ObjectWriter()
    writer.add_map("events", type=MapType.PERF_EVENT_ARRAY, max_entries=stated)
    assert only_map(writer, TargetValues(possible_cpus=64)).max_entries == expected


UNTYPED = (
    MapType.PERF_EVENT_ARRAY,
    MapType.CGROUP_ARRAY,
    MapType.STACK_TRACE,
    MapType.DEVMAP,
    MapType.DEVMAP_HASH,
    MapType.CPUMAP,
    MapType.XSKMAP,
    MapType.SOCKMAP,
    MapType.SOCKHASH,
    MapType.QUEUE,
    MapType.STACK,
    MapType.ARENA,
)


@pytest.mark.parametrize("type_", MapType, ids=lambda member: member.name)
def test_types_of_key_and_value_are_given_where_the_kernel_takes_them(type_: MapType) -> None:
    if type_ in (MapType.UNSPEC, MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS):
        return
    writer = ObjectWriter()
    writer.add_map("table", type=type_, key=writer.int_id, value=writer.int_id, max_entries=1)
    spec = only_map(writer)
    expected = 0 if type_ in UNTYPED else writer.int_id
    assert (spec.btf_key_type_id, spec.btf_value_type_id) == (expected, expected)
    assert (spec.key_size, spec.value_size) == (4, 4)


def test_maps_come_in_the_order_of_their_offsets() -> None:
    writer = ObjectWriter()
    for name in ("b", "a", "c"):
        writer.add_map(name, type=ARRAY)
    assert [(m.name, m.offset) for m in writer.read().maps] == [("b", 0), ("a", 8), ("c", 16)]


def refused(
    add: Callable[[ObjectWriter], object], message: str, error: type[BpfsealError] = InputError
) -> None:
    writer = ObjectWriter()
    add(writer)
    with pytest.raises(error, match=message) as caught:
        writer.read()
    assert "map 'table'" in caught.value.where


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (lambda w: {"max_entries": w.number(1)}, "it has no type"),
        (lambda w: {"type": w.number(0)}, "it has no type"),
        (lambda w: {"type": w.int_id}, "no pointer to an array"),
        (lambda w: {"type": w.btf.add_ptr(w.int_id)}, "no pointer to an array"),
        (lambda w: {"type": w.number(1), "key": w.int_id}, "its key is no pointer"),
        (lambda w: {"type": w.number(1), "value": w.btf.add_ptr(0)}, "has no size"),
        (lambda w: {"type": w.number(1), "pinning": w.number(2)}, "unknown pinning 2"),
        (
            lambda w: {"type": w.number(30), "map_extra": w.btf.add_enum("", {"A": 1, "B": 2})},
            "no enum of one value",
        ),
        (
            lambda w: {"type": w.number(12), "values": w.btf.add_array(w.int_id, 3)},
            "no zero-sized array",
        ),
        (
            lambda w: {"type": w.number(12), "values": w.btf.add_array(w.int_id, 0)},
            "neither maps nor programs",
        ),
        (
            lambda w: {
                "type": w.number(3),
                "values": w.btf.add_array(w.btf.add_ptr(w.map_struct({})), 0, w.int_id),
            },
            "neither maps nor programs",
        ),
    ],
)
def test_a_malformed_definition_is_refused(
    members: Callable[[ObjectWriter], dict[str, int]], message: str
) -> None:
    writer = ObjectWriter()
    writer.add_raw_map("table", members(writer))
    with pytest.raises(InputError, match=message):
        writer.read()


def test_an_unknown_member_is_refused() -> None:
    def add(writer: ObjectWriter) -> None:
        writer.add_raw_map("table", {"type": writer.number(1), "colour": writer.number(1)})

    refused(add, "unknown member 'colour'", UnsupportedError)


def test_values_must_be_the_last_member() -> None:
    def add(writer: ObjectWriter) -> None:
        values = writer.btf.add_array(writer.int_id, 0)
        writer.add_raw_map("table", {"values": values, "type": writer.number(12)})

    refused(add, "unknown member 'values'", UnsupportedError)


@pytest.mark.parametrize("linkage", [Linkage.STATIC, 7])
def test_a_map_that_is_not_global_is_refused(linkage: int) -> None:
    def add(writer: ObjectWriter) -> None:
        writer.add_raw_map("table", writer.members(type=1), linkage=linkage)

    refused(add, "must be a global variable", UnsupportedError)


def test_a_map_that_is_no_struct_is_refused() -> None:
    refused(lambda w: w.add_variable("table", ".maps", bytes(8), w.int_id), "no struct that fits")


def test_a_struct_larger_than_its_variable_is_refused() -> None:
    refused(
        lambda w: w.add_variable(
            "table", ".maps", bytes(8), w.map_struct(w.members(type=1, max_entries=1))
        ),
        "no struct that fits",
    )


def test_a_map_outside_its_section_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=1)
    section = next(s for s in writer.elf.sections if s.name == ".maps")
    section.data = section.data[:4]
    with pytest.raises(InputError, match="lies outside its section"):
        writer.read()


def test_maps_without_btf_are_refused() -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=1)
    writer.has_btf = False
    with pytest.raises(InputError, match="no BTF that describes them") as caught:
        writer.read()
    assert caught.value.hint == "compile with -g"


def test_maps_that_the_btf_does_not_describe_are_refused() -> None:
    writer = ObjectWriter()
    writer.elf.add_section(".maps", bytes(8))
    with pytest.raises(InputError, match="no BTF that describes them"):
        writer.read()
