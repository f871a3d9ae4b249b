"""Put each program together: append the subprograms it calls, point every reference somewhere.

A subprogram is appended to each program that uses it, so the same function stands at another place
in another program. The order is that of tools/lib/bpf/libbpf.c (``bpf_object__reloc_code``): at the
first call of a subprogram it is appended, and its own calls are followed before the next one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import INSN_SIZE
from bpfseal.errors import InputError, UnsupportedError
from bpfseal.object.model import (
    BpfObject,
    ExternKind,
    Function,
    MapSource,
    Relocation,
    RelocationKind,
)

_MAX_CALL_DEPTH = 64
_CALLS = {
    op.JMP | op.CALL: op.PSEUDO_CALL,
    op.LD_IMM64: op.PSEUDO_FUNC,
}
"""Opcodes that can refer to a subprogram, with the pseudo source that says so."""


@dataclass(frozen=True, slots=True)
class ExternUse:
    """An instruction that refers to an extern: number of the extern, index of the instruction."""

    extern: int
    insn: int
    is_call: bool


@dataclass(slots=True)
class LinkedProgram:
    """A program with its subprograms.

    Attributes:
        function: the entry program.
        insns: all instructions in the target's byte order; they name maps by index.
        func_info: records with instruction offsets in slots.
        line_info: records with instruction offsets in slots.
        core_relos: records with instruction offsets in bytes, as the kernel wants them.
        extern_uses: kernel symbols that the loader resolves.
    """

    function: Function
    insns: bytearray
    func_info: list[tuple[int, ...]] = field(default_factory=list)
    line_info: list[tuple[int, ...]] = field(default_factory=list)
    core_relos: list[tuple[int, ...]] = field(default_factory=list)
    extern_uses: list[ExternUse] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of the instructions and of the records."""
        rows = (self.func_info, self.line_info, self.core_relos)
        return len(self.insns) + sum(4 * len(r) * len(r[0]) for r in rows if r)


def link(obj: BpfObject, function: Function) -> LinkedProgram:
    """Put one entry program together.

    Raises:
        InputError: a reference that leads nowhere.
        UnsupportedError: a call chain deeper than any kernel takes.
    """
    linker = _Linker(obj, function)
    linker.append(function, 0)
    linker.append_exception_callback()
    linker.refer_to_data()
    return linker.program


class _Linker:
    """The state while one program is put together."""

    def __init__(self, obj: BpfObject, function: Function) -> None:
        self._obj = obj
        self._sign = "<" if obj.byteorder == "little" else ">"
        self.program = LinkedProgram(function, bytearray())
        self._starts: dict[tuple[int, int], int] = {}
        self._relocations: list[tuple[int, Relocation]] = []

    def append(self, function: Function, depth: int) -> int:
        """Append a function and all that it calls; return where it starts, in slots."""
        key = function.section_index, function.section_insn
        if key in self._starts:
            return self._starts[key]
        where = f"program '{self.program.function.name}'"
        if depth > _MAX_CALL_DEPTH:
            raise UnsupportedError(f"calls nest deeper than {_MAX_CALL_DEPTH}", where=where)
        start = self._starts[key] = len(self.program.insns) // INSN_SIZE
        self.program.insns += function.insns
        self._append_records(function, start)
        self._relocations += ((start, relocation) for relocation in function.relocations)
        relocations = {relocation.insn: relocation for relocation in function.relocations}
        for insn in self._references(function, relocations):
            target = self._target(function, insn, relocations.get(insn))
            subprogram = self._obj.function_at(*target)
            if subprogram is None or not subprogram.is_subprogram:
                raise InputError(
                    f"instruction {insn} of '{function.name}' calls no subprogram", where=where
                )
            position = self.append(subprogram, depth + 1)
            self._set_imm(start + insn, position - (start + insn) - 1)
        return start

    def _references(self, function: Function, relocations: dict[int, Relocation]) -> list[int]:
        """Return the instructions of a function that refer to subprograms, in order."""
        found = []
        codes, registers = function.insns[::INSN_SIZE], function.insns[1::INSN_SIZE]
        for code, pseudo in _CALLS.items():
            insn = codes.find(code)
            while insn >= 0:
                relocation = relocations.get(insn)
                kind = relocation.kind if relocation else None
                if kind is RelocationKind.SUBPROGRAM_ADDRESS:
                    found.append(insn)
                elif kind is not RelocationKind.EXTERN_CALL and code == op.JMP | op.CALL:
                    # dst and off are zero in a call of a subprogram
                    source = registers[insn] >> 4 if self._sign == "<" else registers[insn] & 15
                    if source == pseudo:
                        found.append(insn)
                insn = codes.find(code, insn + 1)
        return sorted(found)

    def _target(
        self, function: Function, insn: int, relocation: Relocation | None
    ) -> tuple[int, int]:
        """Return section and instruction that a reference leads to."""
        (imm,) = struct.unpack_from(f"{self._sign}i", function.insns, insn * INSN_SIZE + 4)
        if relocation is None:
            return function.section_index, function.section_insn + insn + imm + 1
        text = self._obj.text_section
        if relocation.kind is RelocationKind.SUBPROGRAM_ADDRESS:
            self._set_source(self._start_of(function) + insn, op.PSEUDO_FUNC)
            return text, (relocation.offset + imm) // INSN_SIZE
        return text, relocation.offset // INSN_SIZE + imm + 1

    def _start_of(self, function: Function) -> int:
        return self._starts[function.section_index, function.section_insn]

    def _append_records(self, function: Function, start: int) -> None:
        ext = self._obj.btf_ext
        if ext is None:
            return
        is_main = start == 0
        first = function.section_insn * INSN_SIZE
        inside = first, first + len(function.insns)
        for info, records in (
            (ext.func_info, self.program.func_info),
            (ext.line_info, self.program.line_info),
        ):
            # A program whose entry has no records gets none for its subprograms either.
            if not (is_main or records):
                continue
            own = info.records_between(function.elf_section, *inside)
            if not own and not is_main:
                raise InputError(
                    f".BTF.ext has no records for subprogram '{function.name}'",
                    where=f"program '{self.program.function.name}'",
                )
            shift = start - function.section_insn
            records += ((row[0] // INSN_SIZE + shift, *row[1:]) for row in own)
        misplaced = ext.core_relos.misplaced(function.elf_section)
        if misplaced is not None:
            raise InputError(f"offset {misplaced} is no instruction", where=".BTF.ext core_relo")
        for row in ext.core_relos.records_between(function.elf_section, *inside):
            self.program.core_relos.append((row[0] - first + INSN_SIZE * start, *row[1:4]))

    def append_exception_callback(self) -> None:
        """Append the subprogram that a declaration tag names as the exception callback.

        Source: ``bpf_prog_assign_exc_cb`` in tools/lib/bpf/libbpf.c.
        """
        name = self.program.function.name
        callbacks = self._obj.exception_callbacks.get(name, ())
        if len(callbacks) != 1:
            return  # several are for the verifier to refuse
        function = self._obj.subprogram(callbacks[0])
        if function is None or not function.is_global or function.is_hidden:
            raise InputError(
                f"exception callback '{callbacks[0]}' is no global subprogram",
                where=f"program '{name}'",
            )
        self.append(function, 1)

    def refer_to_data(self) -> None:
        """Point instructions to maps by index, and to kernel symbols by what the loader finds."""
        maps = self._obj.maps
        kconfig = next((n for n, spec in enumerate(maps) if spec.source is MapSource.KCONFIG), 0)
        for start, relocation in self._relocations:
            insn = start + relocation.insn
            match relocation.kind:
                case RelocationKind.MAP:
                    self._set_source(insn, op.PSEUDO_MAP_IDX)
                    self._set_imm(insn, relocation.target)
                case RelocationKind.DATA:
                    self._set_source(insn, op.PSEUDO_MAP_IDX_VALUE)
                    self._set_imm(insn + 1, self._imm(insn) + relocation.offset)
                    self._set_imm(insn, relocation.target)
                case RelocationKind.EXTERN_CALL:
                    self._set_source(insn, op.PSEUDO_KFUNC_CALL)
                    self._set_imm(insn, 0)
                    self.program.insns[insn * INSN_SIZE + 2 : insn * INSN_SIZE + 4] = bytes(2)
                    self._use(relocation.target, insn, is_call=True)
                case RelocationKind.EXTERN_LD64:
                    extern = self._obj.externs[relocation.target]
                    if extern.kind is ExternKind.KCONFIG:
                        self._set_source(insn, op.PSEUDO_MAP_IDX_VALUE)
                        self._set_imm(insn, kconfig)
                        self._set_imm(insn + 1, extern.offset)
                        continue
                    if extern.type_id:
                        self._set_source(insn, op.PSEUDO_BTF_ID)
                    self._set_imm(insn, extern.address)
                    self._set_imm(insn + 1, extern.address >> 32)
                    self._use(relocation.target, insn, is_call=False)

    def _use(self, extern: int, insn: int, *, is_call: bool) -> None:
        self.program.extern_uses.append(ExternUse(extern, insn, is_call))

    def _imm(self, insn: int) -> int:
        value: int = struct.unpack_from(f"{self._sign}i", self.program.insns, insn * INSN_SIZE + 4)[
            0
        ]
        return value

    def _set_imm(self, insn: int, value: int) -> None:
        struct.pack_into(
            f"{self._sign}I", self.program.insns, insn * INSN_SIZE + 4, value & 0xFFFFFFFF
        )

    def _set_source(self, insn: int, source: int) -> None:
        at = insn * INSN_SIZE + 1
        registers = self.program.insns[at]
        little = self._sign == "<"
        self.program.insns[at] = (
            registers & 0x0F | source << 4 if little else registers & 0xF0 | source
        )
