"""A loader read back says what it was made of."""

from __future__ import annotations

import pytest

from bpfseal.bpf.insn import ByteOrder, encode_insns, ld_imm64, mov64_imm
from bpfseal.bpf.insn import call_helper as call_insn
from bpfseal.bpf.opcodes import PSEUDO_MAP_IDX_VALUE
from bpfseal.bpf.uapi import Cmd, Helper, MapType
from bpfseal.errors import BpfsealError, InputError
from bpfseal.loader import generate
from bpfseal.loader.frame import MAX_STACK_PROGRAMS
from bpfseal.loader.reading import read_loader
from bpfseal.scheme import SCHEMES
from support.fuzz import mutations
from support.loader_reading import reading
from support.object_writer import ObjectWriter
from support.samples import everything


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_maps_and_programs_come_in_the_order_of_the_context(
    scheme: str, byteorder: ByteOrder
) -> None:
    obj = everything(byteorder).read()
    loader = generate(obj, scheme)
    read = reading(loader)
    maps = [(c.name("map_name"), c.fields["map_type"]) for c in read.maps()]
    assert maps == [(entry.name, entry.type) for entry in loader.maps]
    programs = [(c.name("prog_name"), c.fields["insn_cnt"]) for c in read.programs()]
    assert programs == [(entry.name, entry.insn_count) for entry in loader.programs]
    assert [read.attach_target(c) for c in read.programs()] == ["bpf_lsm_file_open"]
    assert obj.btf
    assert read.btf() == obj.btf.raw


def test_initial_values_are_those_of_global_data() -> None:
    obj = everything().read()
    read = reading(generate(obj, "kfunc"))
    values = [
        read.initial_value(command)
        for command in read.maps()
        if command.fields["map_type"] != MapType.ARRAY_OF_MAPS
    ]
    assert values == [m.initial_value for m in obj.maps if m.type != MapType.ARRAY_OF_MAPS]


def test_programs_whose_fds_are_kept_in_the_metadata_are_found() -> None:
    writer = ObjectWriter()
    names = [f"main{number}" for number in range(MAX_STACK_PROGRAMS + 3)]
    for name in names:
        writer.add_program("xdp", name)
    read = reading(generate(writer.read(), "kfunc"))
    assert [command.name("prog_name") for command in read.programs()] == names


@pytest.mark.parametrize(("scheme", "reads"), [("unsigned", True), ("loadtime", False)])
def test_whether_the_host_values_are_read_is_seen(scheme: str, *, reads: bool) -> None:
    read = reading(generate(everything().read(), scheme))
    assert bool([offset for offset in read.ctx_reads if offset >= 24]) is reads


def command_at(at: int, size: int, number: int = Cmd.MAP_CREATE) -> bytes:
    first, second = ld_imm64(2, PSEUDO_MAP_IDX_VALUE, 0)
    return encode_insns(
        [
            mov64_imm(1, number),
            first,
            second._replace(imm=at),
            mov64_imm(3, size),
            call_insn(Helper.SYS_BPF),
        ]
    )


@pytest.mark.parametrize(
    ("insns", "reason"),
    [
        (command_at(1, 100), "the attribute reaches out of the metadata"),
        (command_at(101, 0), "the attribute reaches out of the metadata"),
        (command_at(-1, 8), "the attribute reaches out of the metadata"),
        (command_at(0, -8), "the attribute reaches out of the metadata"),
        (command_at(0, 8, 99), "command 99, which no loader issues"),
        (encode_insns([call_insn(Helper.SYS_BPF)]), "arguments are not constants"),
        (b"1234567", "no multiple of 8"),
    ],
)
def test_what_no_loader_does_is_refused(insns: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_loader(insns, bytes(100), "little")


def test_damage_never_raises_anything_else() -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=MapType.HASH, max_entries=9, key=1, value=1)
    writer.add_variable("limit", ".rodata", bytes(4))
    writer.add_program("lsm/file_open", "main")
    loader = generate(writer.read(), "kfunc")
    read = 0
    for damaged in mutations(loader.insns, 800, seed=3):
        try:
            found = read_loader(damaged, loader.metadata, "little")
            for command in (*found.maps(), *found.programs()):
                found.attach_target(command)
                if command.command is Cmd.MAP_CREATE:
                    found.initial_value(command)
            found.btf()
        except BpfsealError:
            continue
        read += 1
    assert read
