"""Inputs that cost the most: whatever an attacker can make many or long, one kind each.

Each function takes the number of things and returns a file. The sizes of the files grow in
proportion, and so must the time and the memory that reading them takes.

Example:
    >>> len(OBJECTS["map-in-map slots"](10)) < len(OBJECTS["map-in-map slots"](20))
    True
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn, exit_insn, mov64_imm
from bpfseal.bpf.uapi import MapType
from bpfseal.btf.kinds import Kind, Linkage
from support.btf_writer import BtfWriter
from support.elf_writer import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_WRITE,
    SHT_NOBITS,
    SHT_PROGBITS,
    STT_FUNC,
    STT_OBJECT,
    ElfWriter,
)
from support.object_writer import RETURN_0, ObjectWriter, call, load

_CODE: Final = SHF_ALLOC | SHF_EXECINSTR
_LONG: Final = 24
"""Bytes of a shared name for each thing that has it: a name as long as the symbol table."""


def map_slots(count: int) -> bytes:
    """A map of maps with so many slots that the file fills."""
    writer = ObjectWriter()
    inner = writer.members(type=MapType.ARRAY, key_size=4, value_size=4, max_entries=1)
    writer.add_map("leaf", type=MapType.ARRAY, key_size=4, value_size=4, max_entries=1)
    slots = dict.fromkeys(range(count), "leaf")
    writer.add_outer_map("outer", inner, slots, max_entries=count)
    writer.add_program("xdp", "main")
    return writer.encode()


def slot_sections(count: int) -> bytes:
    """As many relocation sections, each filling one slot of one map."""
    writer = ObjectWriter()
    inner = writer.members(type=MapType.ARRAY, key_size=4, value_size=4, max_entries=1)
    writer.add_map("leaf", type=MapType.ARRAY, key_size=4, value_size=4, max_entries=1)
    for number in range(30):
        writer.add_map(f"m{number}", type=2, key_size=4, value_size=4, max_entries=1)
    writer.add_outer_map("outer", inner, {0: "leaf"}, max_entries=1)
    writer.add_program("xdp", "main")
    writer.elf.relocation_copies = count
    return writer.encode()


def program_slots(count: int) -> bytes:
    """A program array with so many slots, over a hundred programs."""
    writer = ObjectWriter()
    for number in range(100):
        writer.add_program("socket", f"p{number}")
    writer.add_program_array("jumps", {slot: f"p{slot % 100}" for slot in range(count)})
    return writer.encode()


def tags(count: int) -> bytes:
    """As many programs as declaration tags, each naming a callback of another program."""
    writer = ObjectWriter()
    for number in range(count):
        writer.add_program("xdp", f"p{number}")
        writer.btf.add_decl_tag(f"exception_callback:c{number}", writer.add_func(f"f{number}"))
    return writer.encode()


def records(kind: str, width: int) -> Callable[[int], bytes]:
    """Programs in one section with a record of .BTF.ext each."""

    def build(count: int) -> bytes:
        writer = ObjectWriter()
        rows = []
        for number in range(count):
            _, offset = writer.add_program("socket", f"p{number}")
            rows.append((offset, *[0] * (width - 1)))
        getattr(writer, kind)["socket"] = rows
        return writer.encode()

    return build


def map_references(count: int) -> bytes:
    """A program that refers to as many maps, once each."""
    writer = ObjectWriter()
    for number in range(count):
        writer.add_map(f"m{number}", type=2, key_size=4, value_size=4, max_entries=1)
    loads = [insn for number in range(count) for insn in load(1, f"m{number}")]
    writer.add_program("xdp", "main", [*loads, *RETURN_0])
    return writer.encode()


def relocation_sections(count: int) -> bytes:
    """As many sections of code, each with a relocation section of its own."""
    writer = ObjectWriter()
    writer.add_map("m", type=2, key_size=4, value_size=4, max_entries=1)
    for number in range(count):
        writer.add_program(f"kprobe/f{number}", f"p{number}", [*load(1, "m"), *RETURN_0])
    return writer.encode()


def kfuncs(count: int) -> bytes:
    """A program that calls as many kfuncs."""
    writer = ObjectWriter()
    for number in range(count):
        writer.add_kfunc(f"k{number}", weak=True)
    writer.add_program("xdp", "main", [*(call(f"k{n}") for n in range(count)), *RETURN_0])
    return writer.encode()


def kfuncs_of_one_prototype(count: int) -> bytes:
    """Kfuncs that share one prototype of as many nameless parameters."""
    writer = ObjectWriter()
    proto = writer.btf.add_func_proto(writer.int_id, [("", writer.int_id)] * count)
    for number in range(count):
        func = writer.btf.add_func(f"k{number}", proto, Linkage.EXTERN)
        writer.add_extern(f"k{number}", ".ksyms", func)
    writer.add_program("xdp", "main")
    return writer.encode()


def ksyms(count: int) -> bytes:
    """A program that refers to as many kernel symbols without a type."""
    writer = ObjectWriter()
    for number in range(count):
        writer.add_ksym(f"k{number}")
    loads = [insn for number in range(count) for insn in load(1, f"k{number}")]
    writer.add_program("xdp", "main", [*loads, *RETURN_0])
    return writer.encode()


def typed_ksyms(count: int) -> bytes:
    """Typed kernel symbols behind as many small integer types."""
    writer = ObjectWriter()
    for number in range(count):
        writer.btf.add_int(f"i{number}", 1)
    late = writer.btf.add_int("late", 8)
    for number in range(count):
        writer.add_ksym(f"k{number}", late, weak=True)
    loads = [insn for number in range(count) for insn in load(1, f"k{number}")]
    writer.add_program("xdp", "main", [*loads, *RETURN_0])
    return writer.encode()


def modifiers(count: int) -> bytes:
    """Kernel symbols whose type stands behind as many modifiers."""
    writer = ObjectWriter()
    type_id = writer.int_id
    for _ in range(count):
        type_id = writer.btf.add_modifier(Kind.VOLATILE, type_id)
    for number in range(count):
        writer.add_ksym(f"k{number}", type_id, weak=True)
    writer.add_program("xdp", "main")
    return writer.encode()


def kconfigs(count: int) -> bytes:
    """As many values of the kernel's configuration."""
    writer = ObjectWriter()
    for number in range(count):
        writer.add_kconfig(f"CONFIG_{number}", writer.int_id, 4, weak=True)
    writer.add_program("xdp", "main")
    return writer.encode()


def data_sections(count: int) -> bytes:
    """As many data sections of their own."""
    writer = ObjectWriter()
    for number in range(count):
        writer.add_variable(f"v{number}", f".data.s{number}", bytes(4))
    writer.add_program("xdp", "main")
    return writer.encode()


def subprograms(count: int) -> bytes:
    """A program that calls as many subprograms."""
    writer = ObjectWriter()
    calls = [call(f"s{number}") for number in range(count)]
    writer.add_program("xdp", "main", [*calls, *RETURN_0])
    for number in range(count):
        writer.add_subprogram(f"s{number}")
    return writer.encode()


def shared_subprogram(count: int) -> bytes:
    """As many programs that all call one subprogram of as many instructions."""
    writer = ObjectWriter()
    for number in range(count):
        writer.add_program("socket", f"p{number}", [call("large"), exit_insn()])
    writer.add_subprogram("large", [mov64_imm(0, 0)] * count + [exit_insn()])
    return writer.encode()


def aliases(count: int) -> bytes:
    """As many names of one program of as many instructions."""
    elf = ElfWriter()
    section = elf.add_section("socket", bytes(8 * count), flags=_CODE)
    for number in range(count):
        elf.add_symbol(f"p{number}", section, 0, 8 * count, type=STT_FUNC)
    return elf.encode()


def nested_functions(count: int) -> bytes:
    """Functions each of which reaches from its own start to the end of the section."""
    elf = ElfWriter()
    section = elf.add_section("socket", bytes(8 * count), flags=_CODE)
    for number in range(count):
        elf.add_symbol(f"p{number}", section, 8 * number, 8 * (count - number), type=STT_FUNC)
    return elf.encode()


def shared_symbol_name(count: int) -> bytes:
    """As many symbols that share one name, which is as long as their table."""
    elf = ElfWriter(shares_names=True)
    section = elf.add_section("xdp", bytes(8), flags=_CODE)
    elf.add_symbol("main", section, 0, 8, type=STT_FUNC)
    name = "x" * (_LONG * count)
    for _ in range(count):
        elf.add_symbol(name, section, type=STT_OBJECT)
    return elf.encode()


def nested_symbol_names(count: int) -> bytes:
    """As many symbols whose names end together, as in a table that is shared to the utmost."""
    elf = ElfWriter(shares_names=True)
    section = elf.add_section("xdp", bytes(8), flags=_CODE)
    elf.add_symbol("main", section, 0, 8, type=STT_FUNC)
    for number in range(count):
        elf.add_symbol("x" * (count - number), section, type=STT_OBJECT)
    return elf.encode()


def shared_section_name(count: int) -> bytes:
    """As many sections that share one long name."""
    elf = ElfWriter(shares_names=True)
    name = "?xdp/" + "x" * (_LONG * count)
    for _ in range(count):
        elf.add_section(name, bytes(8), flags=_CODE)
    return elf.encode()


def shared_type_name(count: int) -> bytes:
    """As many types and members that share one long name."""
    writer = ObjectWriter()
    name = "x" * (_LONG * count)
    members = [(name, writer.int_id, 0)] * count
    for _ in range(count):
        writer.btf.add_typedef(name, writer.int_id)
    struct = writer.btf.add_struct(name, 8, members)
    writer.add_variable("v", ".data", bytes(8), struct)
    writer.add_program("xdp", "main")
    return writer.encode()


def nested_type_names(count: int) -> bytes:
    """As many types and an extern whose name all of their names end in."""
    writer = ObjectWriter()
    whole = writer.btf.string("x" * (_LONG * count))
    for number in range(count):
        writer.btf.add_raw(Kind.TYPEDEF, writer.int_id, name_off=whole + number)
    writer.add_ksym("x", writer.int_id, weak=True)
    writer.add_program("xdp", "main")
    return writer.encode()


def empty_data(count: int) -> bytes:
    """A few hundred bytes that ask for a value of `count` zeros."""
    elf = ElfWriter()
    section = elf.add_section("xdp", bytes(8), flags=_CODE)
    elf.add_symbol("main", section, 0, 8, type=STT_FUNC)
    flags = SHF_ALLOC | SHF_WRITE
    elf.add_section(".bss", type=SHT_NOBITS, flags=flags, size=count)
    return elf.encode()


def long_code(count: int) -> bytes:
    """One program of as many instructions, with a reference each."""
    writer = ObjectWriter()
    writer.add_map("m", type=2, key_size=4, value_size=4, max_entries=1)
    loads = [insn for _ in range(count) for insn in load(1, "m")]
    writer.add_program("xdp", "main", [*loads, *RETURN_0])
    return writer.encode()


def plain_sections(count: int) -> bytes:
    """Sections that mean nothing, and as many symbols."""
    elf = ElfWriter()
    for number in range(count):
        section = elf.add_section(f"xdp/{number}" if number else "xdp", flags=_CODE)
        elf.add_symbol(f"s{number}", section, type=STT_OBJECT)
    elf.add_section("license", b"GPL\0", type=SHT_PROGBITS)
    return elf.encode()


def branches(count: int) -> bytes:
    """One program of as many calls that are none of a subprogram."""
    writer = ObjectWriter()
    helper = Insn(op.JMP | op.CALL, 0, 0, 0, 7)
    writer.add_program("xdp", "main", [*[helper] * count, *RETURN_0])
    return writer.encode()


OBJECTS: Final[dict[str, Callable[[int], bytes]]] = {
    "map-in-map slots": map_slots,
    "relocation sections of slots": slot_sections,
    "program-array slots": program_slots,
    "declaration tags x programs": tags,
    "func_info x programs": records("func_info", 2),
    "line_info x programs": records("line_info", 4),
    "CO-RE records x programs": records("core_relos", 4),
    "maps and relocations": map_references,
    "relocation sections": relocation_sections,
    "kfuncs": kfuncs,
    "kfuncs of one prototype": kfuncs_of_one_prototype,
    "ksyms": ksyms,
    "typed ksyms": typed_ksyms,
    "modifiers x ksyms": modifiers,
    "kconfig values": kconfigs,
    "own data sections": data_sections,
    "sections and symbols": plain_sections,
    "subprograms": subprograms,
    "programs x one subprogram": shared_subprogram,
    "aliases": aliases,
    "nested functions": nested_functions,
    "symbols of one long name": shared_symbol_name,
    "nested symbol names": nested_symbol_names,
    "sections of one long name": shared_section_name,
    "types of one long name": shared_type_name,
    "nested type names": nested_type_names,
    "references": long_code,
    "calls": branches,
}
"""Objects by what they have many of."""


@dataclass(frozen=True, slots=True)
class FileCase:
    """A file that is no object.

    Attributes:
        build: makes it.
        load: returns what reads it; imports only then what that needs.
    """

    build: Callable[[int], bytes]
    load: Callable[[], Callable[[bytes], object]]


def _certificates() -> Callable[[bytes], object]:
    from bpfseal.signing.trust import read_certificates

    return read_certificates


def _btf() -> Callable[[bytes], object]:
    from bpfseal.btf.btf import Btf
    from bpfseal.kernel.model.btf_records import check_records
    from bpfseal.kernel.model.btf_resolution import check_resolution

    def load(data: bytes) -> None:
        btf = Btf.from_bytes(data)
        check_records(btf)
        check_resolution(btf, tags_first=True)

    return load


def _policy() -> Callable[[bytes], object]:
    from bpfseal.kernel.model.ipe.parser import parse_policy

    return parse_policy


def _tar() -> Callable[[bytes], object]:
    from bpfseal.bundle.store import unpack

    return lambda data: unpack(data, "cost.bpfseal")


def _header() -> Callable[[bytes], object]:
    from bpfseal.bundle.lskel_import import import_header

    return lambda data: import_header(data, "cost.lskel.h")


def _kconfig() -> Callable[[bytes], object]:
    from bpfseal.object.target import parse_kconfig

    return lambda data: parse_kconfig(data.decode())


def modifier_chain(count: int) -> bytes:
    """BTF whose types are one long chain of modifiers, each leading to the one before it."""
    writer = BtfWriter()
    type_id = writer.add_int("int", 4)
    for _ in range(count):
        type_id = writer.add_modifier(Kind.VOLATILE, type_id)
    return writer.encode()


def functions_of_one_prototype(count: int) -> bytes:
    """BTF with as many functions as their one prototype has parameters."""
    writer = BtfWriter()
    number = writer.add_int("int", 4)
    proto = writer.add_func_proto(number, [("a", number)] * count)
    for index in range(count):
        writer.add_func(f"f{index}", proto)
    return writer.encode()


FILES: Final[dict[str, FileCase]] = {
    "newlines, certificates": FileCase(lambda n: b"\n" * 10 * n, _certificates),
    "blanks, certificates": FileCase(lambda n: b" \n\ta" * 10 * n, _certificates),
    "PEM without an end": FileCase(lambda n: b"-----BEGIN CERTIFICATE-----\n" * n, _certificates),
    "tiny DER": FileCase(lambda n: b"0\0" * n, _certificates),
    "a chain of modifiers": FileCase(modifier_chain, _btf),
    "functions of one prototype": FileCase(functions_of_one_prototype, _btf),
    "policy: lines": FileCase(
        lambda n: (
            b"policy_name=p policy_version=1.0.0\nDEFAULT action=DENY\n"
            + b"op=BPF_PROG_LOAD bpf_signature=OK action=ALLOW\n" * n
        ),
        _policy,
    ),
    "policy: properties": FileCase(
        lambda n: (
            b"policy_name=p policy_version=1.0.0\nDEFAULT action=DENY\nop=EXECUTE "
            + b"boot_verified=TRUE " * n
            + b"action=ALLOW\n"
        ),
        _policy,
    ),
    "policy: blanks": FileCase(lambda n: b" \t" * 10 * n, _policy),
    "tar: blocks": FileCase(lambda n: bytes(512) * n, _tar),
    "header: blanks": FileCase(lambda n: b"#include <bpf/skel_internal.h>\n" + b" " * n, _header),
    "header: newlines": FileCase(
        lambda n: b"#include <bpf/skel_internal.h>\n" + b"\n" * n, _header
    ),
    "kconfig: lines": FileCase(lambda n: b"CONFIG_A=y\n" * n, _kconfig),
}
"""Other files by what they have many of."""
