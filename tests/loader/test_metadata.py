"""The blob: fd array, BTF, attributes of maps and programs, and the order of the commands."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from bpfseal.bpf.insn import ByteOrder, decode_insns, encode_insns, exit_insn, mov64_imm
from bpfseal.bpf.uapi import Cmd, Helper, MapFlag, MapType, ProgFlag, ProgType
from bpfseal.errors import UnsupportedError
from bpfseal.loader import generate
from bpfseal.loader.checks import CHECKS, LOADER_BTF
from bpfseal.loader.model import CTX_HEADER_SIZE, Loader, MapEntry, ProgramEntry
from bpfseal.scheme import SCHEMES
from support.loader_reading import Value, blob, commands, helper_calls, only
from support.object_writer import RETURN_0, ObjectWriter
from support.samples import everything

FD_ARRAY = 1280
"""Bytes of 64 maps' and 256 kfunc BTFs' fds."""


def made(writer: ObjectWriter, scheme: str = "kfunc") -> Loader:
    writer.add_program("xdp", "main")
    return generate(writer.read(), scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_blob_begins_with_an_empty_fd_array(scheme: str) -> None:
    loader = generate(everything().read(), scheme)
    assert loader.metadata[:FD_ARRAY] == bytes(FD_ARRAY)
    assert len(loader.metadata) % 8 == 0
    written = [value for entry in commands(loader) for value in entry.written.values()]
    inside = {value.number for value in written if value.kind == "address"}
    assert not {at for at in inside if at >= 4 * len(loader.maps)} & set(range(FD_ARRAY))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_commands_come_in_this_order(scheme: str) -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=1)
    writer.add_outer_map("outer", writer.members(type=2), {0: "table"})
    writer.add_variable("x", ".data", bytes(4))
    writer.add_variable("y", ".rodata", bytes(4))
    assert [entry.command for entry in commands(made(writer, scheme))] == [
        Cmd.BTF_LOAD,
        Cmd.MAP_CREATE,  # table
        Cmd.MAP_CREATE,  # what inner maps of outer look like
        Cmd.MAP_CREATE,  # outer
        Cmd.MAP_UPDATE_ELEM,
        Cmd.MAP_CREATE,  # .data
        Cmd.MAP_UPDATE_ELEM,
        Cmd.MAP_CREATE,  # .rodata
        Cmd.MAP_UPDATE_ELEM,
        Cmd.MAP_FREEZE,
        Cmd.PROG_LOAD,
    ]


def test_only_the_kfunc_scheme_has_a_loader_btf() -> None:
    assert {name: generate(everything().read(), name).btf for name in SCHEMES} == {
        name: LOADER_BTF if name == "kfunc" else b"" for name in SCHEMES
    }


def test_the_btf_is_loaded_with_the_log_that_the_host_wants() -> None:
    writer = ObjectWriter()
    writer.add_program("xdp", "main")
    obj = writer.read()
    loader = generate(obj, "kfunc")
    load = only(loader, Cmd.BTF_LOAD)
    assert obj.btf
    assert load.fields["btf_size"] == len(obj.btf.raw)
    assert blob(loader, load, "btf", len(obj.btf.raw)) == obj.btf.raw
    assert load.written["btf_log_level"] == Value("ctx", 8)
    assert load.written["btf_log_size"] == Value("ctx", 12)
    assert load.written["btf_log_buf"] == Value("ctx", 16)


def test_without_btf_none_is_loaded() -> None:
    writer = ObjectWriter()
    writer.has_btf = False
    assert [entry.command for entry in commands(made(writer))] == [Cmd.PROG_LOAD]


# Maps


def test_a_map_is_created_as_the_object_says() -> None:
    writer = ObjectWriter()
    writer.add_map(
        "a_map_with_a_long_name",
        type=1,
        max_entries=7,
        map_flags=1,
        numa_node=2,
        key=writer.int_id,
        value=writer.int_id,
    )
    loader = made(writer)
    create = only(loader, Cmd.MAP_CREATE)
    expected = {
        "map_type": 1,
        "key_size": 4,
        "value_size": 4,
        "max_entries": 7,
        "map_flags": 1,
        "numa_node": 2,
        "btf_key_type_id": 1,
        "btf_value_type_id": 1,
    }
    assert {name: value for name, value in create.fields.items() if value} == expected
    assert create.name("map_name") == "a_map_with_a_lo"
    assert len(create.raw) == 72
    assert create.written == {
        "btf_fd": Value("stack", -168),
        "max_entries": Value("ctx", CTX_HEADER_SIZE + 4),
    }
    assert loader.maps == (MapEntry("a_map_with_a_lo", "a_map_with_a_long_name", 1, 4, 4, 7, 1),)


def test_a_map_without_types_gets_no_btf() -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=1, key_size=4, value_size=4, max_entries=1)
    assert set(only(made(writer), Cmd.MAP_CREATE).written) == {"max_entries"}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_host_may_change_sizes_and_data_only_where_the_scheme_lets_it(scheme: str) -> None:
    writer = ObjectWriter()
    writer.add_variable("x", ".data", bytes(4))
    loader = made(writer, scheme)
    helpers = {call.helper for call in helper_calls(loader)}
    create = only(loader, Cmd.MAP_CREATE)
    copies = SCHEMES[scheme].copies_host_values
    assert ("max_entries" in create.written) == copies
    assert (Helper.COPY_FROM_USER in helpers) == copies


def test_data_is_filled_and_read_only_data_is_frozen() -> None:
    writer = ObjectWriter()
    writer.add_variable("x", ".rodata", b"ABCD")
    loader = made(writer)
    update, freeze = only(loader, Cmd.MAP_UPDATE_ELEM), only(loader, Cmd.MAP_FREEZE)
    assert update.written["map_fd"] == freeze.written["map_fd"] == Value("blob", 0)
    assert blob(loader, update, "key", 4) == bytes(4)
    assert blob(loader, update, "value", 4) == b"ABCD"
    assert update.fields["flags"] == 0
    assert loader.maps[0].has_initial_value
    assert loader.maps[0].ident == "rodata"


@pytest.mark.parametrize("section", [".data", ".bss"])
def test_writable_data_is_not_frozen(section: str) -> None:
    writer = ObjectWriter()
    writer.add_variable("x", section, bytes(4))
    assert Cmd.MAP_FREEZE not in {entry.command for entry in commands(made(writer))}


def test_a_map_of_maps_is_created_from_a_pattern_that_is_closed_again() -> None:
    writer = ObjectWriter()
    writer.add_outer_map("outer", writer.members(type=2, max_entries=5))
    loader = made(writer)
    inner, outer = (c for c in commands(loader) if c.command is Cmd.MAP_CREATE)
    assert (inner.name("map_name"), inner.fields["max_entries"]) == ("outer.inner", 5)
    assert "max_entries" not in inner.written
    assert outer.fields["map_type"] == MapType.ARRAY_OF_MAPS
    assert outer.written["inner_map_fd"] == Value("stack", -164)


def test_slots_are_filled_with_the_fds_of_maps() -> None:
    writer = ObjectWriter()
    writer.add_map("first", type=1)
    writer.add_map("second", type=2)
    writer.add_outer_map("outer", writer.members(type=2), {3: "second"})
    loader = made(writer)
    update = only(loader, Cmd.MAP_UPDATE_ELEM)
    assert update.written["map_fd"] == Value("blob", 8)
    assert update.written["value"] == Value("address", 4)
    assert blob(loader, update, "key", 4) == b"\3\0\0\0"


@pytest.mark.parametrize("count", [2, 40])
def test_program_arrays_are_filled_when_all_programs_are_loaded(count: int) -> None:
    writer = ObjectWriter()
    for number in range(count):
        writer.add_program("xdp", f"prog{number}")
    writer.add_program_array("calls", {2: "prog1"})
    loader = generate(writer.read(), "kfunc")
    last = commands(loader)[-1]
    assert last.command is Cmd.MAP_UPDATE_ELEM
    assert last.written["map_fd"] == Value("blob", 0)
    assert blob(loader, last, "key", 4) == b"\2\0\0\0"
    if count == 40:
        assert last.written["value"] == Value("address", FD_ARRAY + 4)


@pytest.mark.parametrize(
    ("section", "ident"),
    [(".data", "data"), (".bss.hot", "bss_hot"), (".rodata.a-b", "rodata_a_b")],
)
def test_data_maps_are_identified_by_their_section(section: str, ident: str) -> None:
    writer = ObjectWriter()
    writer.add_variable("x", section, bytes(4))
    assert made(writer).maps[0].ident == ident


def test_data_maps_that_would_be_the_same_identifier_get_a_number() -> None:
    writer = ObjectWriter()
    for section in (".data.a_b", ".data.a.b", ".data.a-b"):
        writer.add_variable(f"x{section[-2:]}".replace(".", "_"), section, bytes(4))
    idents = [entry.ident for entry in made(writer).maps]
    assert idents == ["data_a_b", "data_a_b_2", "data_a_b_3"]


@pytest.mark.parametrize("count", [64, 65])
def test_a_loader_holds_64_maps(count: int) -> None:
    writer = ObjectWriter()
    for number in range(count):
        writer.add_map(f"map{number}", type=1)
    if count == 64:
        assert len(made(writer).maps) == 64
        return
    with pytest.raises(UnsupportedError, match="65 maps, a loader holds 64"):
        made(writer)


# Programs


def test_a_program_is_loaded_as_the_object_says() -> None:
    writer = ObjectWriter(license="Dual MIT/GPL")
    writer.add_program("xdp.frags/cpumap", "a_program_with_a_long_name")
    loader = generate(writer.read(), "kfunc")
    load = only(loader, Cmd.PROG_LOAD)
    expected = {
        "prog_type": ProgType.XDP,
        "insn_cnt": 2,
        "prog_flags": ProgFlag.XDP_HAS_FRAGS,
        "expected_attach_type": 35,
        "core_relo_rec_size": 16,
    }
    assert {name: value for name, value in load.fields.items() if value} == expected
    assert load.name("prog_name") == "a_program_with_"
    assert len(load.raw) == 140
    assert blob(loader, load, "insns", 16) == encode_insns(RETURN_0)
    assert blob(loader, load, "license", 13) == b"Dual MIT/GPL\0"
    assert load.written["fd_array"] == Value("address", 0)
    assert load.written["prog_btf_fd"] == Value("stack", -168)
    assert load.written["log_level"] == Value("ctx", 8)
    assert loader.programs == (
        ProgramEntry("a_program_with_a_long_name", "xdp.frags/cpumap", ProgType.XDP, 35, "", 2),
    )


def test_programs_that_are_not_to_load_are_left_out() -> None:
    writer = ObjectWriter()
    writer.add_program("?kprobe/x", "optional")
    writer.add_program("kprobe/x", "needed")
    loader = generate(writer.read(), "kfunc")
    assert only(loader, Cmd.PROG_LOAD).name("prog_name") == "needed"
    assert [program.name for program in loader.programs] == ["needed"]


def many(count: int) -> Loader:
    writer = ObjectWriter()
    for number in range(count):
        writer.add_program("xdp", f"prog{number}")
    return generate(writer.read(), "kfunc")


@pytest.mark.parametrize("count", [1, 32])
def test_up_to_32_program_fds_are_kept_on_the_stack(count: int) -> None:
    insns = decode_insns(many(count).insns)
    kept = [i.off for i in insns if (i.code, i.dst, i.src) == (0x63, 10, 7)]
    assert kept == [-168, *range(-128, -128 + 4 * count, 4)]


@pytest.mark.parametrize("count", [33, 147])
def test_more_program_fds_are_kept_in_the_blob(count: int) -> None:
    loader = many(count)
    insns = decode_insns(loader.insns)
    assert [i.off for i in insns if (i.code, i.dst, i.src) == (0x63, 10, 7)] == [-168]
    kept = [
        insns[index - 1].imm
        for index, i in enumerate(insns)
        if (i.code, i.dst, i.src, i.off) == (0x63, 1, 7, 0)
    ]
    assert kept == [FD_ARRAY + 4 * number for number in range(count)]
    assert loader.metadata[FD_ARRAY : FD_ARRAY + 4 * count] == bytes(4 * count)
    assert all(i.off >= -512 for i in insns if i.dst == 10 and i.insn_class in (2, 3))


def test_subprograms_count_for_the_room_on_the_stack() -> None:
    writer = ObjectWriter()
    for number in range(32):
        writer.add_subprogram(f"sub{number}")
    loader = made(writer)
    insns = decode_insns(loader.insns)
    assert [i.off for i in insns if (i.code, i.dst, i.src) == (0x63, 10, 7)] == [-168]


def test_a_loader_too_large_for_its_jumps_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="too far for a jump") as caught:
        many(900)
    assert caught.value.hint == "split the object"


@pytest.mark.parametrize("count", [2, 40])
def test_fds_are_handed_back_in_the_context(count: int) -> None:
    writer = ObjectWriter()
    writer.add_map("a", type=1)
    writer.add_map("b", type=1)
    for number in range(count):
        writer.add_program("xdp", f"prog{number}")
    loader = generate(writer.read(), "kfunc")
    insns = decode_insns(loader.insns)
    stored = [i.off for i in insns if (i.code, i.dst, i.src) == (0x63, 6, 0)]
    programs = [loader.prog_fd_offset(number) for number in range(count)]
    assert stored == [*programs, loader.map_fd_offset(0), loader.map_fd_offset(1)]
    assert stored[-2:] == [24, 40]
    assert loader.ctx_size == 24 + 2 * 16 + 4 * count


# Records


def described(byteorder: ByteOrder) -> Loader:
    writer = ObjectWriter(byteorder)
    first = writer.add_func("first")
    second = writer.add_func("second")
    writer.add_program("xdp", "first", [mov64_imm(0, 1), exit_insn()])
    writer.add_program("xdp", "second", [mov64_imm(0, 2), exit_insn()])
    writer.func_info["xdp"] = [(0, first), (16, second)]
    writer.line_info["xdp"] = [(0, 1, 1, 1 << 10), (16, 1, 1, 2 << 10), (24, 1, 1, 3 << 10)]
    writer.core_relos["xdp"] = [(8, 1, 2, 3), (24, 4, 5, 6)]
    return generate(writer.read(), "kfunc")


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_records_count_from_the_start_of_each_program(byteorder: ByteOrder) -> None:
    loader = described(byteorder)
    second = [entry for entry in commands(loader) if entry.command is Cmd.PROG_LOAD][1]
    sign = "<" if byteorder == "little" else ">"
    counts = {
        name: value
        for name, value in second.fields.items()
        if name.endswith(("_cnt", "_rec_size")) and value
    }
    assert counts == {
        "insn_cnt": 2,
        "func_info_rec_size": 8,
        "func_info_cnt": 1,
        "line_info_rec_size": 16,
        "line_info_cnt": 2,
        "core_relo_cnt": 1,
        "core_relo_rec_size": 16,
    }
    # functions and lines count in slots, CO-RE relocations in bytes
    func = struct.unpack(f"{sign}2I", blob(loader, second, "func_info", 8))
    lines = struct.unpack(f"{sign}8I", blob(loader, second, "line_info", 32))
    relo = struct.unpack(f"{sign}4I", blob(loader, second, "core_relos", 16))
    assert func[0] == 0
    assert (lines[0], lines[3], lines[4], lines[7]) == (0, 2 << 10, 1, 3 << 10)
    assert relo == (8, 4, 5, 6)


# The whole


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_object_gives_the_same_bytes(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = generate(everything().read(), scheme)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    assert generate(everything().read(), scheme) == first


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_big_endian_loader_has_the_same_insns(scheme: str) -> None:
    little = generate(everything().read(), scheme)
    big = generate(everything("big").read(), scheme)
    insns = decode_insns(little.insns), decode_insns(big.insns, "big")
    pairs = list(zip(*insns, strict=True))
    assert all(a._replace(imm=0) == b._replace(imm=0) for a, b in pairs)
    # beside the digest only the mask of the register byte depends on the byte order
    digest = 8 if scheme in CHECKS else 0
    different = [(a.imm, b.imm) for a, b in pairs if a.imm != b.imm]
    assert sum(pair != (0x0F, 0xF0) for pair in different) == digest
    assert len(little.metadata) == len(big.metadata)
    assert (little.maps, little.programs, little.btf) == (big.maps, big.programs, big.btf)


def test_an_error_names_the_object() -> None:
    writer = ObjectWriter()
    writer.add_program("fentry", "main")
    with pytest.raises(UnsupportedError, match="names no attach target") as caught:
        generate(writer.read("my.bpf.o"), "kfunc")
    assert caught.value.where == "my_bpf: program 'main'"


def test_read_only_maps_keep_their_flag() -> None:
    writer = ObjectWriter()
    writer.add_variable("x", ".rodata", bytes(4))
    create = only(made(writer), Cmd.MAP_CREATE)
    assert create.fields["map_flags"] == MapFlag.RDONLY_PROG | MapFlag.MMAPABLE
