"""Maps of an object: definitions in BTF (SEC(".maps")) and global data sections.

A BTF map definition is a struct whose members say everything by their types: an array's length for
a number, a pointer's target for a key or value type (``parse_btf_map_def`` in
tools/lib/bpf/libbpf.c; the macros are in tools/lib/bpf/bpf_helpers.h).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from bpfseal.bpf.insn import INSN_SIZE
from bpfseal.bpf.uapi import OBJ_NAME_LEN, MapFlag, MapType
from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import Kind, Linkage
from bpfseal.errors import InputError, UnsupportedError
from bpfseal.limits import MAX_GROWTH, MAX_MAPS
from bpfseal.object.elf import Elf, ElfSection
from bpfseal.object.model import Function, MapSource, MapSpec
from bpfseal.sections import MAPS_SECTION

_POINTER_SIZE = 8
_KEY_SIZE = 4

_Place = tuple[int, int, str]
"""Section, offset and name of what a slot refers to."""

_MAP_IN_MAP = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)
_RINGBUFS = (MapType.RINGBUF, MapType.USER_RINGBUF)
_UNTYPED = frozenset(
    {
        MapType.PERF_EVENT_ARRAY,
        MapType.CGROUP_ARRAY,
        MapType.STACK_TRACE,
        MapType.ARRAY_OF_MAPS,
        MapType.HASH_OF_MAPS,
        MapType.DEVMAP,
        MapType.DEVMAP_HASH,
        MapType.CPUMAP,
        MapType.XSKMAP,
        MapType.SOCKMAP,
        MapType.SOCKHASH,
        MapType.QUEUE,
        MapType.STACK,
        MapType.ARENA,
    }
)
"""Map types that the kernel creates without BTF types of key and value only."""


@dataclass(slots=True)
class _Definition:
    """The members of a map definition as they are read."""

    where: str
    type: int = 0
    max_entries: int = 0
    map_flags: int = 0
    numa_node: int = 0
    map_extra: int = 0
    pinning: int = 0
    key_size: int = 0
    value_size: int = 0
    key_type_id: int = 0
    value_type_id: int = 0
    inner: _Definition | None = None
    values_offset: int | None = None

    def set_size(self, part: str, size: int) -> None:
        """Set the size of ``key`` or ``value``; two members that say it must agree."""
        known = getattr(self, f"{part}_size")
        if known and known != size:
            raise InputError(f"its {part} has {known} bytes and {size} bytes", where=self.where)
        setattr(self, f"{part}_size", size)


def ringbuf_size(size: int, page_size: int) -> int:
    """Return the size that the kernel takes for a ring buffer: a power of 2 times the page size.

    Source: ``adjust_ringbuf_sz`` in tools/lib/bpf/libbpf.c. A size that cannot be rounded is
    returned as it is, for the kernel to refuse.
    """
    if size == 0:
        return 0
    pages = size // page_size
    if size % page_size == 0 and pages & (pages - 1) == 0:
        return size
    rounded = page_size
    while rounded <= size:
        rounded <<= 1
    return rounded if rounded <= 0xFFFFFFFF else size


def defined_maps(elf: Elf, btf: Btf | None, page_size: int) -> Iterator[MapSpec]:
    """Yield the maps of SEC(".maps") in the order of their offsets.

    Args:
        elf: the object.
        btf: its BTF, with section offsets filled in.
        page_size: bytes of a page on the machine that will load the object.

    Raises:
        InputError: a malformed definition.
        UnsupportedError: a definition that light skeletons cannot hold.
    """
    section = elf.section(MAPS_SECTION)
    if section is None:
        return
    datasec = btf.find(MAPS_SECTION, Kind.DATASEC) if btf else None
    if btf is None or datasec is None:
        raise InputError(
            "the object has maps but no BTF that describes them",
            where=MAPS_SECTION,
            hint="compile with -g",
        )
    entries = btf.secinfos(datasec)
    _check_count(len(entries))
    for entry in entries:
        var = btf.type_by_id(entry.type_id)
        where = f"map '{var.name}'"
        if var.kind is not Kind.VAR or not var.name:
            raise InputError(f"type {var.id} is no named variable", where=MAPS_SECTION)
        if entry.offset + entry.size > section.size:
            raise InputError("it lies outside its section", where=where)
        if btf.extra_word(var.id) != Linkage.GLOBAL:
            raise UnsupportedError("a map must be a global variable", where=where)
        struct = btf.skip_modifiers(var.third)
        if struct.kind is not Kind.STRUCT or struct.third > entry.size:
            raise InputError("its definition is no struct that fits the variable", where=where)
        definition = _parse(btf, struct.id, where)
        yield replace(
            _spec(definition, var.name, page_size),
            section=section.index,
            offset=entry.offset,
            size=entry.size,
        )


def _parse(btf: Btf, struct_id: int, where: str, *, is_inner: bool = False) -> _Definition:
    definition = _Definition(where)
    members = btf.members(struct_id)
    for position, member in enumerate(members):
        match member.name:
            case "type" | "max_entries" | "map_flags" | "numa_node":
                setattr(definition, member.name, _number(btf, member.type_id, where))
            case "map_extra":
                definition.map_extra = _long_number(btf, member.type_id, where)
            case "key_size" | "value_size":
                definition.set_size(
                    member.name.removesuffix("_size"), _number(btf, member.type_id, where)
                )
            case "key" | "value":
                pointer = btf.type_by_id(member.type_id)
                if pointer.kind is not Kind.PTR:
                    raise InputError(f"its {member.name} is no pointer", where=where)
                definition.set_size(member.name, btf.resolve_size(pointer.third))
                setattr(definition, f"{member.name}_type_id", pointer.third)
            case "pinning" if not is_inner:
                definition.pinning = _number(btf, member.type_id, where)
                if definition.pinning not in (0, 1):
                    raise InputError(f"unknown pinning {definition.pinning}", where=where)
            case "values" if not is_inner and position == len(members) - 1:
                definition.values_offset = member.bit_offset // 8
                _parse_values(btf, member.type_id, definition)
            case _:
                raise UnsupportedError(f"unknown member '{member.name}'", where=where)
    if definition.type == MapType.UNSPEC:
        raise InputError("it has no type", where=where)
    return definition


def _parse_values(btf: Btf, type_id: int, definition: _Definition) -> None:
    """Read the ``values`` member: what inner maps look like, or that slots hold programs."""
    where = definition.where
    definition.set_size("value", 4)
    array = btf.type_by_id(type_id)
    if array.kind is not Kind.ARRAY or btf.extra_word(array.id, 2):
        raise InputError("its values are no zero-sized array", where=where)
    pointer = btf.skip_modifiers(btf.extra_word(array.id))
    target = btf.skip_modifiers(pointer.third) if pointer.kind is Kind.PTR else pointer
    if definition.type in _MAP_IN_MAP and target.kind is Kind.STRUCT:
        definition.inner = _parse(btf, target.id, f"inner {where}", is_inner=True)
    elif definition.type != MapType.PROG_ARRAY or target.kind is not Kind.FUNC_PROTO:
        raise InputError("its values are neither maps nor programs", where=where)


def _number(btf: Btf, type_id: int, where: str) -> int:
    """Read a number written as ``int (*name)[N]``."""
    pointer = btf.skip_modifiers(type_id)
    if pointer.kind is Kind.PTR:
        array = btf.type_by_id(pointer.third)
        if array.kind is Kind.ARRAY:
            return btf.extra_word(array.id, 2)
    raise InputError("a member that holds a number is no pointer to an array", where=where)


def _long_number(btf: Btf, type_id: int, where: str) -> int:
    """Read a number that may need 64 bits, written as an enum with one value."""
    enum = btf.skip_modifiers(type_id)
    if enum.kind not in (Kind.ENUM, Kind.ENUM64):
        return _number(btf, type_id, where)
    if enum.vlen != 1:
        raise InputError("a member that holds a number is no enum of one value", where=where)
    _, low, *high = next(btf.entries(enum.id))
    return low | (high[0] << 32 if high else 0)


def _spec(definition: _Definition, name: str, page_size: int) -> MapSpec:
    max_entries = definition.max_entries
    if definition.type in _RINGBUFS:
        max_entries = ringbuf_size(max_entries, page_size)
    typed = definition.type not in _UNTYPED
    return MapSpec(
        name=name,
        source=MapSource.DEFINED,
        type=definition.type,
        key_size=definition.key_size,
        value_size=definition.value_size,
        max_entries=max_entries,
        flags=definition.map_flags,
        map_extra=definition.map_extra,
        numa_node=definition.numa_node,
        btf_key_type_id=definition.key_type_id if typed else 0,
        btf_value_type_id=definition.value_type_id if typed else 0,
        values_offset=definition.values_offset,
        inner=_spec(definition.inner, f"{name}.inner", page_size) if definition.inner else None,
        pin_by_name=definition.pinning == 1,
    )


def _data_source(section: ElfSection) -> MapSource | None:
    """Return which kind of global data a section holds."""
    stem = "." + section.name.removeprefix(".").split(".", 1)[0]
    if section.name.startswith(".") and section.size:
        if section.type == "SHT_NOBITS" and stem == ".bss":
            return MapSource.BSS
        if section.type == "SHT_PROGBITS" and not section.is_code:
            return {".data": MapSource.DATA, ".rodata": MapSource.RODATA}.get(stem)
    return None


def data_maps(elf: Elf, btf: Btf | None, object_name: str) -> Iterator[MapSpec]:
    """Yield the maps of the global data sections in the order of the sections.

    Raises:
        UnsupportedError: there are more of them, or more zeros in them, than a loader holds.
    """
    found = [(section, source) for section in elf.sections if (source := _data_source(section))]
    _check_count(len(found))
    zeros = 0
    for section, source in found:
        if source is MapSource.BSS:
            zeros += section.size
            check_zeros(zeros, f"section '{section.name}'")
    for section, source in found:
        value = section.data if source is not MapSource.BSS else bytes(section.size)
        yield data_map(section.name, source, value, section.index, btf, object_name)


def _check_count(count: int) -> None:
    if count > MAX_MAPS:
        raise UnsupportedError(f"{count} maps, a loader holds {MAX_MAPS}")


def check_zeros(size: int, where: str) -> None:
    """Check the size of data that the object's file does not hold.

    Raises:
        UnsupportedError: a loader would grow by more than `MAX_GROWTH` bytes.
    """
    if size > MAX_GROWTH:
        raise UnsupportedError(
            f"{size} bytes of zeros, a loader holds {MAX_GROWTH}",
            where=where,
            hint="put large data into a map of its own",
        )


def data_map(
    section_name: str,
    source: MapSource,
    value: bytes,
    section_index: int,
    btf: Btf | None,
    object_name: str,
) -> MapSpec:
    """Return the one-element array that holds a global data section.

    Source: ``bpf_object__init_internal_map`` in tools/lib/bpf/libbpf.c.
    """
    type_id = btf.find(section_name) if btf else None
    flags = MapFlag.RDONLY_PROG if source.is_read_only else MapFlag(0)
    if btf and type_id and _has_global_variable(btf, type_id):
        flags |= MapFlag.MMAPABLE
    return MapSpec(
        name=_data_map_name(object_name, section_name),
        source=source,
        type=MapType.ARRAY,
        key_size=_KEY_SIZE,
        value_size=len(value),
        max_entries=1,
        flags=flags,
        btf_value_type_id=type_id or 0,
        section=section_index,
        initial_value=value,
    )


def _has_global_variable(btf: Btf, type_id: int) -> bool:
    """Whether a section has a variable that is not static: only then it can be mapped."""
    return btf.kind_of(type_id) is Kind.DATASEC and any(
        btf.kind_of(entry.type_id) is Kind.VAR and btf.extra_word(entry.type_id) != Linkage.STATIC
        for entry in btf.secinfos(type_id)
    )


def _data_map_name(object_name: str, section_name: str) -> str:
    """Return the kernel's name of a data section's map, at most 15 characters.

    The object's name comes first as far as there is room, unless the section is a custom one
    (``.rodata.config``). Source: ``internal_map_name`` in tools/lib/bpf/libbpf.c.
    """
    room = OBJ_NAME_LEN - 1
    suffix = section_name[:room]
    is_custom = "." in section_name[1:]
    prefix = "" if is_custom else object_name[:room][: room - max(7, len(suffix))]
    return "".join(
        c if c.isascii() and (c.isalnum() or c in "_.") else "_" for c in prefix + suffix
    )


def with_slots(
    maps: Sequence[MapSpec],
    programs: Sequence[Function],
    elf: Elf,
    rel_sections: Iterable[ElfSection],
) -> tuple[MapSpec, ...]:
    """Return the maps with the initial contents that relocations of SEC(".maps") declare.

    Source: ``bpf_object__collect_map_relos`` in tools/lib/bpf/libbpf.c.

    Args:
        maps: all maps of the object.
        programs: the entry programs that are loaded.
        elf: the object.
        rel_sections: the relocations.

    Raises:
        InputError: a relocation that fits no map, or a slot that holds nothing of its kind.
    """
    definitions = _Definitions(maps)
    map_places = _first_of(
        (number, (spec.section, spec.offset, spec.name))
        for number, spec in enumerate(maps)
        if spec.source is MapSource.DEFINED
    )
    program_places = _first_of(
        (number, (f.section_index, f.section_insn * INSN_SIZE, f.name))
        for number, f in enumerate(programs)
    )
    slots: dict[int, dict[int, int]] = {}
    for section in rel_sections:
        for rel in elf.rels(section):
            symbol = elf.symbol(rel.symbol, section.name)
            number = definitions.at(rel.offset)
            if number is None:
                raise InputError(f"no map at offset {rel.offset:#x}", where=section.name)
            spec = maps[number]
            slot = _slot(spec, rel.offset)
            is_array = spec.type == MapType.PROG_ARRAY
            places = program_places if is_array else map_places
            target = places.get((symbol.section, symbol.value, symbol.name))
            if target is None:
                raise InputError(
                    f"slot holds '{symbol.name}', which is no {'program' if is_array else 'map'}",
                    where=f"map '{spec.name}'",
                )
            slots.setdefault(number, {})[slot] = target
    return tuple(
        replace(spec, slots=tuple(sorted(slots[number].items()))) if number in slots else spec
        for number, spec in enumerate(maps)
    )


def _first_of(items: Iterable[tuple[int, _Place]]) -> dict[_Place, int]:
    places: dict[_Place, int] = {}
    for number, place in items:
        places.setdefault(place, number)
    return places


def _slot(spec: MapSpec, offset: int) -> int:
    """Return the number of the slot at an offset of the section of maps."""
    where = f"map '{spec.name}'"
    at = offset - spec.offset - (spec.values_offset or 0)
    if spec.values_offset is None or at < 0 or at % _POINTER_SIZE:
        raise InputError(f"a reference at offset {offset:#x} fits no slot", where=where)
    if spec.type == MapType.HASH_OF_MAPS and spec.key_size != _KEY_SIZE:
        raise InputError("a hash of maps with contents needs keys of 4 bytes", where=where)
    return at // _POINTER_SIZE


class _Definitions:
    """The maps by the offsets of their definitions, by which they are sorted."""

    def __init__(self, maps: Sequence[MapSpec]) -> None:
        self._defined = [
            (number, spec) for number, spec in enumerate(maps) if spec.source is MapSource.DEFINED
        ]
        ends = (spec.offset + spec.size - _POINTER_SIZE for _, spec in self._defined)
        self._ends = list(accumulate(ends, max))

    def at(self, offset: int) -> int | None:
        """Return the number of the first map whose definition holds a pointer at this offset."""
        # The first definition that ends behind the offset: those before it end before it, and
        # those after it begin no earlier.
        index = bisect_left(self._ends, offset)
        if index == len(self._defined) or self._defined[index][1].offset > offset:
            return None
        return self._defined[index][0]
