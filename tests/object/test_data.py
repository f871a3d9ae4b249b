"""Global data as maps (``bpf_object__init_internal_map`` in tools/lib/bpf/libbpf.c)."""

from __future__ import annotations

import pytest

from bpfseal.bpf.uapi import MapFlag, MapType
from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import Kind, Linkage
from bpfseal.errors import InputError, UnsupportedError
from bpfseal.object.model import BpfObject, MapSource
from support.elf_writer import SHT_NOBITS, STB_LOCAL, STB_WEAK, STV_HIDDEN
from support.object_writer import ObjectWriter

MMAPABLE, READ_ONLY = MapFlag.MMAPABLE, MapFlag.RDONLY_PROG


def btf_of(obj: BpfObject) -> Btf:
    assert obj.btf
    return obj.btf


@pytest.mark.parametrize(
    ("section", "source", "name", "flags"),
    [
        (".data", MapSource.DATA, "sample_b.data", MMAPABLE),
        (".rodata", MapSource.RODATA, "sample_b.rodata", MMAPABLE | READ_ONLY),
        (".bss", MapSource.BSS, "sample_b.bss", MMAPABLE),
        (".data.config", MapSource.DATA, ".data.config", MMAPABLE),
        (".rodata.a-b", MapSource.RODATA, ".rodata.a_b", MMAPABLE | READ_ONLY),
        (".bss.hot", MapSource.BSS, ".bss.hot", MMAPABLE),
        (".data.a_very_long_name", MapSource.DATA, ".data.a_very_lo", MMAPABLE),
    ],
)
def test_each_data_section_is_an_array_of_one_value(
    section: str, source: MapSource, name: str, flags: MapFlag
) -> None:
    writer = ObjectWriter()
    writer.add_variable("first", section, b"abcd")
    writer.add_variable("second", section, b"efgh")
    (spec,) = writer.read().maps
    assert (spec.name, spec.source, spec.type) == (name, source, MapType.ARRAY)
    assert (spec.key_size, spec.value_size, spec.max_entries) == (4, 8, 1)
    assert spec.flags == flags
    assert spec.initial_value == (bytes(8) if source is MapSource.BSS else b"abcdefgh")
    assert spec.btf_value_type_id


@pytest.mark.parametrize(
    ("object_name", "section", "name"),
    [
        ("a.bpf.o", ".data", "a_bpf.data"),
        ("verylongname.bpf.o", ".data", "verylong.data"),
        ("verylongname.bpf.o", ".rodata", "verylong.rodata"),
        ("verylongname.bpf.o", ".bss", "verylong.bss"),
    ],
)
def test_map_names_are_cut_at_15(object_name: str, section: str, name: str) -> None:
    writer = ObjectWriter()
    writer.add_variable("x", section, bytes(4))
    (spec,) = writer.read(object_name).maps
    assert spec.name == name
    assert len(spec.name) <= 15


def test_data_maps_follow_defined_maps_in_the_order_of_sections() -> None:
    writer = ObjectWriter()
    writer.add_variable("a", ".rodata", bytes(4))
    writer.add_variable("b", ".bss", bytes(4))
    writer.add_map("table", type=1)
    writer.add_variable("c", ".data", bytes(4))
    sources = [spec.source for spec in writer.read().maps]
    assert sources == [MapSource.DEFINED, MapSource.RODATA, MapSource.BSS, MapSource.DATA]


@pytest.mark.parametrize("section", ["data", ".database", ".eh_frame", ".rodat", ".debug_info"])
def test_other_sections_are_no_maps(section: str) -> None:
    writer = ObjectWriter()
    writer.elf.add_section(section, bytes(8))
    assert writer.read().maps == ()


@pytest.mark.parametrize("section", [".data", ".rodata"])
def test_an_empty_data_section_is_no_map(section: str) -> None:
    writer = ObjectWriter()
    writer.elf.add_section(section)
    assert writer.read().maps == ()


def test_data_without_btf_is_a_map_without_type() -> None:
    writer = ObjectWriter()
    writer.add_variable("x", ".data", bytes(4))
    writer.has_btf = False
    (spec,) = writer.read().maps
    assert (spec.btf_value_type_id, spec.flags) == (0, 0)


def test_string_literals_without_a_variable_are_not_mmapable() -> None:
    writer = ObjectWriter()
    writer.add_variable(".str", ".rodata", b"text\0", bind=STB_LOCAL, in_btf=False)
    (spec,) = writer.read().maps
    assert spec.flags == READ_ONLY


def test_a_section_of_static_variables_is_not_mmapable() -> None:
    writer = ObjectWriter()
    writer.add_variable("counter", ".data", bytes(4), bind=STB_LOCAL)
    assert writer.read().maps[0].flags == 0


def test_hidden_variables_are_not_mmapable() -> None:
    writer = ObjectWriter()
    var = writer.add_variable("counter", ".data", bytes(4), visibility=STV_HIDDEN)
    obj = writer.read()
    assert obj.maps[0].flags == 0
    assert btf_of(obj).extra_word(var) == Linkage.STATIC


def test_one_visible_variable_makes_the_section_mmapable() -> None:
    writer = ObjectWriter()
    writer.add_variable("hidden", ".data", bytes(4), visibility=STV_HIDDEN)
    writer.add_variable("visible", ".data", bytes(4), bind=STB_WEAK)
    assert writer.read().maps[0].flags == MMAPABLE


def test_the_btf_learns_sizes_and_offsets_of_variables() -> None:
    writer = ObjectWriter()
    first = writer.add_variable("first", ".data", bytes(4))
    second = writer.add_variable("second", ".data", bytes(12))
    btf = btf_of(writer.read())
    datasec = btf.find(".data", Kind.DATASEC)
    assert datasec
    assert btf.type_by_id(datasec).third == 16
    assert [tuple(entry) for entry in btf.secinfos(datasec)] == [(first, 0, 4), (second, 4, 12)]


def test_the_btf_lists_variables_by_offset() -> None:
    writer = ObjectWriter()
    first = writer.add_variable("first", ".data", bytes(4))
    second = writer.add_variable("second", ".data", bytes(4))
    writer._variables[".data"].reverse()
    btf = btf_of(writer.read())
    datasec = btf.find(".data", Kind.DATASEC)
    assert datasec
    assert [entry.type_id for entry in btf.secinfos(datasec)] == [first, second]


def test_a_variable_without_a_symbol_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_variable("x", ".data", bytes(4))
    writer.elf.symbols[0].name = "y"
    with pytest.raises(InputError, match="variable 'x' has no symbol"):
        writer.read()


def test_a_data_section_of_the_btf_that_the_object_lacks_is_refused() -> None:
    writer = ObjectWriter()
    writer.btf.add_datasec(".data", [])
    with pytest.raises(InputError, match="the object has no such section"):
        writer.read()


def test_a_data_section_of_something_else_than_variables_is_refused() -> None:
    writer = ObjectWriter()
    writer.elf.add_section(".data", bytes(4))
    writer.btf.add_datasec(".data", [(writer.int_id, 0, 4)])
    with pytest.raises(InputError, match="type 1 is no variable"):
        writer.read()


@pytest.mark.parametrize("size", [1 << 31, 1 << 40, (1 << 64) - 1])
def test_data_of_more_than_a_map_holds_is_refused(size: int) -> None:
    writer = ObjectWriter()
    writer.elf.add_section(".bss", type=SHT_NOBITS, size=size)
    with pytest.raises(UnsupportedError, match="larger than a map's value can be"):
        writer.read()
