"""Which loaders of a bundle a skeleton carries, and what it knows of them.

A skeleton is compiled into a program that trusts it, so what it carries is checked when it is
made: signed instructions vouch for the metadata, the loader BTF is the expected one, all variants
hand back the same maps and programs, and names are fit for source code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bpfseal.bpf.uapi import MapFlag
from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import Kind
from bpfseal.bundle.c_types import Variable, is_identifier, section_variables
from bpfseal.bundle.integrity import check_loader_btf, check_metadata
from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.errors import InputError, UsageError
from bpfseal.loader.model import MapEntry, ProgramEntry
from bpfseal.loader.reading import Command, LoaderReading, read_loader
from bpfseal.scheme import STRONGEST_FIRST, UNSIGNED

_ORDER: Final = tuple(scheme.name for scheme in (*STRONGEST_FIRST, UNSIGNED))
"""The order in which a skeleton tries its variants."""


@dataclass(frozen=True, slots=True)
class GlobalData:
    """A map of global data that the program may see.

    Attributes:
        entry: the map.
        index: its number among the maps.
        initial_value: what the metadata puts into it.
        variables: its contents, if the BTF describes them.
    """

    entry: MapEntry
    index: int
    initial_value: bytes
    variables: tuple[Variable, ...] | None

    @property
    def is_read_only(self) -> bool:
        """Whether the program may only read it once it is loaded."""
        return bool(self.entry.flags & MapFlag.RDONLY_PROG)


def chosen_variants(bundle: Bundle) -> tuple[SignedLoader, ...]:
    """Return the variants that a skeleton tries, in order: signed ones, or the one unsigned.

    Raises:
        UsageError: a variant that should be signed is not, or there is nothing to load.
        VerificationError: the metadata is not what the signed instructions vouch for.
        InputError: the variants differ in maps or programs, or a name is no identifier.
    """
    variants = sorted(
        bundle.variants, key=lambda variant: _ORDER.index(variant.loader.scheme_name)
    )
    if not variants:
        raise UsageError("the bundle holds no loader")
    if len(variants) > 1:
        variants = [entry for entry in variants if entry.loader.scheme_name != UNSIGNED.name]
    for variant in variants:
        _check(variant)
    first = variants[0].loader
    for variant in variants[1:]:
        loader = variant.loader
        if (loader.maps, loader.programs, loader.byteorder) != (
            first.maps,
            first.programs,
            first.byteorder,
        ):
            raise InputError("the variants make different maps or programs", where=bundle.name)
    _check_names(bundle.name, first.maps, first.programs)
    return tuple(variants)


def _check(variant: SignedLoader) -> None:
    loader = variant.loader
    if not loader.scheme.signed_parts:
        return
    if not variant.signatures:
        raise UsageError(
            f"the variant {loader.scheme_name} is not signed",
            hint="bpfseal sign, or --scheme unsigned of an object",
        )
    check_metadata(loader)
    check_loader_btf(loader)


def _check_names(name: str, maps: Sequence[MapEntry], programs: Sequence[ProgramEntry]) -> None:
    idents = [entry.ident for entry in maps]
    names = [entry.name for entry in programs]
    for text in (name, *idents, *names):
        if not is_identifier(text):
            raise InputError(f"{text!r} is no name for source code", where=name)
    for group in (idents, names):
        if len(set(group)) < len(group):
            raise InputError("two maps or two programs have the same name", where=name)


def global_data(variant: SignedLoader) -> tuple[GlobalData, ...]:
    """Return the maps of global data of a loader that can be mapped into memory.

    Raises:
        InputError: the loader's commands cannot be read, or do not fit the list of maps.
    """
    loader = variant.loader
    reading = read_loader(loader.insns, loader.metadata, loader.byteorder)
    commands = reading.maps()
    if len(commands) != len(loader.maps):
        raise InputError(
            f"the loader makes {len(commands)} maps, the list has {len(loader.maps)}",
            where=loader.name,
        )
    raw = reading.btf()
    btf = Btf.from_bytes(raw) if raw else None
    return tuple(
        _global_data(number, entry, command, reading, btf)
        for number, (entry, command) in enumerate(zip(loader.maps, commands, strict=True))
        if entry.flags & MapFlag.MMAPABLE and entry.has_initial_value
    )


def _global_data(
    index: int, entry: MapEntry, command: Command, reading: LoaderReading, btf: Btf | None
) -> GlobalData:
    value = reading.initial_value(command)
    if value is None or len(value) != entry.value_size:
        raise InputError(f"map {entry.ident} has no initial value of its size")
    type_id = command.fields["btf_value_type_id"]
    variables = None
    if btf is not None and 0 < type_id < len(btf) and btf.kind_of(type_id) is Kind.DATASEC:
        variables = section_variables(btf, type_id, entry.value_size)
    return GlobalData(entry, index, value, variables)
