"""Time and memory from an object to its loader are in proportion to the object's size.

Counted, not timed: `support.work`. The same inputs, a hundred times larger, are measured by
``make cost``.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial

import pytest

from bpfseal.btf.btf import Btf
from bpfseal.errors import BpfsealError, InputError, UnsupportedError
from bpfseal.limits import MAX_GROWTH, MAX_METADATA, MAX_NAME
from bpfseal.loader import generate
from bpfseal.object import read_object
from support.costly import OBJECTS, empty_data, shared_subprogram
from support.elf_writer import STT_OBJECT, ElfWriter
from support.object_writer import ObjectWriter
from support.work import growth, peak

COUNT = 70
"""More than the maps of a loader, so that all three sizes are refused or none."""
LINEAR = 2.3
"""What `growth` says of linear work, with room for a logarithm; a square comes to 4."""


def build(data: bytes) -> None:
    """From the object to its loader, or to the error that refuses it."""
    with contextlib.suppress(BpfsealError):
        generate(read_object(data, "cost.bpf.o"), "loadtime")


@pytest.mark.parametrize("what", OBJECTS)
def test_twice_the_object_is_twice_the_work(what: str) -> None:
    inputs = {n: OBJECTS[what](n) for n in (COUNT, 2 * COUNT, 4 * COUNT)}
    build(inputs[COUNT])  # what is made once only
    assert growth(lambda n: build(inputs[n]), COUNT) < LINEAR


@pytest.mark.parametrize("what", OBJECTS)
def test_memory_is_at_most_twenty_times_the_object(what: str) -> None:
    data = OBJECTS[what](4000)
    limit = 20 * len(data) + 10_000_000  # a loader has 32768 slots at most
    assert peak(lambda: build(data)) < limit


@pytest.mark.parametrize("what", ["kfuncs", "ksyms", "own data sections"])
def test_the_strings_of_the_btf_are_not_searched_once_for_each_name(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []
    find = Btf.find

    def counting(btf: Btf, name: str, *kinds: int) -> int | None:
        searched.append(name)
        return find(btf, name, *kinds)  # type: ignore[arg-type]

    monkeypatch.setattr(Btf, "find", counting)
    build(OBJECTS[what](500))
    assert len(searched) < 100


@pytest.mark.parametrize("size", [MAX_GROWTH + 1, 1 << 30, 0x7FFFFFFF])
def test_zeros_beyond_what_a_loader_holds_are_refused_before_they_are_made(size: int) -> None:
    data = empty_data(size)

    def read() -> None:
        with pytest.raises(UnsupportedError, match=f"{size} bytes of zeros, a loader holds"):
            read_object(data, "zeros.bpf.o")

    assert len(data) < 1000
    assert peak(read) < 1_000_000


def test_zeros_of_several_sections_count_together() -> None:
    elf = ElfWriter()
    for number in range(3):
        elf.add_section(f".bss.{number}", type=8, size=MAX_GROWTH // 2)
    with pytest.raises(UnsupportedError, match=r"'\.bss\.2'.*bytes of zeros"):
        read_object(elf.encode(), "zeros.bpf.o")


def test_zeros_of_the_kernel_configuration_are_limited_too() -> None:
    writer = ObjectWriter()
    array = writer.btf.add_array(writer.btf.add_int("char", 1), MAX_GROWTH + 1)
    writer.add_kconfig("CONFIG_x", array, 0, weak=True)
    with pytest.raises(UnsupportedError, match=r"CONFIG_x.*bytes of zeros"):
        writer.read()


def test_as_many_zeros_as_a_loader_holds_are_taken() -> None:
    (spec,) = read_object(empty_data(MAX_GROWTH), "zeros.bpf.o").maps
    assert spec.initial_value == bytes(MAX_GROWTH)


def test_copies_of_subprograms_beyond_what_a_loader_holds_are_refused() -> None:
    obj = read_object(shared_subprogram(30_000), "copies.bpf.o")
    few = [f for f in obj.functions if f.is_subprogram or f.section_insn < 2 * 100]
    with pytest.raises(UnsupportedError, match=f"grow by more than {MAX_GROWTH} bytes"):
        generate(replace(obj, functions=tuple(few)), "loadtime")


@pytest.mark.parametrize("kind", ["symbol", "section"])
@pytest.mark.parametrize("length", [MAX_NAME, MAX_NAME + 1])
def test_a_name_may_have_8192_bytes(kind: str, length: int) -> None:
    elf = ElfWriter()
    name = "x" * length
    if kind == "symbol":
        elf.add_symbol(name, 0, type=STT_OBJECT)
    else:
        elf.add_section(name)
    read = partial(read_object, elf.encode(), "names.bpf.o")
    if length > MAX_NAME:
        with pytest.raises(InputError, match=f"name of {kind} 1: it is longer than 8192 bytes"):
            read()
    else:
        read()


@pytest.mark.parametrize("count", [3000, 6000])
def test_names_that_overlap_too_often_are_refused(count: int) -> None:
    """A linker shares ends of strings, too; but not thousands of ends of one."""
    elf = ElfWriter(shares_names=True)
    for number in range(count):
        elf.add_symbol("x" * (count - number), 0, type=STT_OBJECT)
    with pytest.raises(InputError, match="strings of its table overlap too often"):
        read_object(elf.encode(), "names.bpf.o")


def test_names_may_share_their_ends() -> None:
    elf = ElfWriter(shares_names=True)
    for name in ("do_sys_open", "sys_open", "open", "do_sys_open"):
        elf.add_symbol(name, 0, type=STT_OBJECT)
    read_object(elf.encode(), "names.bpf.o")


def test_metadata_beyond_what_a_bundle_holds_is_refused_before_it_is_made() -> None:
    obj = read_object(empty_data(8), "large.bpf.o")
    large = replace(obj.maps[0], initial_value=bytes(MAX_METADATA))

    def make() -> None:
        with pytest.raises(UnsupportedError, match="metadata would be larger than 67108864 bytes"):
            generate(replace(obj, maps=(large,)), "loadtime")

    assert peak(make) < 1_000_000
