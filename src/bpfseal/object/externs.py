"""Externs: what an object expects from the kernel (``__kconfig`` and ``__ksym``).

Source of the rules: ``bpf_object__collect_externs`` in tools/lib/bpf/libbpf.c.
"""

from __future__ import annotations

from dataclasses import replace

from bpfseal.btf.btf import Btf
from bpfseal.btf.builder import BtfEditor
from bpfseal.btf.kinds import HEADER_WORDS, Kind, Linkage
from bpfseal.errors import InputError, UnsupportedError
from bpfseal.limits import MAX_VALUE_SIZE
from bpfseal.object.elf import STB_WEAK, Elf
from bpfseal.object.model import Extern, ExternKind

_INT_SIZE = 4


def collect_externs(elf: Elf, btf: Btf | None) -> tuple[Extern, ...]:
    """Return the externs of an object, sorted as they are resolved.

    Kernel configuration comes first, by falling alignment, then size, then name; kernel symbols
    follow by name.

    Raises:
        InputError: an extern that the BTF does not describe.
        UnsupportedError: an extern in an unknown section.
    """
    symbols = [symbol for symbol in elf.symbols if symbol.is_extern and symbol.name]
    sections = _section_of_variables(btf) if btf else {}
    names = {symbol.name for symbol in symbols}
    btf_ids = btf.find_all(names, Kind.VAR, Kind.FUNC) if btf else {}
    externs = []
    for symbol in symbols:
        where = f"extern '{symbol.name}'"
        btf_id = btf_ids.get(symbol.name)
        if btf is None or btf_id is None:
            raise InputError("no BTF describes it", where=where, hint="compile with -g")
        described = btf.type_by_id(btf_id)
        is_function = described.kind is Kind.FUNC
        linkage = described.vlen if is_function else btf.extra_word(btf_id)
        section = sections.get(btf_id, "")
        if linkage != Linkage.EXTERN:
            raise InputError("its BTF does not call it extern", where=where)
        if section not in (ExternKind.KCONFIG.value, ExternKind.KSYM.value):
            raise UnsupportedError(
                f"it lies in section '{section}'",
                where=where,
                hint="mark it __kconfig or __ksym",
            )
        kind = ExternKind(section)
        extern = Extern(
            symbol.name,
            kind,
            symbol.number,
            symbol.bind == STB_WEAK,
            is_function,
            btf_id,
            btf.skip_modifiers(described.third).id,
        )
        if kind is ExternKind.KCONFIG:
            if is_function:
                raise UnsupportedError("a function cannot be __kconfig", where=where)
            extern = replace(
                extern,
                size=btf.resolve_size(described.third),
                align=btf.align_of(described.third),
            )
        externs.append(extern)
    return _with_offsets(sorted(externs, key=_order))


def _order(extern: Extern) -> tuple[bool, int, int, str]:
    # Names by code point are in the order of their bytes in UTF-8.
    is_ksym = extern.kind is ExternKind.KSYM
    return is_ksym, -extern.align, extern.size, extern.name


def _with_offsets(externs: list[Extern]) -> tuple[Extern, ...]:
    """Give each kernel configuration value its place in the .kconfig map.

    Raises:
        UnsupportedError: the map's value would be too large.
    """
    offset = 0
    result = []
    for extern in externs:
        if extern.kind is ExternKind.KCONFIG:
            offset += -offset % extern.align
            result.append(replace(extern, offset=offset))
            offset += extern.size
            if offset > MAX_VALUE_SIZE:
                raise UnsupportedError(
                    f"it ends at {offset:#x}, larger than a map's value can be",
                    where=f"extern '{extern.name}'",
                )
        else:
            result.append(extern)
    return tuple(result)


def _section_of_variables(btf: Btf) -> dict[int, str]:
    """Return the name of the section of each VAR or FUNC that lies in one."""
    sections: dict[int, str] = {}
    for datasec in btf.types_of_kind(Kind.DATASEC):
        for entry in btf.secinfos(datasec.id):
            sections.setdefault(entry.type_id, datasec.name)
    return sections


def fix_extern_btf(btf: Btf, externs: tuple[Extern, ...]) -> Btf:
    """Return the BTF in a form that the kernel takes: externs become variables.

    The kernel knows no extern variables, so each becomes an allocated one: kernel symbols as
    4-byte integers, kfuncs as one stand-in variable for all, kernel configuration at its offset.

    Raises:
        InputError: a section holds something that is no extern of the object.
    """
    editor = BtfEditor(btf)
    by_name = {extern.name: extern for extern in externs}
    stand_in = _add_stand_in(btf, editor)
    protos: set[int] = set()
    int_type = 0
    for kind in ExternKind:
        datasec = btf.find(kind.value, Kind.DATASEC)
        if datasec is None or not any(extern.kind is kind for extern in externs):
            continue
        entries = []
        size = 0
        for position, entry in enumerate(btf.secinfos(datasec)):
            described = btf.type_by_id(entry.type_id)
            extern = by_name.get(described.name)
            wanted = Kind.FUNC if extern and extern.is_function else Kind.VAR
            if extern is None or described.kind is not wanted:
                raise InputError(f"'{described.name}' is no extern", where=kind.value)
            if kind is ExternKind.KCONFIG:
                editor.set_var_linkage(described.id, Linkage.GLOBAL)
                entries.append((described.id, extern.offset, entry.size))
                size = max(size, extern.offset + extern.size)
                continue
            type_id = described.id
            if extern.is_function:
                editor.set_vlen(described.id, Linkage.GLOBAL)
                protos.add(described.third)
                type_id = stand_in
            else:
                editor.set_var_linkage(described.id, Linkage.GLOBAL)
                int_type = int_type or _int_type(btf)
                editor.set_third(described.id, int_type)
            entries.append((type_id, position * _INT_SIZE, _INT_SIZE))
            size += _INT_SIZE
        editor.set_secinfos(datasec, entries)
        editor.set_third(datasec, size)
    for proto in protos:
        _name_parameters(btf, editor, proto, stand_in)
    return editor.finish()


def _add_stand_in(btf: Btf, editor: BtfEditor) -> int:
    """Add the variable that stands for kfuncs, if there are any; return its id or 0."""
    datasec = btf.find(ExternKind.KSYM.value, Kind.DATASEC)
    if datasec is None or not any(
        btf.kind_of(entry.type_id) is Kind.FUNC for entry in btf.secinfos(datasec)
    ):
        return 0
    return editor.add_var("dummy_ksym", _int_type(btf), Linkage.GLOBAL)


def _name_parameters(btf: Btf, editor: BtfEditor, proto: int, stand_in: int) -> None:
    """Give the nameless parameters of a kfunc's prototype a name, as the kernel asks."""
    name_off = editor.words[editor.start(stand_in)]
    first = editor.start(proto) + HEADER_WORDS
    for index in range(first, first + 2 * btf.type_by_id(proto).vlen, 2):
        if editor.words[index + 1] and not editor.words[index]:
            editor.words[index] = name_off


def _int_type(btf: Btf) -> int:
    """Return the first integer type of 32 bits.

    Raises:
        InputError: there is none.
    """
    for candidate in btf.types_of_kind(Kind.INT):
        if btf.extra_word(candidate.id) & 0xFF == 8 * _INT_SIZE:
            return candidate.id
    raise InputError("externs need a 4-byte integer type in the BTF", where=".ksyms")
