"""A compiled BPF object as a value: what a loader must create, without anything of this host."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from bpfseal.bpf.insn import INSN_SIZE, ByteOrder
from bpfseal.bpf.uapi import MapFlag
from bpfseal.btf.btf import Btf
from bpfseal.btf.ext import BtfExt
from bpfseal.btf.kinds import Kind
from bpfseal.sections import SectionDef

_EXCEPTION_CALLBACK = "exception_callback:"


class MapSource(Enum):
    """Where a map comes from."""

    DEFINED = "SEC(.maps)"
    DATA = ".data"
    RODATA = ".rodata"
    BSS = ".bss"
    KCONFIG = ".kconfig"

    @property
    def is_read_only(self) -> bool:
        """Whether the loader freezes it, and programs may only read it."""
        return self in (MapSource.RODATA, MapSource.KCONFIG)


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A map to create.

    Attributes:
        name: the name that the kernel gets, uncut.
        source: where it comes from.
        type: number of the map type.
        key_size: bytes of a key.
        value_size: bytes of a value.
        max_entries: number of entries.
        flags: flags of BPF_MAP_CREATE.
        map_extra: the type's extra attribute.
        numa_node: the NUMA node, with the flag that says so.
        btf_key_type_id: BTF type of the key, or 0.
        btf_value_type_id: BTF type of the value, or 0.
        section: ELF section index.
        offset: byte offset in the section of maps.
        size: bytes of the definition in the section of maps.
        values_offset: byte offset of the initial contents in the definition.
        initial_value: the contents of global data.
        inner: what the inner maps of a map-in-map look like.
        slots: initial contents of a map-in-map: (index, number of the map); of a program array:
            (index, number of the program).
        pin_by_name: the object asks to pin it; the loader does not.
    """

    name: str
    source: MapSource
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    map_extra: int = 0
    numa_node: int = 0
    btf_key_type_id: int = 0
    btf_value_type_id: int = 0
    section: int = 0
    offset: int = 0
    size: int = 0
    values_offset: int | None = None
    initial_value: bytes | None = None
    inner: MapSpec | None = None
    slots: tuple[tuple[int, int], ...] = ()
    pin_by_name: bool = False

    @property
    def is_mmapable(self) -> bool:
        """Whether user space may map it into memory."""
        return bool(self.flags & MapFlag.MMAPABLE)


class RelocationKind(Enum):
    """What an instruction refers to."""

    MAP = "map"
    DATA = "data"
    SUBPROGRAM_CALL = "subprogram call"
    SUBPROGRAM_ADDRESS = "subprogram address"
    EXTERN_LD64 = "extern"
    EXTERN_CALL = "extern call"


@dataclass(frozen=True, slots=True)
class Relocation:
    """A reference of one instruction.

    Attributes:
        insn: the instruction's index in its function.
        kind: what it refers to.
        target: number of the map or of the extern.
        offset: the symbol's byte offset in its section.
    """

    insn: int
    kind: RelocationKind
    target: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Function:
    """A function: an entry program, or a subprogram in .text.

    Attributes:
        name: the C name.
        section: the ELF section's name, without a leading ``?``.
        section_index: the ELF section's index.
        section_insn: index of its first instruction in the section.
        insns: its bytes, as in the file.
        relocations: its references, by instruction.
        definition: what the section name stands for; ``None`` if it is unknown or .text.
        is_subprogram: it lies in .text and runs only as part of others.
        autoload: the section name has no leading ``?``.
        is_global: its symbol is not local.
        is_hidden: its symbol is global but hidden: the kernel verifies it with its callers.
    """

    name: str
    section: str
    section_index: int
    section_insn: int
    insns: bytes
    relocations: tuple[Relocation, ...] = ()
    definition: SectionDef | None = None
    is_subprogram: bool = False
    autoload: bool = True
    is_global: bool = True
    is_hidden: bool = False

    @property
    def insn_count(self) -> int:
        """Instruction slots."""
        return len(self.insns) // INSN_SIZE

    @property
    def elf_section(self) -> str:
        """The section's name in the file."""
        return self.section if self.autoload else f"?{self.section}"


class ExternKind(Enum):
    """Which table an extern is resolved in."""

    KCONFIG = ".kconfig"
    KSYM = ".ksyms"


@dataclass(frozen=True, slots=True)
class Extern:
    """A symbol that the kernel provides.

    Attributes:
        name: its name.
        kind: kernel configuration or kernel symbol.
        symbol: index in the symbol table.
        is_weak: it may be missing.
        is_function: it is a kfunc.
        btf_id: its VAR or FUNC.
        type_id: what it is behind typedefs; 0 for ``void``, a symbol without a type.
        size: bytes, for kernel configuration.
        align: alignment in bytes, for kernel configuration.
        offset: byte offset in the .kconfig map.
        address: what the metadata holds for a symbol without a type until the loader finds it.
    """

    name: str
    kind: ExternKind
    symbol: int
    is_weak: bool
    is_function: bool
    btf_id: int
    type_id: int
    size: int = 0
    align: int = 0
    offset: int = 0
    address: int = 0

    @property
    def is_typeless(self) -> bool:
        """Whether it is a kernel symbol without a type: only its address is known."""
        return self.kind is ExternKind.KSYM and self.type_id == 0


@dataclass(frozen=True)
class BpfObject:
    """A compiled object.

    Attributes:
        name: the name as an identifier, for example ``execsnoop_bpf``.
        byteorder: the target's byte order.
        license: the licence that the programs are loaded under.
        functions: all functions by section and position.
        maps: all maps in the order in which they are created.
        externs: all externs in the order of their resolution.
        btf: the BTF to load, corrected as a loader must; ``None`` without one.
        btf_ext: func_info, line_info and CO-RE records.
    """

    name: str
    byteorder: ByteOrder
    license: str
    functions: tuple[Function, ...]
    maps: tuple[MapSpec, ...]
    externs: tuple[Extern, ...] = ()
    btf: Btf | None = None
    btf_ext: BtfExt | None = None

    @property
    def programs(self) -> tuple[Function, ...]:
        """The entry programs that are loaded."""
        return tuple(f for f in self.functions if not f.is_subprogram and f.autoload)

    @cached_property
    def text_section(self) -> int:
        """Index of the ELF section of the subprograms, -1 without any."""
        return next((f.section_index for f in self.functions if f.is_subprogram), -1)

    @cached_property
    def _subprograms(self) -> dict[str, Function]:
        return {f.name: f for f in reversed(self.functions) if f.is_subprogram}

    def subprogram(self, name: str) -> Function | None:
        """Return the first subprogram with this name."""
        return self._subprograms.get(name)

    @cached_property
    def exception_callbacks(self) -> dict[str, list[str]]:
        """The exception callbacks that declaration tags name, by program.

        Source: ``bpf_prog_assign_exc_cb`` in tools/lib/bpf/libbpf.c.
        """
        callbacks: dict[str, list[str]] = {}
        for tag in self.btf.types_of_kind(Kind.DECL_TAG) if self.btf else ():
            if tag.name.startswith(_EXCEPTION_CALLBACK):
                assert self.btf  # noqa: S101 (it has the tag)
                program = self.btf.type_by_id(tag.third).name
                callbacks.setdefault(program, []).append(tag.name.removeprefix(_EXCEPTION_CALLBACK))
        return callbacks

    @cached_property
    def _positions(self) -> list[tuple[int, int]]:
        return [(function.section_index, function.section_insn) for function in self.functions]

    def function_at(self, section: int, insn: int) -> Function | None:
        """Return the function that holds an instruction of a section."""
        index = bisect_right(self._positions, (section, insn)) - 1
        if index < 0:
            return None
        function = self.functions[index]
        inside = function.section_index == section
        return function if inside and insn < function.section_insn + function.insn_count else None
