"""Which loaders of a bundle a skeleton carries, and what it knows of them.

A skeleton is compiled into a program that trusts it, so what it carries is checked when it is
made: signed instructions vouch for the metadata, the loader BTF is the expected one, all variants
hand back the same maps and programs, and names are fit for source code.
"""

from __future__ import annotations

from dataclasses import dataclass

from bpfseal.bpf.uapi import MapFlag
from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import Kind
from bpfseal.bundle.c_types import Variable, is_identifier, section_variables
from bpfseal.bundle.derivation import check_config
from bpfseal.bundle.integrity import check_loader_btf, check_metadata
from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.variants import loadable_variants
from bpfseal.errors import InputError, UsageError
from bpfseal.loader.model import MapEntry
from bpfseal.loader.reading import MadeMap, read_loader
from bpfseal.scheme import UNSIGNED


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


def chosen_variants(bundle: Bundle, *, unsigned: bool = False) -> tuple[SignedLoader, ...]:
    """Return the variants that a skeleton tries, in order.

    Args:
        bundle: its variants.
        unsigned: take the only one, of scheme ``unsigned``, that nobody checks. Otherwise those
            are taken that have signatures.

    Raises:
        UsageError: no variant is signed that should be, or the other way round; or there is
            nothing to load.
        VerificationError: the metadata is not what the signed instructions vouch for, or the config
            says something else than the loader.
        InputError: the variants differ in maps or programs, or a name is no identifier.
    """
    variants = loadable_variants(bundle)
    is_unsigned = variants[0].loader.scheme is UNSIGNED
    if is_unsigned and not unsigned:
        raise UsageError(
            "a skeleton of an unsigned loader, which nobody checks",
            where=bundle.name,
            hint=f"--scheme {UNSIGNED.name} asks for that",
        )
    if unsigned and (not is_unsigned or variants[0].signatures):
        raise UsageError(
            "an unsigned skeleton is made of the unsigned variant, without signatures",
            where=bundle.name,
        )
    loader = variants[0].loader
    idents = (entry.ident for entry in loader.maps)
    for name in (bundle.name, *idents, *(entry.name for entry in loader.programs)):
        if not is_identifier(name):
            raise InputError(f"{name!r} is no name for source code", where=bundle.name)
    for variant in variants:
        check_metadata(variant.loader)
        check_loader_btf(variant.loader)
        check_config(variant.loader)
    return variants


def global_data(variant: SignedLoader) -> tuple[GlobalData, ...]:
    """Return the maps of global data of a loader that can be mapped into memory.

    Args:
        variant: one of `chosen_variants`, whose config is what the loader says.

    Raises:
        InputError: the object's BTF is malformed.
    """
    loader = variant.loader
    reading = read_loader(loader.insns, loader.metadata, loader.byteorder)
    btf = Btf.from_bytes(reading.btf) if reading.btf else None
    return tuple(
        _global_data(number, entry, made, btf)
        for number, (entry, made) in enumerate(zip(loader.maps, reading.maps, strict=True))
        if entry.flags & MapFlag.MMAPABLE and entry.has_initial_value
    )


def _global_data(index: int, entry: MapEntry, made: MadeMap, btf: Btf | None) -> GlobalData:
    value = made.initial_value or b""
    type_id = made.fields["btf_value_type_id"]
    variables = None
    if btf is not None and 0 < type_id < len(btf) and btf.kind_of(type_id) is Kind.DATASEC:
        variables = section_variables(btf, type_id, entry.value_size)
    return GlobalData(entry, index, value, variables)
