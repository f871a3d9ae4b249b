"""A loader read back says what it was made of, and every part of it is accounted for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from bpfseal.bpf.insn import INSN_SIZE, call_helper, decode_insns, encode_insns
from bpfseal.bpf.uapi import Helper, MapType
from bpfseal.errors import BpfsealError, InputError
from bpfseal.loader import generate
from bpfseal.loader.checks import CHECKS
from bpfseal.loader.frame import MAX_STACK_PROGRAMS
from bpfseal.loader.model import Loader
from bpfseal.loader.reading import LoaderReading, read_loader
from bpfseal.scheme import SCHEMES
from support.fuzz import mutations
from support.object_writer import ObjectWriter
from support.samples import everything


def reading(loader: Loader) -> LoaderReading:
    return read_loader(loader.insns, loader.metadata, loader.byteorder)


def program_array() -> ObjectWriter:
    writer = ObjectWriter()
    for name in ("first", "second"):
        writer.add_program("xdp", name)
    writer.add_program_array("jumps", {0: "second", 3: "first"})
    writer.add_map("table", type=MapType.HASH, max_entries=9, key=1, value=1)
    return writer


def many_programs(*, with_array: bool) -> ObjectWriter:
    writer = ObjectWriter()
    for number in range(MAX_STACK_PROGRAMS + 3):
        writer.add_program("xdp", f"main{number}")
    if with_array:
        writer.add_program_array("jumps", {0: "main34", 3: "main1"})
    return writer


def nothing() -> ObjectWriter:
    return ObjectWriter()


OBJECTS: dict[str, Callable[[], ObjectWriter]] = {
    "everything": everything,
    "everything, big-endian": lambda: everything("big"),
    "program array": program_array,
    "many programs": lambda: many_programs(with_array=False),
    "many programs in an array": lambda: many_programs(with_array=True),
}


@cache
def made(name: str, scheme: str, *, traces: bool = False) -> Loader:
    return generate(OBJECTS[name]().read(), scheme, traces=traces)


@pytest.mark.parametrize("traces", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", OBJECTS)
def test_what_a_loader_makes_is_derived_from_its_bytes(
    name: str, scheme: str, *, traces: bool
) -> None:
    """tools/lib/bpf/gen_loader.c: the steps of a loader, of every scheme and kind."""
    obj = OBJECTS[name]().read()
    loader = made(name, scheme, traces=traces)
    read = reading(loader)
    assert read.check == (scheme if scheme in CHECKS else None)
    assert read.takes_host_values in (None, loader.scheme.copies_host_values)
    assert (read.takes_host_values is None) == (not loader.maps)
    assert read.traces == traces
    assert obj.btf
    assert read.btf == obj.btf.raw
    maps = [(m.name, m.fields["map_type"], m.fields["value_size"]) for m in read.maps]
    assert maps == [(entry.name, entry.type, entry.value_size) for entry in loader.maps]
    assert [m.initial_value for m in read.maps] == [m.initial_value for m in obj.maps]
    programs = [(p.name, p.fields["insn_cnt"], p.attach_target) for p in read.programs]
    assert programs == [(e.name, e.insn_count, e.attach_target) for e in loader.programs]


# Cuts: where the instructions end and the metadata begins is not up to whoever holds them


def cuts(loader: Loader, step: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the same bytes with the border between both parts elsewhere."""
    whole = loader.insns + loader.metadata
    for border in range(0, len(whole) + 1, step):
        if border != len(loader.insns):
            yield whole[:border], whole[border:]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", OBJECTS)
def test_no_other_border_between_instructions_and_metadata_is_a_loader(
    name: str, scheme: str
) -> None:
    loader = made(name, scheme)
    step = INSN_SIZE if len(loader.insns) + len(loader.metadata) < 20_000 else 13 * INSN_SIZE
    for insns, metadata in cuts(loader, step):
        with pytest.raises(InputError):
            read_loader(insns, metadata, loader.byteorder)


def test_no_border_inside_of_a_slot_is_one_either() -> None:
    loader = made("program array", "loadtime")
    for insns, metadata in cuts(loader, 1):
        with pytest.raises(InputError):
            read_loader(insns, metadata, "little")


def with_part(loader: Loader, part: str, data: bytes) -> Loader:
    changes: dict[str, Any] = {part: data}
    return replace(loader, **changes)


def refused(loader: Loader, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        reading(loader)


@pytest.mark.parametrize("traces", [False, True])
@pytest.mark.parametrize("scheme", ["kfunc", "loadtime"])
def test_no_instruction_can_be_left_out_or_added(scheme: str, *, traces: bool) -> None:
    loader = made("everything", scheme, traces=traces)
    slots = decode_insns(loader.insns)
    extra = call_helper(Helper.KTIME_GET_NS)
    for at in range(0, len(slots) + 1, 3):
        for changed in ([*slots[:at], *slots[at + 1 :]], [*slots[:at], extra, *slots[at:]]):
            if changed != slots:
                with pytest.raises(InputError):
                    reading(replace(loader, insns=encode_insns(changed)))


@pytest.mark.parametrize("scheme", ["inline", "loadtime"])
def test_no_word_of_the_metadata_can_be_left_out_or_added(scheme: str) -> None:
    loader = made("program array", scheme)
    data = loader.metadata
    for at in range(0, len(data) + 1, 8):
        for changed in (data[:at] + data[at + 8 :], data[:at] + bytes(8) + data[at:]):
            if changed != data:
                with pytest.raises(InputError):
                    reading(replace(loader, metadata=changed))


def test_what_is_behind_the_end_is_refused() -> None:
    loader = made("everything", "loadtime")
    refused(replace(loader, metadata=loader.metadata + bytes(8)), "does not use")
    refused(replace(loader, insns=loader.insns + loader.insns[-16:]), "behind its end")
    refused(replace(loader, insns=loader.insns[:-1]), "no multiple of 8")
    refused(replace(loader, insns=b"", metadata=b""), "metadata")


def test_the_byte_order_is_that_of_the_instructions() -> None:
    loader = made("everything", "loadtime")
    refused(replace(loader, byteorder="big"), "expected the step")


def test_an_object_without_anything_makes_a_loader_too() -> None:
    read = reading(generate(nothing().read(), "loadtime"))
    assert (read.maps, read.programs, read.takes_host_values) == ((), (), None)


@pytest.mark.parametrize("scheme", ["kfunc", "loadtime"])
def test_damage_never_raises_anything_else(scheme: str) -> None:
    loader = made("everything", scheme)
    outcomes = []
    for part in ("insns", "metadata"):
        for damaged in mutations(getattr(loader, part), 800, seed=3):
            try:
                reading(with_part(loader, part, damaged))
            except BpfsealError:
                outcomes.append("refused")
            else:
                outcomes.append("read")  # contents of maps and programs, which a digest covers
    assert outcomes.count("refused") > 800


def test_the_work_is_linear_in_the_number_of_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    from bpfseal.loader.forms import Form

    count = 0
    match = Form.match

    def counted(form: Form, insns: bytes, at: int) -> tuple[int, ...] | None:
        nonlocal count
        count += 1
        return match(form, insns, at)

    monkeypatch.setattr(Form, "match", counted)
    steps = []
    for programs in (40, 400):
        writer = ObjectWriter()
        for number in range(programs):
            writer.add_program("xdp", f"main{number}")
        loader = generate(writer.read(), "loadtime")
        count = 0
        reading(loader)
        steps.append(count)
    assert steps[1] < 11 * steps[0]
