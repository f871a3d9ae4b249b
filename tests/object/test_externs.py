"""Externs (``bpf_object__collect_externs`` in tools/lib/bpf/libbpf.c)."""

from __future__ import annotations

import pytest

from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import Kind, Linkage
from bpfseal.errors import InputError, UnsupportedError
from bpfseal.object.model import BpfObject, Extern, ExternKind, MapSource
from bpfseal.object.target import TargetValues
from support.object_writer import ObjectWriter


def btf_of(obj: BpfObject) -> Btf:
    assert obj.btf
    return obj.btf


def entries(btf: Btf, section: str) -> list[tuple[int, int, int]]:
    """Return the entries of a DATASEC, which must state its size."""
    datasec = btf.find(section, Kind.DATASEC)
    assert datasec
    found = [(entry.type_id, entry.offset, entry.size) for entry in btf.secinfos(datasec)]
    assert btf.type_by_id(datasec).third == max(offset + size for _, offset, size in found)
    return found


def test_kconfig_comes_by_falling_alignment_then_size_then_name() -> None:
    writer = ObjectWriter()
    char = writer.btf.add_int("char", 1)
    long = writer.btf.add_int("long", 8)
    text = writer.btf.add_array(char, 3)
    writer.add_ksym("a_symbol")
    writer.add_kconfig("CONFIG_text", text, 3, weak=True)
    writer.add_kconfig("CONFIG_z", char, 1, weak=True)
    writer.add_kconfig("CONFIG_b", writer.int_id, 4, weak=True)
    writer.add_kconfig("CONFIG_a", writer.int_id, 4, weak=True)
    writer.add_kconfig("CONFIG_long", long, 8, weak=True)
    obj = writer.read()
    assert [(e.name, e.offset) for e in obj.externs] == [
        ("CONFIG_long", 0),
        ("CONFIG_a", 8),
        ("CONFIG_b", 12),
        ("CONFIG_z", 16),
        ("CONFIG_text", 17),
        ("a_symbol", 0),
    ]
    (spec,) = obj.maps
    assert (spec.source, spec.value_size) == (MapSource.KCONFIG, 20)


def test_each_value_is_aligned_in_the_map() -> None:
    writer = ObjectWriter()
    wide = writer.btf.add_int("__int128", 16)
    odd = writer.btf.add_array(writer.int_id, 3)
    writer.add_kconfig("CONFIG_odd", odd, 12, weak=True)
    writer.add_kconfig("CONFIG_wide", wide, 16, weak=True)
    writer.add_kconfig("CONFIG_int", writer.int_id, 4, weak=True)
    assert [(e.name, e.offset) for e in writer.read().externs] == [
        ("CONFIG_wide", 0),
        ("CONFIG_int", 16),
        ("CONFIG_odd", 20),
    ]


def test_kconfig_variables_become_global_at_their_offsets() -> None:
    writer = ObjectWriter()
    char = writer.btf.add_int("char", 1)
    writer.add_kconfig("CONFIG_small", char, 1, weak=True)
    writer.add_kconfig("CONFIG_int", writer.int_id, 4, weak=True)
    obj = writer.read()
    btf = btf_of(obj)
    by_name = {extern.name: extern for extern in obj.externs}
    small, number = by_name["CONFIG_small"].btf_id, by_name["CONFIG_int"].btf_id
    assert entries(btf, ".kconfig") == [(number, 0, 4), (small, 4, 1)]
    assert [btf.extra_word(i) for i in (small, number)] == [Linkage.GLOBAL] * 2


def test_the_kconfig_map_is_the_last() -> None:
    writer = ObjectWriter()
    writer.add_kconfig("LINUX_KERNEL_VERSION", writer.int_id, 4)
    writer.add_variable("x", ".data", bytes(4))
    spec = writer.read().maps[-1]
    assert (spec.name, spec.source) == ("sample_.kconfig", MapSource.KCONFIG)


def test_symbols_come_by_name() -> None:
    writer = ObjectWriter()
    writer.add_ksym("jiffies")
    writer.add_kfunc("bpf_kfunc")
    writer.add_ksym("_text")
    assert [e.name for e in writer.read().externs] == ["_text", "bpf_kfunc", "jiffies"]


@pytest.mark.parametrize("weak", [False, True])
def test_a_symbol_without_a_type_has_type_0(weak: bool) -> None:
    writer = ObjectWriter()
    writer.add_ksym("jiffies", weak=weak)
    (extern,) = writer.read().externs
    assert (extern.kind, extern.type_id, extern.is_weak) == (ExternKind.KSYM, 0, weak)
    assert not extern.is_function


def test_a_symbol_with_a_type_keeps_what_is_behind_modifiers() -> None:
    writer = ObjectWriter()
    struct = writer.btf.add_struct("rq", 64, [])
    writer.add_ksym("runqueues", writer.btf.add_typedef("rq_t", struct))
    (extern,) = writer.read().externs
    assert extern.type_id == struct


def test_symbols_become_integers_in_the_btf() -> None:
    writer = ObjectWriter()
    writer.add_ksym("a", writer.btf.add_struct("rq", 64, []))
    writer.add_ksym("b")
    obj = writer.read()
    btf = btf_of(obj)
    ids = [extern.btf_id for extern in obj.externs]
    assert entries(btf, ".ksyms") == [(ids[0], 0, 4), (ids[1], 4, 4)]
    assert [btf.type_by_id(i).third for i in ids] == [writer.int_id] * 2
    assert [btf.extra_word(i) for i in ids] == [Linkage.GLOBAL] * 2


def kfunc_object() -> tuple[BpfObject, Btf, Extern, int]:
    writer = ObjectWriter()
    writer.add_kfunc("bpf_kfunc", weak=True)
    obj = writer.read()
    btf = btf_of(obj)
    stand_in = btf.find("dummy_ksym", Kind.VAR)
    assert stand_in
    return obj, btf, obj.externs[0], stand_in


def test_kfuncs_become_one_stand_in_variable() -> None:
    obj, btf, extern, stand_in = kfunc_object()
    assert (extern.is_function, extern.is_weak) == (True, True)
    assert stand_in == len(btf) - 1
    assert btf.type_by_id(stand_in).third == 1
    assert btf.extra_word(stand_in) == Linkage.GLOBAL
    assert entries(btf, ".ksyms") == [(stand_in, 0, 4)]
    assert obj.maps == ()


def test_a_kfunc_becomes_global_with_named_parameters() -> None:
    _, btf, extern, _ = kfunc_object()
    func = btf.type_by_id(extern.btf_id)
    assert func.vlen == Linkage.GLOBAL
    (parameter,) = btf.entries(func.third)
    assert btf.string(parameter[0]) == "dummy_ksym"


def test_objects_without_kfuncs_get_no_stand_in() -> None:
    writer = ObjectWriter()
    writer.add_ksym("jiffies")
    assert btf_of(writer.read()).find("dummy_ksym") is None


def test_symbols_need_a_4_byte_integer_type() -> None:
    writer = ObjectWriter()
    writer.btf._words[:4] = [writer.btf.string("long"), Kind.INT << 24, 8, 64]
    writer.add_ksym("jiffies")
    with pytest.raises(InputError, match="need a 4-byte integer type"):
        writer.read()


def test_an_extern_without_btf_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_ksym("jiffies")
    writer.has_btf = False
    with pytest.raises(InputError, match="extern 'jiffies': no BTF describes it"):
        writer.read()


def test_an_extern_that_the_btf_does_not_know_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_ksym("jiffies")
    writer.elf.symbols[0].name = "other"
    with pytest.raises(InputError, match="extern 'other': no BTF describes it"):
        writer.read()


@pytest.mark.parametrize("linkage", [Linkage.STATIC, Linkage.GLOBAL])
def test_an_extern_that_the_btf_calls_otherwise_is_refused(linkage: Linkage) -> None:
    writer = ObjectWriter()
    writer.add_extern("x", ".ksyms", writer.btf.add_var("x", writer.int_id, linkage))
    with pytest.raises(InputError, match="does not call it extern"):
        writer.read()


@pytest.mark.parametrize("section", [".other", ".data"])
def test_an_extern_in_another_section_is_refused(section: str) -> None:
    writer = ObjectWriter()
    writer.add_extern("x", section, writer.btf.add_var("x", writer.int_id, Linkage.EXTERN))
    with pytest.raises(UnsupportedError, match=f"it lies in section '{section}'") as caught:
        writer.read()
    assert caught.value.hint == "mark it __kconfig or __ksym"


def test_an_extern_in_no_section_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_ksym("jiffies")
    writer._variables.clear()
    with pytest.raises(UnsupportedError, match="it lies in section ''"):
        writer.read()


def test_a_function_cannot_be_kconfig() -> None:
    writer = ObjectWriter()
    func = writer.add_func("f", Linkage.EXTERN)
    writer.add_extern("f", ".kconfig", func)
    with pytest.raises(UnsupportedError, match="a function cannot be __kconfig"):
        writer.read()


def test_something_else_in_a_section_of_externs_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_ksym("jiffies")
    writer._variables[".ksyms"].append((writer.int_id, 0, 4))
    with pytest.raises(InputError, match="'int' is no extern"):
        writer.read()


@pytest.mark.parametrize("section", [".ksyms", ".kconfig"])
def test_another_type_with_the_name_of_an_extern_is_refused(section: str) -> None:
    writer = ObjectWriter()
    writer.add_extern(
        "CONFIG_x",
        section,
        writer.btf.add_var("CONFIG_x", writer.int_id, Linkage.EXTERN),
        weak=True,
    )
    alias = writer.btf.add_typedef("CONFIG_x", writer.int_id)
    writer._variables[section].append((alias, 0, 4))
    with pytest.raises(InputError, match="'CONFIG_x' is no extern"):
        writer.read()


def test_a_kconfig_value_without_a_size_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_kconfig("CONFIG_x", writer.btf.add_struct("s", 8, []), 8, weak=True)
    with pytest.raises(InputError, match="has no alignment"):
        writer.read()


@pytest.mark.parametrize("count", [1, 5])
def test_kconfig_values_of_more_than_a_map_holds_are_refused(count: int) -> None:
    writer = ObjectWriter()
    huge = writer.btf.add_array(writer.int_id, (1 << 30) - 1)
    for number in range(count):
        writer.add_kconfig(f"CONFIG_{number}", huge, 0xFFFFFFFC, weak=True)
    with pytest.raises(UnsupportedError, match="larger than a map's value can be"):
        writer.read(target=TargetValues())
