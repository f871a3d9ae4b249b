"""From the bytes of a clang- or gcc-built object to a `BpfObject`.

Example:
    >>> from pathlib import Path
    >>> path = Path("examples/exectrace.bpf.o")
    >>> obj = read_object(path.read_bytes(), path.name)  # doctest: +SKIP
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from operator import itemgetter
from pathlib import PurePosixPath

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import INSN_SIZE
from bpfseal.bpf.uapi import MapType
from bpfseal.btf.btf import Btf
from bpfseal.btf.builder import BtfEditor
from bpfseal.btf.ext import BtfExt
from bpfseal.btf.kinds import Kind, Linkage
from bpfseal.errors import BpfsealError, InputError, UnsupportedError
from bpfseal.limits import MAX_VALUE_SIZE
from bpfseal.object.elf import (
    STB_GLOBAL,
    STB_LOCAL,
    STB_WEAK,
    STT_FUNC,
    STT_OBJECT,
    STT_SECTION,
    Elf,
    ElfSection,
    Rel,
    Symbol,
    read_elf,
)
from bpfseal.object.externs import collect_externs, fix_extern_btf
from bpfseal.object.kconfig import kconfig_value
from bpfseal.object.maps import (
    check_zeros,
    data_map,
    data_maps,
    defined_maps,
    with_slots,
)
from bpfseal.object.model import (
    BpfObject,
    Extern,
    ExternKind,
    Function,
    MapSource,
    MapSpec,
    Relocation,
    RelocationKind,
)
from bpfseal.object.target import DEFAULT_TARGET, TargetValues
from bpfseal.sections import MAPS_SECTION, find_section

_TEXT = ".text"
_LICENSE_SIZE = 64
_NAME_SIZE = 64
_CALL = op.JMP | op.CALL

_UNSUPPORTED = {
    "maps": ("it holds maps in the form before BTF", 'define them in SEC(".maps")'),
    ".struct_ops": ("struct_ops maps hold pointers that only user space can set", ""),
    ".struct_ops.link": ("struct_ops maps hold pointers that only user space can set", ""),
    ".addr_space.1": ("arena variables need a memory map of the loading process", ""),
    ".jumptables": ("jump tables need a map made for each program", "compile with an older -mcpu"),
}
"""Sections that no loader can hold, and why."""


def object_name(file_name: str) -> str:
    """Return an object's name as an identifier: ``execsnoop.bpf.o`` is ``execsnoop_bpf``."""
    base = PurePosixPath(file_name).name[: _NAME_SIZE - 1]
    return re.sub(r"[^A-Za-z0-9_]", "_", base.removesuffix(".o"))


def read_object(data: bytes, name: str, target: TargetValues = DEFAULT_TARGET) -> BpfObject:
    """Read a compiled object.

    Args:
        data: the ELF file.
        name: the file's name, from which the object's name is made.
        target: what the object may want to know of the machines that load it.

    Raises:
        InputError: malformed, cut off or not a BPF object; the message names the place.
        UnsupportedError: something that a loader cannot hold.
    """
    try:
        return _read(data, object_name(name), target)
    except BpfsealError as error:
        error.where = f"{name}: {error.where}" if error.where else name
        raise


def read_externs(data: bytes, name: str) -> tuple[Extern, ...]:
    """Return only what an object expects from the kernel; it may be no object for a loader.

    Raises:
        InputError: malformed, cut off or not a BPF object.
    """
    try:
        elf = read_elf(data)
        return collect_externs(elf, _read_btf(elf)[0])
    except BpfsealError as error:
        error.where = f"{name}: {error.where}" if error.where else name
        raise


def _read(data: bytes, name: str, target: TargetValues) -> BpfObject:
    elf = read_elf(data)
    for section in elf.sections:
        reason = _UNSUPPORTED.get(section.name.removeprefix("?"))
        if reason and section.size:
            raise UnsupportedError(reason[0], where=f"section '{section.name}'", hint=reason[1])
        if section.size > MAX_VALUE_SIZE:
            raise UnsupportedError(
                f"its {section.size:#x} bytes are larger than a map's value can be",
                where=f"section '{section.name}'",
            )
    plain_names: dict[str, str] = {}
    functions = sorted(
        (
            function
            for section in elf.sections
            for function in _functions(elf, section, plain_names)
        ),
        key=lambda function: (function.section_index, function.section_insn),
    )
    for function, other in pairwise(functions):
        same_place = (function.section_index, function.section_insn) == (
            other.section_index,
            other.section_insn,
        )
        if same_place and len(function.insns) != len(other.insns):
            raise InputError(
                f"function '{other.name}' begins where '{function.name}' does, but ends elsewhere",
                where=f"section '{function.elf_section}'",
            )
    btf, btf_ext = _read_btf(elf)
    externs = tuple(
        replace(extern, address=target.symbols.get(extern.name, 0))
        if extern.is_typeless
        else extern
        for extern in collect_externs(elf, btf)
    )
    if btf:
        btf = _fix_btf(fix_extern_btf(btf, externs), elf, functions)
    for extern in externs:
        check_zeros(extern.offset + extern.size, f"extern '{extern.name}'")
    maps = [*defined_maps(elf, btf, target.page_size), *data_maps(elf, btf, name)]
    kconfig = (
        kconfig_value(externs, btf, target, target.kconfig_byteorder or elf.byteorder)
        if btf
        else None
    )
    if kconfig is not None:
        maps.append(data_map(".kconfig", MapSource.KCONFIG, kconfig, 0, btf, name))
    maps = [_with_default_entries(spec, target) for spec in maps]
    obj = BpfObject(
        name, elf.byteorder, _license(elf), tuple(functions), tuple(maps), externs, btf, btf_ext
    )
    return _with_relocations(obj, elf)


def _license(elf: Elf) -> str:
    section = elf.section("license")
    text = section.data[: _LICENSE_SIZE - 1].split(b"\0", 1)[0] if section else b""
    return text.decode("utf-8", "backslashreplace")


def _read_btf(elf: Elf) -> tuple[Btf | None, BtfExt | None]:
    section, ext = elf.section(".BTF"), elf.section(".BTF.ext")
    if section is None:
        return None, None
    btf = Btf.from_bytes(section.data)
    if btf.byteorder != elf.byteorder:
        raise InputError("its byte order is not the object's", where=".BTF")
    return btf, BtfExt.from_bytes(ext.data, btf) if ext else None


def _functions(elf: Elf, section: ElfSection, plain_names: dict[str, str]) -> Iterator[Function]:
    """Yield the functions of a section in the order of the symbol table.

    Sections may share a name; `plain_names` keeps one copy of it without the leading ``?``.
    """
    if not section.is_code:
        return
    is_text = section.name == _TEXT
    plain_name = section.name.removeprefix("?")
    plain_name = plain_names.setdefault(plain_name, plain_name)
    bodies: dict[tuple[int, int], bytes] = {}  # a function may have several names
    size = 0
    for symbol in elf.functions_of(section):
        where = f"section '{section.name}', function '{symbol.name}'"
        end = symbol.value + symbol.size
        if end > section.size:
            raise InputError("it reaches behind its section", where=where)
        if not symbol.size or symbol.value % INSN_SIZE or symbol.size % INSN_SIZE:
            raise InputError("it does not hold whole instructions", where=where)
        if symbol.bind == STB_LOCAL and not is_text:
            raise UnsupportedError("an entry program cannot be static", where=where)
        definition = None if is_text else find_section(plain_name)
        if definition is None and not is_text:
            raise UnsupportedError(
                f"unknown section name '{plain_name}': it stands for no program type",
                where=where,
            )
        body = bodies.get((symbol.value, end))
        if body is None:
            body = bodies[symbol.value, end] = section.data[symbol.value : end]
            size += symbol.size
        if size > 2 * section.size:
            raise InputError("functions overlap", where=where)
        yield Function(
            name=symbol.name,
            section=plain_name,
            section_index=section.index,
            section_insn=symbol.value // INSN_SIZE,
            insns=body,
            definition=definition,
            is_subprogram=is_text,
            autoload=section.name == plain_name,
            is_global=symbol.bind != STB_LOCAL,
            is_hidden=symbol.bind != STB_LOCAL and symbol.is_hidden,
        )


def _fix_btf(btf: Btf, elf: Elf, functions: list[Function]) -> Btf:
    """Fill in what the compiler cannot know: sizes and offsets of variables, and hidden linkage.

    Source: ``btf_fixup_datasec`` and ``bpf_object__sanitize_and_load_btf`` in
    tools/lib/bpf/libbpf.c.
    """
    editor = BtfEditor(btf)
    symbols = {
        symbol.name: symbol
        for symbol in reversed(elf.symbols)
        if symbol.type == STT_OBJECT and symbol.bind in (STB_GLOBAL, STB_WEAK)
    }
    for datasec in btf.types_of_kind(Kind.DATASEC):
        entries = btf.secinfos(datasec.id)
        if datasec.name not in (kind.value for kind in ExternKind):
            where = f"BTF of section '{datasec.name}'"
            is_open = datasec.third == 0
            if is_open:
                section = elf.section(datasec.name)
                if section is None or not section.size:
                    raise InputError("the object has no such section", where=where)
                editor.set_third(datasec.id, section.size)
            for index, entry in enumerate(entries):
                var = btf.type_by_id(entry.type_id)
                if var.kind is not Kind.VAR:
                    raise InputError(f"type {var.id} is no variable", where=where)
                if btf.extra_word(var.id) in (Linkage.STATIC, Linkage.EXTERN):
                    continue
                symbol = symbols.get(var.name)
                if symbol is None:
                    raise InputError(f"variable '{var.name}' has no symbol", where=where)
                if is_open:
                    entries[index] = entry._replace(offset=symbol.value & 0xFFFFFFFF)
                if symbol.is_hidden:
                    editor.set_var_linkage(var.id, Linkage.STATIC)
        editor.set_secinfos(datasec.id, sorted(entries, key=itemgetter(1)))
    hidden = {f.name for f in functions if f.is_subprogram and f.is_hidden}
    for func in btf.types_of_kind(Kind.FUNC) if hidden else ():
        if func.name in hidden and func.vlen == Linkage.GLOBAL:
            editor.set_vlen(func.id, Linkage.STATIC)
            hidden.discard(func.name)
    return editor.finish()


def _with_default_entries(spec: MapSpec, target: TargetValues) -> MapSpec:
    """Give a perf event array that states no number an entry for every CPU."""
    inner = _with_default_entries(spec.inner, target) if spec.inner else None
    if spec.type == MapType.PERF_EVENT_ARRAY and not spec.max_entries:
        return replace(spec, max_entries=target.possible_cpus, inner=inner)
    return replace(spec, inner=inner) if inner else spec


def _with_relocations(obj: BpfObject, elf: Elf) -> BpfObject:
    """Return the object with every reference attached to its function or map."""
    by_function: dict[tuple[int, int], list[Relocation]] = {}
    references = _References(obj, elf)
    slots = []
    for section in elf.sections:
        if section.type != "SHT_REL":
            continue
        if not 0 < section.info < len(elf.sections):
            raise InputError("it applies to a section that does not exist", where=section.name)
        target = elf.sections[section.info]
        if target.name == MAPS_SECTION:
            slots.append(section)
        elif target.is_code:
            for number, rel in enumerate(elf.rels(section)):
                where = f"{section.name} entry {number}"
                if rel.offset % INSN_SIZE:
                    raise InputError(f"offset {rel.offset:#x} is no instruction", where=where)
                symbol = elf.symbol(rel.symbol, where)
                function = obj.function_at(target.index, rel.offset // INSN_SIZE)
                if function:  # else: left over from a weak function that another one replaced
                    relocation = references.of(function, rel, symbol, where)
                    key = function.section_index, function.section_insn
                    by_function.setdefault(key, []).append(relocation)
    ordered = {
        key: tuple(sorted(relocations, key=lambda r: r.insn))
        for key, relocations in by_function.items()
    }
    functions = tuple(
        replace(function, relocations=relocations)
        if (relocations := ordered.get((function.section_index, function.section_insn)))
        else function
        for function in obj.functions
    )
    maps = with_slots(obj.maps, obj.programs, elf, slots) if slots else obj.maps
    return replace(obj, functions=functions, maps=maps)


class _References:
    """What the instructions of an object refer to (``bpf_program__record_reloc``, libbpf.c)."""

    def __init__(self, obj: BpfObject, elf: Elf) -> None:
        self._elf = elf
        self._byteorder = obj.byteorder
        text = elf.section(_TEXT)
        self._text = text.index if text else None
        self._externs = {extern.symbol: n for n, extern in enumerate(obj.externs)}
        self._extern_list = obj.externs
        self._data: dict[int, int] = {}
        self._maps: dict[tuple[int, int], int] = {}
        for number, spec in enumerate(obj.maps):
            if spec.source is MapSource.DEFINED:
                self._maps.setdefault((spec.section, spec.offset), number)
            elif spec.section:
                self._data[spec.section] = number

    def of(self, function: Function, rel: Rel, symbol: Symbol, where: str) -> Relocation:
        """Return what one instruction refers to.

        Raises:
            InputError: nothing that it can refer to.
        """
        insn = rel.offset // INSN_SIZE - function.section_insn
        code, registers = function.insns[insn * INSN_SIZE : insn * INSN_SIZE + 2]
        if code == op.LD_IMM64:
            if insn + 1 >= function.insn_count:
                raise InputError("a ld_imm64 at the end of its function is cut off", where=where)
        elif code != _CALL:
            message = f"an instruction with opcode {code:#04x} has no reference"
            raise InputError(message, where=where)
        if symbol.is_extern:
            return self._extern(insn, code, symbol, where)
        in_text = symbol.section == self._text
        if code == _CALL:
            source = registers >> 4 if self._byteorder == "little" else registers & 15
            if source != op.PSEUDO_CALL or not in_text or symbol.value % INSN_SIZE:
                raise InputError(f"a call of '{symbol.name}' leads to no subprogram", where=where)
            return Relocation(insn, RelocationKind.SUBPROGRAM_CALL, offset=symbol.value)
        if in_text and symbol.type in (STT_FUNC, STT_SECTION):
            return Relocation(insn, RelocationKind.SUBPROGRAM_ADDRESS, offset=symbol.value)
        number = self._data.get(symbol.section)
        if number is not None:
            return Relocation(insn, RelocationKind.DATA, number, symbol.value)
        number = self._maps.get((symbol.section, symbol.value))
        if number is not None:
            return Relocation(insn, RelocationKind.MAP, number)
        raise InputError(
            f"'{symbol.name}' in section '{self._elf.sections[symbol.section].name}' is neither a "
            "map nor data of the object",
            where=where,
        )

    def _extern(self, insn: int, code: int, symbol: Symbol, where: str) -> Relocation:
        number = self._externs.get(symbol.number)
        if number is None:
            raise InputError(f"symbol '{symbol.name}' is no known extern", where=where)
        if code != _CALL:
            return Relocation(insn, RelocationKind.EXTERN_LD64, number)
        if self._extern_list[number].kind is not ExternKind.KSYM:
            raise InputError(f"'{symbol.name}' is called but is no function", where=where)
        return Relocation(insn, RelocationKind.EXTERN_CALL, number)
