"""Whether a loader is what the config beside it says: scheme, maps, programs, names and sizes.

A bundle's config is signed by nobody. Everything in it that the loader says itself is derived from
the loader (`bpfseal.loader.reading`) and compared; what differs is refused. So a config that was
checked is as good as the signature over the loader, but for three things:

- the name of the object and the tool that made the loader, which nothing acts upon;
- what the loader holds the first 15 characters of only: longer names of maps and programs in an
  object without BTF (with BTF they are compared, too);
- the attach points of programs that are attached after the load. They are in the ELF section's
  name, which no part of a loader holds: `open_attach_point` tells which programs those are.

Example:
    >>> check_config(loader).maps[0].name  # doctest: +SKIP
    'started'
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from typing import Final

from bpfseal.bpf.insn import ByteOrder
from bpfseal.bpf.uapi import OBJ_NAME_LEN, ProgType
from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import Kind
from bpfseal.errors import InputError, VerificationError
from bpfseal.loader.checks import CHECKS
from bpfseal.loader.model import Loader, MapEntry, ProgramEntry
from bpfseal.loader.reading import LoadedProgram, LoaderReading, MadeMap, read_loader
from bpfseal.sections import MAPS_SECTION, SectionDef, attach_lookup, find_section

_NAME_SIZE: Final = OBJ_NAME_LEN - 1
_DATA_NAME: Final = re.compile(r"(?P<object>.*?)(?P<section>\.(?:rodata|data|bss|kconfig).*)")
_NO_LOADER: Final = "instructions or metadata were changed, or belong to another scheme"
_HINT: Final = "the config of the bundle is not the one of this loader"


def derive(insns: bytes, metadata: bytes, byteorder: ByteOrder) -> LoaderReading:
    """Return what a loader does.

    Raises:
        VerificationError: the bytes are no loader that a generator makes.
    """
    try:
        return read_loader(insns, metadata, byteorder)
    except InputError as error:
        raise VerificationError(error.message, where=error.where, hint=_NO_LOADER) from None


def check_config(loader: Loader) -> LoaderReading:
    """Derive from a loader's bytes what it makes, and compare its config with that.

    Returns:
        What the loader does.

    Raises:
        VerificationError: the bytes are no loader that a generator makes, or one of another scheme,
            or the config says something else than they do.
    """
    reading = derive(loader.insns, loader.metadata, loader.byteorder)
    try:
        for what, said, derived in _statements(loader, reading):
            if said != derived:
                raise VerificationError(
                    f"the config says {what} {_shown(said)}, the loader {_shown(derived)}",
                    hint=_HINT,
                )
    except InputError as error:  # its BTF
        raise VerificationError(error.message, where=error.where, hint=_NO_LOADER) from None
    return reading


def _shown(value: object) -> str:
    return "something else" if value is None else repr(value)[:80]


def _statements(loader: Loader, reading: LoaderReading) -> Iterator[tuple[str, object, object]]:
    """Yield what the config says of each fact, and what the loader says."""
    check = loader.scheme_name if loader.scheme_name in CHECKS else None
    yield "check of the metadata", check, reading.check
    if reading.takes_host_values is not None:
        says = loader.scheme.copies_host_values
        yield "that the host's values are taken:", says, reading.takes_host_values
    yield "number of maps", len(loader.maps), len(reading.maps)
    yield "number of programs", len(loader.programs), len(reading.programs)
    names = [entry.ident for entry in loader.maps]
    yield "different map names", len(names), len(set(names))
    names = [program.name for program in loader.programs]
    yield "different program names", len(names), len(set(names))
    earlier: set[str] = set()
    for entry, made in zip(loader.maps, reading.maps, strict=True):
        yield from _map_statements(loader.name, entry, made, earlier)
        earlier.add(entry.ident)
    for program, loaded in zip(loader.programs, reading.programs, strict=True):
        yield from _program_statements(program, loaded)
    made_names = [*(made.name for made in reading.maps), *(each.name for each in reading.programs)]
    if reading.btf and any(len(name) == _NAME_SIZE for name in made_names):
        # some name may be longer than what the loader holds; to parse BTF costs as much as the rest
        btf = Btf.from_bytes(reading.btf)
        yield from _whole_map_names(loader, reading, btf)
        yield from _whole_program_names(loader, reading, btf)


def _map_statements(
    object_name: str, entry: MapEntry, made: MadeMap, earlier: Container[str]
) -> Iterator[tuple[str, object, object]]:
    where = f"map {entry.ident}:"
    yield f"{where} name", entry.name, made.name
    for attribute, field in (
        ("type", "map_type"),
        ("key_size", "key_size"),
        ("value_size", "value_size"),
        ("max_entries", "max_entries"),
        ("flags", "map_flags"),
    ):
        yield f"{where} {attribute}", getattr(entry, attribute), made.fields[field]
    is_filled = made.initial_value is not None
    yield f"{where} has_initial_value", entry.has_initial_value, is_filled
    if not is_filled:
        yield f"{where} name", entry.ident[:_NAME_SIZE], made.name
        return
    matched = _DATA_NAME.fullmatch(made.name)
    if matched is None:
        yield f"{where} name", entry.ident, made.name
        return
    prefix = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in object_name)
    if not prefix.startswith(matched["object"]):
        yield "object name", object_name, f"{matched['object']}..."
    stem = _sanitized(matched["section"])
    if entry.ident.startswith(stem) and _may_be_cut(made):
        return  # the reference tool's member is the whole section name
    is_numbered = stem in earlier and re.fullmatch(rf"{re.escape(stem)}_[0-9]+", entry.ident)
    if not is_numbered:
        yield f"{where} name", entry.ident, stem


def _may_be_cut(made: MadeMap) -> bool:
    """Whether the kernel's name of a section may be its beginning only.

    Only the name of a custom section (``.rodata.config``) stands alone and may be so long.
    Source: ``internal_map_name`` in tools/lib/bpf/libbpf.c.
    """
    return made.name.startswith(".") and len(made.name) == _NAME_SIZE


def _sanitized(section: str) -> str:
    """Return the identifier of a section of global data."""
    return "".join(c if c.isalnum() else "_" for c in section[1:])


def _whole_map_names(
    loader: Loader, reading: LoaderReading, btf: Btf
) -> Iterator[tuple[str, object, object]]:
    """Yield the names of sections and, in their order, of defined maps, which the BTF holds."""
    for entry, made in zip(loader.maps, reading.maps, strict=True):
        if made.initial_value is not None and _may_be_cut(made):
            section = btf.type_by_id(made.fields["btf_value_type_id"])
            known_as = _sanitized(made.name), _sanitized(section.name or made.name)
            if re.sub(r"_[0-9]+\Z", "", entry.ident) not in known_as and (
                entry.ident not in known_as
            ):
                yield "map name", entry.ident, known_as[1]
    datasec = btf.find(MAPS_SECTION, Kind.DATASEC)
    if datasec is None:
        return
    places = sorted((info.offset, info.type_id) for info in btf.secinfos(datasec))
    known = [btf.type_by_id(type_id).name for _, type_id in places]
    said = [
        entry.ident
        for entry, made in zip(loader.maps, reading.maps, strict=True)
        if made.initial_value is None
    ]
    if len(said) == len(known):
        for ident, name in zip(said, known, strict=True):
            yield "map name", ident, name
        return
    for ident in said:
        if len(ident) > _NAME_SIZE and ident not in known:
            yield "map name", ident, None


def _whole_program_names(
    loader: Loader, reading: LoaderReading, btf: Btf
) -> Iterator[tuple[str, object, object]]:
    """Yield the names of programs, which are those of their first functions in the BTF."""
    for entry, loaded in zip(loader.programs, reading.programs, strict=True):
        if loaded.function_id:
            function = btf.type_by_id(loaded.function_id)
            if function.kind is Kind.FUNC:
                yield f"program {entry.name}: name", entry.name, function.name


def _program_statements(
    entry: ProgramEntry, loaded: LoadedProgram
) -> Iterator[tuple[str, object, object]]:
    where = f"program {entry.name}:"
    fields = loaded.fields
    yield f"{where} name", entry.name[:_NAME_SIZE], loaded.name
    yield f"{where} type", entry.type, fields["prog_type"]
    yield f"{where} attach_type", entry.attach_type, fields["expected_attach_type"]
    yield f"{where} attach_target", entry.attach_target, loaded.attach_target
    yield f"{where} insn_count", entry.insn_count, fields["insn_cnt"]
    if not entry.section:
        return  # an imported loader whose attributes several sections stand for
    definition = find_section(entry.section)
    if definition is None:
        yield f"{where} section", entry.section, None
        return
    yield (
        f"{where} section {entry.section} with type, attach type and flags",
        (int(definition.type), int(definition.attach_type), int(definition.flags)),
        (fields["prog_type"], fields["expected_attach_type"], fields["prog_flags"]),
    )
    yield (
        f"{where} section with target",
        _target_of(entry.section, definition),
        loaded.attach_target,
    )


def _target_of(section: str, definition: SectionDef) -> str:
    """Return what a loader looks up for a section."""
    name = section.partition("/")[2]
    if not definition.attach_btf or not name:
        return ""
    return attach_lookup(definition.attach_type)[0] + name


_OPEN: Final = (
    ProgType.KPROBE,
    ProgType.TRACEPOINT,
    ProgType.RAW_TRACEPOINT,
    ProgType.RAW_TRACEPOINT_WRITABLE,
)
"""Types of programs that are attached, after the load, to what their section names."""


def open_attach_point(entry: ProgramEntry) -> bool:
    """Whether only a program's section says how it is attached, and no part of the loader does.

    ``cgroup/skb`` and ``cgroup_skb/ingress`` are one to the kernel: the direction is open. A
    section that says nothing (``kprobe``, or none) may have said something before it was changed.
    """
    return entry.type in _OPEN or (entry.type == ProgType.CGROUP_SKB and not entry.attach_type)


def open_attach_points(loader: Loader) -> tuple[ProgramEntry, ...]:
    """Return the programs whose attach point no signature over the loader covers."""
    return tuple(entry for entry in loader.programs if open_attach_point(entry))
