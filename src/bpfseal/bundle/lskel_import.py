"""From a light skeleton of the reference tool to a bundle.

The header holds the loader's bytes and the names of its maps and programs. Everything else is read
from the loader itself: the scheme from its check block, types and sizes from the attributes of its
bpf() commands. Whatever the header says besides must be what the loader says.

Example:
    >>> bundle = import_header(data, "execsnoop.lskel.h")  # doctest: +SKIP
    >>> [variant.loader.scheme_name for variant in bundle.variants]  # doctest: +SKIP
    ['kfunc']
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from bpfseal.bpf.insn import INSN_SIZE, ByteOrder, mov64_reg
from bpfseal.bpf.uapi import ProgType
from bpfseal.bundle.derivation import check_config, derive
from bpfseal.bundle.integrity import check_digest, check_loader_btf
from bpfseal.bundle.lskel import LightSkeleton, parse_header
from bpfseal.bundle.lskel_rules import check_header, tracepoint_of
from bpfseal.bundle.media import BTF_TYPE, INSNS_TYPE, METADATA_TYPE, SIGNATURE_TYPE, SIZE_LIMITS
from bpfseal.bundle.model import Bundle, Signature, SignedLoader
from bpfseal.bundle.verify import LoaderVerification, verify_loader
from bpfseal.errors import InputError, VerificationError
from bpfseal.loader.check_block import find_check
from bpfseal.loader.checks import LOADER_BTF
from bpfseal.loader.model import (
    Loader,
    MapEntry,
    ProgramEntry,
)
from bpfseal.loader.reading import LoadedProgram, LoaderReading, MadeMap
from bpfseal.release import PERMISSIVE
from bpfseal.scheme import LOADTIME, SCHEMES, UNSIGNED
from bpfseal.sections import SECTIONS, attach_lookup
from bpfseal.signing import pkcs7_parser
from bpfseal.signing.ber import RefusedError
from bpfseal.signing.certificate import Certificate

_LIMITS: Final = {
    "opts_insn": SIZE_LIMITS[INSNS_TYPE],
    "opts_data": SIZE_LIMITS[METADATA_TYPE],
    "opts_btf": SIZE_LIMITS[BTF_TYPE],
    "opts_sig": SIZE_LIMITS[SIGNATURE_TYPE],
    "opts_excl_hash": 32,
}
_FIRST_INSN: Final = mov64_reg(6, 1)
"""What every loader begins with: it keeps its context."""


def import_header(data: bytes, where: str) -> Bundle:
    """Read a header into a bundle with one variant.

    Args:
        data: the ``.lskel.h`` file.
        where: its name, for error messages.

    Raises:
        InputError: it is no light skeleton of the reference tool, or contradicts itself.
        VerificationError: a digest in it is not that of its loader or metadata.
    """
    header = parse_header(data, where)
    _check_arrays(header, where)
    insns, metadata = header.arrays["opts_insn"], header.arrays["opts_data"]
    signature = header.arrays.get("opts_sig")
    byteorder = _byteorder(insns, where)
    try:
        if (check := find_check(insns, byteorder)) is not None:
            bare = Loader(check.scheme_name, header.name, insns, metadata, b"", (), ())
            check_digest(bare, check.digest)
        reading = derive(insns, metadata, byteorder)
        scheme_name = _scheme_name(reading, is_signed=signature is not None)
        loader = Loader(
            scheme_name=scheme_name,
            name=header.name,
            insns=insns,
            metadata=metadata,
            btf=header.arrays.get("opts_btf", _loader_btf(scheme_name)),
            maps=_map_entries(header, reading),
            programs=_program_entries(header, reading),
            byteorder=byteorder,
        )
        _check_consistency(loader, header)
        check_header(header, reading)
        signatures = (_signature(signature),) if signature is not None else ()
    except (InputError, VerificationError) as error:
        error.where = f"{where}: {error.where}" if error.where else where
        raise
    return Bundle(header.name, (SignedLoader(loader, signatures),))


def verify_import(
    bundle: Bundle, trusted: Sequence[Certificate]
) -> tuple[Bundle, LoaderVerification]:
    """Verify the signature of an imported bundle and put the signer's certificate into it.

    Raises:
        VerificationError: see `bpfseal.bundle.verify.verify_loader`.
    """
    (variant,) = bundle.variants
    verification = verify_loader(variant, trusted)
    certificate = verification.signatures[0].certificate.der
    signatures = tuple(replace(entry, certificate=certificate) for entry in variant.signatures)
    verified = replace(variant, signatures=signatures)
    return replace(bundle, variants=(verified,)), verification


def _check_arrays(header: LightSkeleton, where: str) -> None:
    for name, data in header.arrays.items():
        limit = _LIMITS.get(name)
        if limit is None:
            raise InputError(f"array {name} is unknown", where=where)
        if not 0 < len(data) <= limit:
            raise InputError(f"array {name} has {len(data)} bytes, not 1 to {limit}", where=where)
    if ("opts_sig" in header.arrays) != ("opts_excl_hash" in header.arrays):
        raise InputError("only one of opts_sig and opts_excl_hash", where=where)


def _byteorder(insns: bytes, where: str) -> ByteOrder:
    orders: tuple[ByteOrder, ...] = ("little", "big")
    for byteorder in orders:
        if len(insns) % INSN_SIZE == 0 and insns.startswith(_FIRST_INSN.encode(byteorder)):
            return byteorder
    raise InputError("opts_insn does not begin like a loader program", where=where)


def _scheme_name(reading: LoaderReading, *, is_signed: bool) -> str:
    """Return the scheme that a loader is of.

    A loader without a check block is `loadtime` if it is signed, or if it leaves the host's values
    alone, which unsigned loaders of the reference tool do not.
    """
    if reading.check is not None:
        return reading.check
    return LOADTIME.name if is_signed or reading.takes_host_values is False else UNSIGNED.name


def _loader_btf(scheme_name: str) -> bytes:
    """Return the loader BTF of a scheme, which is the same for all loaders."""
    return LOADER_BTF if SCHEMES[scheme_name].has_loader_btf else b""


def _map_entries(header: LightSkeleton, reading: LoaderReading) -> tuple[MapEntry, ...]:
    made = reading.maps
    if len(made) != len(header.maps):
        raise InputError(f"the loader makes {len(made)} maps, the struct has {len(header.maps)}")
    return tuple(
        _map_entry(ident, entry, header.initial_values.get(ident))
        for ident, entry in zip(header.maps, made, strict=True)
    )


def _map_entry(ident: str, made: MadeMap, given: bytes | None) -> MapEntry:
    if given is not None and given != made.initial_value:
        raise InputError(f"the open function sets {ident} to another value than the metadata")
    fields = made.fields
    return MapEntry(
        name=made.name,
        ident=ident,
        type=fields["map_type"],
        key_size=fields["key_size"],
        value_size=fields["value_size"],
        max_entries=fields["max_entries"],
        flags=fields["map_flags"],
        has_initial_value=made.initial_value is not None,
    )


def _program_entries(header: LightSkeleton, reading: LoaderReading) -> tuple[ProgramEntry, ...]:
    made = reading.programs
    if len(made) != len(header.programs):
        raise InputError(
            f"the loader loads {len(made)} programs, the struct has {len(header.programs)}"
        )
    return tuple(
        _program_entry(name, entry, tracepoint_of(header.attached[name]))
        for name, entry in zip(header.programs, made, strict=True)
    )


def _program_entry(name: str, loaded: LoadedProgram, tracepoint: str) -> ProgramEntry:
    fields, target = loaded.fields, loaded.attach_target
    return ProgramEntry(
        name=name,
        section=_section(fields, target, tracepoint),
        type=fields["prog_type"],
        attach_type=fields["expected_attach_type"],
        attach_target=target,
        insn_count=fields["insn_cnt"],
    )


def _section(fields: Mapping[str, int], target: str, tracepoint: str) -> str:
    """Return the section name that stands for a program's attributes, or ``""`` if several do."""
    wanted = (fields["prog_type"], fields["expected_attach_type"], fields["prog_flags"])
    fit = [entry for entry in SECTIONS if (entry.type, entry.attach_type, entry.flags) == wanted]
    if not fit:
        return ""
    stem = fit[0].name.removesuffix("+")
    if target and fit[0].attach_btf:
        prefix, _ = attach_lookup(fit[0].attach_type)
        return f"{stem}/{target.removeprefix(prefix)}"
    if tracepoint and fit[0].type == ProgType.RAW_TRACEPOINT:
        return f"{stem}/{tracepoint}"
    return stem if len(fit) == 1 else ""


def _check_consistency(loader: Loader, header: LightSkeleton) -> None:
    """Check what header, instructions and metadata say of each other."""
    given = header.arrays.get("opts_excl_hash", loader.excl_prog_hash)
    if given != loader.excl_prog_hash:
        raise VerificationError(
            f"opts_excl_hash is {given.hex()}, the instructions have SHA-256 "
            f"{loader.excl_prog_hash.hex()}",
            hint="no kernel loads it: -EACCES",
        )
    check_loader_btf(loader)
    check_config(loader)


def _signature(message: bytes) -> Signature:
    """Return the signature, which must at least be readable."""
    try:
        pkcs7_parser.parse(message, PERMISSIVE)
    except RefusedError as refused:
        raise InputError(f"opts_sig is no CMS message that kernels take: {refused}") from refused
    return Signature(cms=message, certificate=b"")
