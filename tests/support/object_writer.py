"""Write whole BPF objects as a compiler would: programs, maps, variables, externs, BTF.

Example:
    >>> writer = ObjectWriter()
    >>> _ = writer.add_map("counts", type=2, key_size=4, value_size=8, max_entries=1)
    >>> writer.add_program("xdp", "main", [*load(1, "counts"), exit_insn()])
    >>> [spec.name for spec in writer.read().maps]
    ['counts']
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import INSN_SIZE, ByteOrder, Insn, encode_insns, exit_insn, mov64_imm
from bpfseal.bpf.uapi import MapType
from bpfseal.btf.kinds import Kind, Linkage
from bpfseal.object import read_object
from bpfseal.object.model import BpfObject
from bpfseal.object.target import DEFAULT_TARGET, TargetValues
from support.btf_writer import BtfWriter, encode_ext
from support.elf_writer import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_WRITE,
    SHT_NOBITS,
    STB_GLOBAL,
    STB_LOCAL,
    STB_WEAK,
    STT_FUNC,
    STT_NOTYPE,
    STT_OBJECT,
    STT_SECTION,
    STV_DEFAULT,
    ElfWriter,
)

RETURN_0 = (mov64_imm(0, 0), exit_insn())
"""The shortest program that a kernel takes."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An instruction that refers to a symbol, or to a section by its name."""

    insn: Insn
    symbol: str


Code = Iterable[Insn | Reference]


def load(dst: int, symbol: str, addend: int = 0) -> tuple[Reference, Insn]:
    """A ld_imm64 of a symbol's address."""
    return Reference(Insn(op.LD_IMM64, dst, 0, 0, addend), symbol), Insn(0)


def call(symbol: str, imm: int = -1) -> Reference:
    """A call of a subprogram or kfunc; with a section as symbol, `imm` says where in it."""
    return Reference(Insn(op.JMP | op.CALL, 0, op.PSEUDO_CALL, 0, imm), symbol)


class ObjectWriter:
    """An object in the making.

    Attributes:
        elf: the file; add what the methods here do not offer.
        btf: the types; `int_id` is the first of them.
        has_btf: .BTF is written.
        func_info, line_info, core_relos: the records of .BTF.ext by section.
    """

    def __init__(self, byteorder: ByteOrder = "little", license: str = "GPL") -> None:  # noqa: A002
        self.elf = ElfWriter(byteorder)
        self.btf = BtfWriter()
        self.int_id = self.btf.add_int("int", 4, signed=True)
        self.has_btf = True
        self.func_info: dict[str, list[tuple[int, ...]]] = {}
        self.line_info: dict[str, list[tuple[int, ...]]] = {}
        self.core_relos: dict[str, list[tuple[int, ...]]] = {}
        self._sections: dict[str, int] = {}
        self._symbols: dict[str, int] = {}
        self._references: list[tuple[int, int, str]] = []
        self._variables: dict[str, list[tuple[int, int, int]]] = {}
        self._slots_at: dict[str, int] = {}
        if license:
            self.elf.add_section("license", license.encode() + b"\0", flags=SHF_ALLOC)

    # Code

    def add_program(
        self, section: str, name: str, code: Code = RETURN_0, **symbol: int
    ) -> tuple[int, int]:
        """Append a function to a section; return the section's index and the byte offset.

        Args:
            section: the section's name, made if it is not there.
            name: the function's name.
            code: its instructions.
            symbol: ``bind`` and ``visibility`` of its symbol.
        """
        items = list(code)
        insns = [item.insn if isinstance(item, Reference) else item for item in items]
        flags = SHF_ALLOC | SHF_EXECINSTR
        index, offset = self._append(section, encode_insns(insns, self.elf.byteorder), flags)
        size = INSN_SIZE * len(items)
        self._symbols[name] = self.elf.add_symbol(
            name, index, offset, size, **{"type": STT_FUNC, **symbol}
        )
        for position, item in enumerate(items):
            if isinstance(item, Reference):
                self._references.append((index, offset + INSN_SIZE * position, item.symbol))
        return index, offset

    def add_subprogram(self, name: str, code: Code = RETURN_0, **symbol: int) -> tuple[int, int]:
        """Append a function to .text."""
        return self.add_program(".text", name, code, **symbol)

    def add_func(self, name: str, linkage: Linkage = Linkage.GLOBAL) -> int:
        """Describe a function ``int name(void)`` in the BTF and return its id."""
        return self.btf.add_func(name, self.btf.add_func_proto(self.int_id, []), linkage)

    # Data

    def add_variable(
        self,
        name: str,
        section: str,
        data: bytes,
        type_id: int = 0,
        *,
        bind: int = STB_GLOBAL,
        visibility: int = STV_DEFAULT,
        linkage: int | None = None,
        in_btf: bool = True,
    ) -> int:
        """Append a variable to a data section and return the VAR's id, 0 without one."""
        flags = SHF_ALLOC | (0 if section.startswith(".rodata") else SHF_WRITE)
        index, offset = self._append(section, data, flags, is_nobits=section.startswith(".bss"))
        self._symbols[name] = self.elf.add_symbol(
            name, index, offset, len(data), type=STT_OBJECT, bind=bind, visibility=visibility
        )
        if not in_btf:
            return 0
        if linkage is None:
            linkage = Linkage.STATIC if bind == STB_LOCAL else Linkage.GLOBAL
        var = self.btf.add_var(name, type_id or self.int_id, linkage)
        self._variables.setdefault(section, []).append((var, 0, len(data)))
        return var

    # Maps

    def number(self, value: int) -> int:
        """``int (*)[value]``, as ``__uint`` writes a number."""
        return self.btf.add_ptr(self.btf.add_array(self.int_id, value))

    def map_struct(self, members: Mapping[str, int]) -> int:
        """A struct of pointers with these members, by name and type id."""
        entries = [(name, type_id, 64 * at) for at, (name, type_id) in enumerate(members.items())]
        return self.btf.add_struct("", 8 * len(entries), entries)

    def members(self, *, key: int = 0, value: int = 0, **numbers: int) -> dict[str, int]:
        """The members of a definition: types of key and value, and numbers."""
        members = {name: self.number(value) for name, value in numbers.items()}
        for name, type_id in (("key", key), ("value", value)):
            if type_id:
                members[name] = self.btf.add_ptr(type_id)
        return members

    def add_map(self, name: str, *, key: int = 0, value: int = 0, **numbers: int) -> int:
        """Add a map to SEC(".maps") from type ids of key and value, and numbers.

        Returns the VAR's id.
        """
        return self.add_raw_map(name, self.members(key=key, value=value, **numbers))

    def add_raw_map(
        self, name: str, members: Mapping[str, int], slots: int = 0, linkage: int | None = None
    ) -> int:
        """Add a map from its members' type ids; `slots` pointers of its values follow them."""
        struct = self.map_struct(members)
        at = 8 * (len(members) - bool(slots))
        size = at + 8 * slots if slots else 8 * len(members)
        var = self.add_variable(name, ".maps", bytes(max(size, 8)), struct, linkage=linkage)
        section = self.elf.sections[self._sections[".maps"]]
        self._slots_at[name] = len(section.data) - max(size, 8) + at
        return var

    def add_outer_map(
        self,
        name: str,
        inner: Mapping[str, int],
        slots: Mapping[int, str] | None = None,
        type: int = MapType.ARRAY_OF_MAPS,  # noqa: A002 (the member's name)
        **numbers: int,
    ) -> int:
        """Add a map-in-map with the members of its inner maps, and maps in its first slots."""
        values = self.btf.add_array(self.btf.add_ptr(self.map_struct(inner)), 0, self.int_id)
        members = self.members(type=type, **{"key_size": 4, "max_entries": 4, **numbers})
        var = self.add_raw_map(
            name, {**members, "values": values}, slots=max(slots, default=0) + 1 if slots else 0
        )
        for slot, target in (slots or {}).items():
            self.fill_slot(name, slot, target)
        return var

    def add_program_array(self, name: str, slots: Mapping[int, str]) -> int:
        """Add a program array with these programs in its first slots."""
        proto = self.btf.add_func_proto(self.int_id, [])
        values = self.btf.add_array(self.btf.add_ptr(proto), 0, self.int_id)
        members = self.members(type=MapType.PROG_ARRAY, key_size=4, max_entries=8)
        var = self.add_raw_map(name, {**members, "values": values}, slots=max(slots) + 1)
        for slot, target in slots.items():
            self.fill_slot(name, slot, target)
        return var

    def fill_slot(self, name: str, slot: int, target: str) -> None:
        """Let a slot of a map refer to a symbol."""
        at = self._slots_at[name] + 8 * slot
        self._references.append((self._sections[".maps"], at, target))

    # Externs

    def add_extern(
        self, name: str, section: str, described_by: int, *, size: int = 0, weak: bool = False
    ) -> None:
        """Add an extern symbol, and its VAR or FUNC to the section in the BTF."""
        self._symbols[name] = self.elf.add_symbol(
            name, 0, type=STT_NOTYPE, bind=STB_WEAK if weak else STB_GLOBAL
        )
        self._variables.setdefault(section, []).append((described_by, 0, size))

    def add_kconfig(self, name: str, type_id: int, size: int, *, weak: bool = False) -> None:
        """``extern TYPE name __kconfig``."""
        var = self.btf.add_var(name, type_id, Linkage.EXTERN)
        self.add_extern(name, ".kconfig", var, size=size, weak=weak)

    def add_ksym(self, name: str, type_id: int = 0, *, weak: bool = False) -> None:
        """``extern const TYPE name __ksym``; type 0 is a symbol without a type."""
        const = self.btf.add_modifier(Kind.CONST, type_id)
        var = self.btf.add_var(name, const, Linkage.EXTERN)
        self.add_extern(name, ".ksyms", var, weak=weak)

    def add_kfunc(self, name: str, *, weak: bool = False) -> None:
        """``extern int name(int) __ksym``."""
        proto = self.btf.add_func_proto(self.int_id, [("", self.int_id)])
        func = self.btf.add_func(name, proto, Linkage.EXTERN)
        self.add_extern(name, ".ksyms", func, weak=weak)

    # The result

    def encode(self) -> bytes:
        """Return the file. Call it once: what compilers leave to the end is added here."""
        for section, entries in self._variables.items():
            self.btf.add_datasec(section, entries)
        for index, offset, name in self._references:
            self.elf.add_relocation(index, offset, self._symbol(name))
        if self.has_btf:
            order = self.elf.byteorder
            records = {
                "func_info": self.func_info,
                "line_info": self.line_info,
                "core_relos": self.core_relos,
            }
            ext = encode_ext(self.btf, order, **records) if any(records.values()) else b""
            self.elf.add_section(".BTF", self.btf.encode(order))
            if ext:
                self.elf.add_section(".BTF.ext", ext)
        return self.elf.encode()

    def read(self, name: str = "sample.bpf.o", target: TargetValues = DEFAULT_TARGET) -> BpfObject:
        """Return the object as bpfseal reads it."""
        return read_object(self.encode(), name, target)

    def _append(
        self, name: str, data: bytes, flags: int, *, is_nobits: bool = False
    ) -> tuple[int, int]:
        if name not in self._sections:
            self._sections[name] = self.elf.add_section(name, flags=flags)
        index = self._sections[name]
        section = self.elf.sections[index]
        if is_nobits:
            offset = section.size or 0
            section.type, section.size = SHT_NOBITS, offset + len(data)
        else:
            if not isinstance(section.data, bytearray):
                section.data = bytearray(section.data)
            offset = len(section.data)
            section.data += data
        return index, offset

    def _symbol(self, name: str) -> int:
        if name not in self._symbols:
            index = self._sections[name]
            self._symbols[name] = self.elf.add_symbol("", index, type=STT_SECTION, bind=STB_LOCAL)
        return self._symbols[name]
