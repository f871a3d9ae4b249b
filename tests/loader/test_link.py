"""Putting programs together (``bpf_object__reloc_code``, ``bpf_object__relocate_data``)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import ByteOrder, Insn, exit_insn, ld_imm64, mov64_imm
from bpfseal.bpf.uapi import Cmd
from bpfseal.errors import InputError, UnsupportedError
from bpfseal.loader import generate
from bpfseal.loader.model import Loader
from support.elf_writer import STB_LOCAL, STV_HIDDEN
from support.loader_reading import blob, only, program_insns
from support.object_writer import Code, ObjectWriter, call, load

SUBPROGRAM = op.JMP | op.CALL


def marked(number: int, calls: Sequence[str]) -> Code:
    """A function that can be told by the number it returns."""
    return [*(call(name) for name in calls), mov64_imm(0, number), exit_insn()]


def linked(writer: ObjectWriter, number: int = 0) -> list[Insn]:
    return program_insns(generate(writer.read(), "kfunc"), number)


def order(insns: Sequence[Insn]) -> list[int]:
    """Return the numbers of the functions in the order they stand in."""
    return [insn.imm for insn in insns if insn.code == op.ALU64 | op.MOV | op.K]


def targets(insns: Sequence[Insn]) -> list[int]:
    """Return the number of the function that each call leads to."""
    found = []
    for index, insn in enumerate(insns):
        if insn.code == SUBPROGRAM and insn.src == op.PSEUDO_CALL:
            found.append(order(insns[index + 1 + insn.imm :])[0])
    return found


GRAPHS: dict[str, tuple[Mapping[str, Sequence[str]], list[str]]] = {
    "none": ({"main": []}, ["main"]),
    "one": ({"main": ["a"], "a": []}, ["main", "a"]),
    "unused are left out": ({"main": ["b"], "a": [], "b": []}, ["main", "b"]),
    "chain": ({"main": ["a"], "a": ["b"], "b": []}, ["main", "a", "b"]),
    "in the order of calls": ({"main": ["b", "a"], "a": [], "b": []}, ["main", "b", "a"]),
    "once for two calls": ({"main": ["a", "a"], "a": []}, ["main", "a"]),
    "diamond": (
        {"main": ["a", "b"], "a": ["c"], "b": ["c"], "c": []},
        ["main", "a", "c", "b"],
    ),
    "depth before breadth": (
        {"main": ["a", "d"], "a": ["b", "c"], "b": [], "c": ["d"], "d": []},
        ["main", "a", "b", "c", "d"],
    ),
    "recursion": ({"main": ["a"], "a": ["a"]}, ["main", "a"]),
    "circle": ({"main": ["a"], "a": ["b"], "b": ["a"]}, ["main", "a", "b"]),
}


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("name", GRAPHS)
def test_subprograms_are_appended_at_their_first_call(name: str, byteorder: ByteOrder) -> None:
    graph, expected = GRAPHS[name]
    numbers = {function: number for number, function in enumerate(sorted(graph), 100)}
    writer = ObjectWriter(byteorder)
    for function in sorted(graph):
        section = "xdp" if function == "main" else ".text"
        writer.add_program(section, function, marked(numbers[function], graph[function]))
    insns = linked(writer)
    assert order(insns) == [numbers[function] for function in expected]
    assert targets(insns) == [numbers[callee] for f in expected for callee in graph[f]]


def test_each_program_gets_its_own_copy() -> None:
    writer = ObjectWriter()
    writer.add_subprogram("a", marked(1, []))
    writer.add_subprogram("b", marked(2, []))
    writer.add_program("xdp", "first", marked(3, ["b", "a"]))
    writer.add_program("xdp", "second", marked(4, ["a"]))
    loader = generate(writer.read(), "kfunc")
    assert order(program_insns(loader, 0)) == [3, 2, 1]
    assert order(program_insns(loader, 1)) == [4, 1]
    assert [program.insn_count for program in loader.programs] == [8, 5]


def test_calls_inside_text_need_no_relocation() -> None:
    writer = ObjectWriter()
    writer.add_subprogram("a", marked(1, []))
    inner = Insn(SUBPROGRAM, 0, op.PSEUDO_CALL, 0, -3)
    writer.add_subprogram("b", [inner, mov64_imm(0, 2), exit_insn()])
    writer.add_program("xdp", "main", marked(3, ["b"]))
    insns = linked(writer)
    assert order(insns) == [3, 2, 1]
    assert targets(insns) == [2, 1]


def test_static_subprograms_are_called_by_section_and_offset() -> None:
    writer = ObjectWriter()
    writer.add_subprogram("a", marked(1, []), bind=STB_LOCAL)
    writer.add_subprogram("b", marked(2, []), bind=STB_LOCAL)
    writer.add_program("xdp", "main", [call(".text", imm=1), mov64_imm(0, 3), exit_insn()])
    assert order(linked(writer)) == [3, 2]


def test_the_address_of_a_subprogram_is_a_distance() -> None:
    writer = ObjectWriter()
    writer.add_subprogram("a", marked(1, []), bind=STB_LOCAL)
    writer.add_subprogram("b", marked(2, []), bind=STB_LOCAL)
    writer.add_program("xdp", "main", [*load(2, ".text", addend=16), *marked(3, [])])
    insns = linked(writer)
    assert order(insns) == [3, 2]
    assert insns[0] == Insn(op.LD_IMM64, 2, op.PSEUDO_FUNC, 0, 3)


def test_a_call_into_the_middle_of_a_subprogram_leads_to_it() -> None:
    # as in the reference, which looks for the function that holds the instruction
    writer = ObjectWriter()
    writer.add_subprogram("a", marked(1, []))
    writer.add_program("xdp", "main", [call(".text", imm=0), *marked(3, [])])
    assert order(linked(writer)) == [3, 1]


@pytest.mark.parametrize("imm", [-100, 100])
def test_a_call_that_leads_nowhere_is_refused(imm: int) -> None:
    writer = ObjectWriter()
    writer.add_subprogram("a", marked(1, []))
    writer.add_program("xdp", "main", [call(".text", imm=imm), *marked(3, [])])
    with pytest.raises(InputError, match="instruction 0 of 'main' calls no subprogram"):
        linked(writer)


def test_a_call_of_another_entry_program_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_program("xdp", "first", marked(1, []))
    back = Insn(SUBPROGRAM, 0, op.PSEUDO_CALL, 0, -3)
    writer.add_program("xdp", "second", [back, *marked(2, [])])
    with pytest.raises(InputError, match="instruction 0 of 'second' calls no subprogram"):
        linked(writer)


@pytest.mark.parametrize("length", [64, 65])
def test_call_chains_end_at_64(length: int) -> None:
    writer = ObjectWriter()
    for number in range(length):
        callees = [f"sub{number + 1}"] if number + 1 < length else []
        writer.add_subprogram(f"sub{number}", marked(number, callees))
    writer.add_program("xdp", "main", marked(999, ["sub0"]))
    if length == 64:
        assert order(linked(writer)) == [999, *range(64)]
        return
    with pytest.raises(UnsupportedError, match="calls nest deeper than 64"):
        linked(writer)


# References to data


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_maps_and_data_are_named_by_index(byteorder: ByteOrder) -> None:
    writer = ObjectWriter(byteorder)
    writer.add_map("first", type=1)
    writer.add_map("second", type=1)
    writer.add_variable("a", ".data", bytes(8))
    writer.add_variable("b", ".data", bytes(8))
    writer.add_kconfig("LINUX_KERNEL_VERSION", writer.int_id, 4)
    writer.add_kconfig("LINUX_HAS_BPF_COOKIE", writer.int_id, 4)
    names = ("second", "b", "LINUX_KERNEL_VERSION")
    code = [*(insn for name in names for insn in load(1, name)), *load(2, ".data", addend=4)]
    writer.add_program("xdp", "main", [*code, exit_insn()])
    assert linked(writer)[:-1] == [
        *ld_imm64(1, op.PSEUDO_MAP_IDX, 1),
        *ld_imm64(1, op.PSEUDO_MAP_IDX_VALUE, 2, 8),
        *ld_imm64(1, op.PSEUDO_MAP_IDX_VALUE, 3, 4),
        *ld_imm64(2, op.PSEUDO_MAP_IDX_VALUE, 2, 4),
    ]


def test_references_of_appended_subprograms_move_with_them() -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=1)
    writer.add_subprogram("a", [*load(1, "table"), exit_insn()])
    writer.add_program("xdp", "main", marked(1, ["a"]))
    assert linked(writer)[3] == Insn(op.LD_IMM64, 1, op.PSEUDO_MAP_IDX)


# Records


def recorded(with_main: bool, with_sub: bool) -> Loader:
    writer = ObjectWriter()
    main, sub = writer.add_func("main"), writer.add_func("sub")
    writer.add_subprogram("unused", marked(0, []))
    writer.add_subprogram("sub", marked(1, []))
    writer.add_program("xdp", "main", marked(2, ["sub"]))
    if with_main:
        writer.func_info["xdp"] = [(0, main)]
    if with_sub:
        writer.func_info[".text"] = [(16, sub)]
    writer.core_relos[".text"] = [(24, 7, 8, 9)]
    writer.core_relos["xdp"] = [(8, 4, 5, 6)]
    return generate(writer.read(), "kfunc")


def test_records_of_subprograms_move_with_them() -> None:
    loader = recorded(with_main=True, with_sub=True)
    program = only(loader, Cmd.PROG_LOAD)
    assert struct.unpack("<4I", blob(loader, program, "func_info", 16))[::2] == (0, 3)
    relos = struct.unpack("<8I", blob(loader, program, "core_relos", 32))
    assert relos == (8, 4, 5, 6, 32, 7, 8, 9)


def test_a_program_without_records_gets_none_of_its_subprograms() -> None:
    program = only(recorded(with_main=False, with_sub=True), Cmd.PROG_LOAD)
    assert (program.fields["func_info_cnt"], program.fields["func_info_rec_size"]) == (0, 0)


def test_a_subprogram_without_records_is_refused_if_its_program_has_them() -> None:
    with pytest.raises(InputError, match="no records for subprogram 'sub'"):
        recorded(with_main=True, with_sub=False)


# Exception callbacks


def tagged(**symbol: int) -> ObjectWriter:
    writer = ObjectWriter()
    writer.add_subprogram("handler", marked(1, []), **symbol)
    writer.add_program("xdp", "main", marked(2, []))
    writer.add_program("xdp", "other", marked(3, []))
    writer.btf.add_decl_tag("exception_callback:handler", writer.add_func("main"))
    return writer


def test_an_exception_callback_is_appended_to_its_program() -> None:
    loader = generate(tagged().read(), "kfunc")
    assert order(program_insns(loader, 0)) == [2, 1]
    assert order(program_insns(loader, 1)) == [3]


@pytest.mark.parametrize("symbol", [{"bind": STB_LOCAL}, {"visibility": STV_HIDDEN}])
def test_an_exception_callback_that_is_not_global_is_refused(symbol: dict[str, int]) -> None:
    with pytest.raises(InputError, match="'handler' is no global subprogram"):
        generate(tagged(**symbol).read(), "kfunc")
