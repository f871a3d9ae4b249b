"""What instructions refer to (``bpf_program__record_reloc`` in tools/lib/bpf/libbpf.c)."""

from __future__ import annotations

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import ByteOrder, Insn, call_helper, exit_insn, mov64_imm
from bpfseal.errors import BpfsealError, InputError
from bpfseal.object.model import Relocation, RelocationKind
from support.elf_writer import SHT_REL, STB_LOCAL, STT_FUNC, STT_NOTYPE, STT_OBJECT
from support.object_writer import RETURN_0, Code, ObjectWriter, Reference, call, load

BYTE_ORDERS = ("little", "big")


def relocations(writer: ObjectWriter, code: Code) -> tuple[Relocation, ...]:
    """Return the references of a program with this code."""
    writer.add_program("xdp", "main", [*code, exit_insn()])
    return next(f for f in writer.read().functions if f.name == "main").relocations


@pytest.mark.parametrize("byteorder", BYTE_ORDERS)
def test_a_map_is_named_by_its_number(byteorder: ByteOrder) -> None:
    writer = ObjectWriter(byteorder)
    writer.add_map("first", type=1)
    writer.add_map("second", type=1)
    found = relocations(writer, [mov64_imm(0, 0), *load(1, "second"), *load(1, "first")])
    assert found == (
        Relocation(1, RelocationKind.MAP, 1),
        Relocation(3, RelocationKind.MAP, 0),
    )


@pytest.mark.parametrize("section", [".data", ".rodata", ".bss", ".data.custom"])
def test_data_is_named_by_map_and_offset(section: str) -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=1)
    writer.add_variable("first", section, bytes(8))
    writer.add_variable("second", section, bytes(8))
    found = relocations(writer, load(1, "second"))
    assert found == (Relocation(0, RelocationKind.DATA, 1, 8),)


def test_static_data_is_named_by_its_section() -> None:
    writer = ObjectWriter()
    writer.add_variable("hidden", ".bss", bytes(8), bind=STB_LOCAL)
    found = relocations(writer, load(1, ".bss", addend=4))
    assert found == (Relocation(0, RelocationKind.DATA, 0, 0),)


@pytest.mark.parametrize("byteorder", BYTE_ORDERS)
def test_calls_of_subprograms_are_named_by_offset(byteorder: ByteOrder) -> None:
    writer = ObjectWriter(byteorder)
    writer.add_subprogram("first")
    writer.add_subprogram("second")
    found = relocations(writer, [call("second"), call(".text", imm=1), *load(1, "second")])
    assert found == (
        Relocation(0, RelocationKind.SUBPROGRAM_CALL, 0, 16),
        Relocation(1, RelocationKind.SUBPROGRAM_CALL, 0, 0),
        Relocation(2, RelocationKind.SUBPROGRAM_ADDRESS, 0, 16),
    )


def test_the_address_of_a_static_subprogram_is_named_by_the_section() -> None:
    writer = ObjectWriter()
    writer.add_subprogram("callback", bind=STB_LOCAL)
    found = relocations(writer, load(1, ".text", addend=0))
    assert found == (Relocation(0, RelocationKind.SUBPROGRAM_ADDRESS, 0, 0),)


def test_externs_are_named_by_number() -> None:
    writer = ObjectWriter()
    writer.add_kfunc("b_kfunc")
    writer.add_ksym("a_symbol")
    writer.add_kconfig("LINUX_KERNEL_VERSION", writer.int_id, 4)
    code: list[Insn | Reference] = [
        call("b_kfunc"),
        *load(1, "a_symbol"),
        *load(1, "LINUX_KERNEL_VERSION"),
        *load(1, "b_kfunc"),
    ]
    assert relocations(writer, code) == (
        Relocation(0, RelocationKind.EXTERN_CALL, 2),
        Relocation(1, RelocationKind.EXTERN_LD64, 1),
        Relocation(3, RelocationKind.EXTERN_LD64, 0),
        Relocation(5, RelocationKind.EXTERN_LD64, 2),
    )


def test_references_come_by_insn_and_stay_with_their_function() -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=1)
    writer.add_program("xdp", "first", [*load(1, "table"), exit_insn()])
    writer.add_program("xdp", "second", [mov64_imm(0, 0), *load(1, "table"), exit_insn()])
    writer._references.reverse()
    functions = writer.read().functions
    assert [[r.insn for r in f.relocations] for f in functions] == [[0], [1]]


def test_references_outside_all_functions_are_left_over_and_ignored() -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=1)
    index, _ = writer.add_program("xdp", "gone", [*load(1, "table"), exit_insn()])
    writer.add_program("xdp", "main")
    writer.elf.symbols[:] = [s for s in writer.elf.symbols if s.name != "gone"]
    writer._references[:] = [(index, 0, "main")]
    writer._symbols["main"] -= 1
    assert [f.relocations for f in writer.read().functions] == [()]


def test_relocations_of_other_sections_are_not_for_a_loader() -> None:
    writer = ObjectWriter()
    debug = writer.elf.add_section(".debug_info", bytes(8))
    writer.add_program("xdp", "main")
    writer._references.append((debug, 4, "main"))
    assert writer.read().functions[0].relocations == ()


def refused(writer: ObjectWriter, message: str) -> BpfsealError:
    with pytest.raises(InputError, match=message) as caught:
        writer.read()
    return caught.value


def test_a_reference_between_insns_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=1)
    index, _ = writer.add_program("xdp", "main", [*load(1, "table"), exit_insn()])
    writer._references = [(index, 4, "table")]
    assert ".relxdp entry 0" in refused(writer, "offset 0x4 is no instruction").where


def test_a_reference_outside_its_section_is_refused() -> None:
    writer = ObjectWriter()
    index, _ = writer.add_program("xdp", "main")
    writer._references = [(index, 16, "main")]
    refused(writer, "relocation 0 at offset 0x10 lies outside its section 'xdp' of 0x10 bytes")


def test_a_reference_to_a_missing_symbol_is_refused() -> None:
    writer = ObjectWriter()
    index, _ = writer.add_program("xdp", "main")
    writer.elf.add_relocation(index, 0, 99)
    refused(writer, "symbol 99 does not exist")


@pytest.mark.parametrize("section", [77, 0xFFF1, 0xFFFF])
def test_a_reference_to_a_symbol_in_a_missing_section_is_refused(section: int) -> None:
    writer = ObjectWriter()
    index, _ = writer.add_program("xdp", "main", [*load(1, "main"), exit_insn()])
    writer._references.clear()
    writer.elf.add_relocation(index, 0, writer.elf.add_symbol("lost", section))
    refused(writer, f"symbol 2 'lost' lies in section {section}, which does not exist")


@pytest.mark.parametrize("info", [0, 99])
def test_relocations_of_a_missing_section_are_refused(info: int) -> None:
    writer = ObjectWriter()
    section = writer.elf.add_section(".relxdp", bytes(16), type=SHT_REL)
    writer.elf.sections[section].info = info
    refused(writer, "applies to a section that does not exist")


def test_a_cut_relocation_section_is_refused() -> None:
    writer = ObjectWriter()
    index, _ = writer.add_program("xdp", "main")
    section = writer.elf.add_section(".relxdp", bytes(20), type=SHT_REL)
    writer.elf.sections[section].info = index
    refused(writer, "its size is no multiple of 16")


@pytest.mark.parametrize(
    "insn", [mov64_imm(1, 0), exit_insn(), Insn(0), Insn(op.LDX | op.MEM | op.DW)]
)
def test_an_insn_that_can_hold_no_reference_is_refused(insn: Insn) -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=1)
    writer.add_program("xdp", "main", [Reference(insn, "table"), exit_insn()])
    refused(writer, f"opcode {insn.code:#04x} has no reference")


def test_half_a_ld_imm64_at_the_end_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=1)
    writer.add_program("xdp", "main", [load(1, "table")[0]])
    refused(writer, "a ld_imm64 at the end of its function is cut off")


def test_a_call_of_data_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_variable("x", ".data", bytes(8))
    writer.add_program("xdp", "main", [call("x"), exit_insn()])
    refused(writer, "a call of 'x' leads to no subprogram")


def test_a_call_of_an_entry_program_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_subprogram("sub")
    writer.add_program("xdp", "main", [call("main"), exit_insn()])
    refused(writer, "a call of 'main' leads to no subprogram")


def test_a_helper_call_with_a_reference_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_subprogram("sub")
    writer.add_program("xdp", "main", [Reference(call_helper(1), "sub"), exit_insn()])
    refused(writer, "a call of 'sub' leads to no subprogram")


def test_a_call_into_the_middle_of_an_insn_is_refused() -> None:
    writer = ObjectWriter()
    text, _ = writer.add_subprogram("sub")
    writer._symbols["odd"] = writer.elf.add_symbol("odd", text, 4, type=STT_OBJECT)
    writer.add_program("xdp", "main", [call("odd"), exit_insn()])
    refused(writer, "a call of 'odd' leads to no subprogram")


def test_the_middle_of_a_map_is_no_map() -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=1, max_entries=1)
    maps = writer._sections[".maps"]
    writer._symbols["middle"] = writer.elf.add_symbol("middle", maps, 4)
    writer.add_program("xdp", "main", [*load(1, "middle"), exit_insn()])
    refused(writer, "'middle' in section '.maps' is neither a map nor data")


def test_the_address_of_an_entry_program_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_program("xdp", "main", [*load(1, "main"), exit_insn()])
    refused(writer, "'main' in section 'xdp' is neither a map nor data")


def test_a_call_of_kernel_configuration_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_kconfig("LINUX_KERNEL_VERSION", writer.int_id, 4)
    writer.add_program("xdp", "main", [call("LINUX_KERNEL_VERSION"), exit_insn()])
    refused(writer, "'LINUX_KERNEL_VERSION' is called but is no function")


def test_an_extern_without_a_name_is_refused_where_it_is_used() -> None:
    writer = ObjectWriter()
    writer._symbols["nameless"] = writer.elf.add_symbol("", 0, type=STT_NOTYPE)
    writer.add_program("xdp", "main", [call("nameless"), exit_insn()])
    refused(writer, "symbol '' is no known extern")


def test_two_names_of_one_function_both_get_its_references() -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=1)
    index, _ = writer.add_program("xdp", "main", [*load(1, "table"), *RETURN_0])
    writer.elf.add_symbol("alias", index, 0, 32, type=STT_FUNC)
    assert [len(f.relocations) for f in writer.read().functions] == [1, 1]
