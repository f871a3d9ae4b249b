"""Load a signed loader: the steps of a light skeleton, on any kernel.

`load()` makes the calls that the skeleton of the loader's scheme makes, in its order, closes every
fd that it needs for the time of the load only, and returns those of the maps and programs. Before
the first call it compares the metadata with the digest that the instructions carry: a loader that
a kernel refuses still runs its cleanup, which closes whatever fds unverified metadata names.

Example:
    >>> skeleton = load(kernel, signed)
    >>> skeleton.prog_fds["handle_exec"]
    5
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from bpfseal.bpf.uapi import KeyringId, MapType, ProgFlag, ProgType
from bpfseal.bundle.derivation import check_config
from bpfseal.bundle.integrity import check_metadata as check_digest_of_metadata
from bpfseal.bundle.model import SignedLoader
from bpfseal.errors import BpfsealError, KernelError, UsageError, VerificationError
from bpfseal.kernel.hints import advise
from bpfseal.kernel.protocol import Kernel, MapCreate, MapInfo, ProgInfo, ProgLoad
from bpfseal.loader.model import (
    LOADER_LICENSE,
    LOADER_MAP_NAME,
    LOADER_PROG_NAME,
    Loader,
    MapEntry,
    ProgramEntry,
)
from bpfseal.scheme import UNSIGNED
from bpfseal.signals import deferred_endings, undisturbed

REFUSED_STEPS: Final = ("map_hash", "btf_load", "prog_load")
"""The steps in which a kernel does not take a loader; nothing of it has run yet."""

_METADATA_KEY: Final = bytes(4)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HostValues:
    """What the host sets before the load, in schemes whose signature leaves it to the host.

    Attributes:
        contents: initial values of global data, by `MapEntry.ident`, each of the map's value size.
        max_entries: sizes of maps, by `MapEntry.ident`.
    """

    contents: Mapping[str, bytes] = field(default_factory=dict)
    max_entries: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoadedSkeleton:
    """What a loader made.

    Attributes:
        signed: what was loaded.
        map_fds: the fds of the maps, by `MapEntry.ident`.
        prog_fds: the fds of the programs, by `ProgramEntry.name`.
        maps: the facts of the maps, in the order of the loader; sizes are those that the kernel
            says, which the host may have changed.
    """

    signed: SignedLoader
    map_fds: dict[str, int]
    prog_fds: dict[str, int]
    maps: tuple[MapEntry, ...]


def load(
    kernel: Kernel,
    signed: SignedLoader,
    *,
    signature: int = 0,
    unsigned: bool = False,
    keyring_id: int = KeyringId.SESSION,
    check_metadata: bool = True,
    host_values: HostValues | None = None,
) -> LoadedSkeleton:
    """Load a loader, signed or unsigned, and run it.

    Args:
        kernel: the kernel to load on.
        signed: the loader.
        signature: which of its signatures to use.
        unsigned: load it without a signature, of whatever scheme it is: nobody checks it then. It
            must have none.
        keyring_id: where the kernel looks for the signer's key.
        check_metadata: compare the metadata with the digest in the instructions first, and the
            config with what the loader says. Without it a refused loader closes the fds that the
            metadata names.
        host_values: what the host sets in place of the signer's values.

    Returns:
        The fds of maps and programs, which belong to the caller.

    Raises:
        VerificationError: it is not signed and `unsigned` was not asked for, or the other way
            round; or the metadata is not what the instructions carry the digest of, the config
            is not the loader's, or what the loader handed back is not what it should have made.
        UsageError: no such signature, or host values for a loader that takes none.
        KernelError: the kernel or the loader refused; `step` says where, `hint` what to do.
            Whatever was opened is closed again.
    """
    require_signature(signed, unsigned=unsigned)
    if signed.signatures and not 0 <= signature < len(signed.signatures):
        count = len(signed.signatures)
        raise UsageError(f"no signature {signature}", hint=f"there are {count}, from 0")
    if host_values and not signed.loader.scheme.copies_host_values:
        raise UsageError(
            f"a loader of scheme {signed.loader.scheme_name} takes no values of the host: "
            "the signature fixes those of the signer",
            hint="build the object with these values, or load a variant of another scheme",
        )
    if check_metadata:
        check_digest_of_metadata(signed.loader)
        check_config(signed.loader)
    _check_values(signed.loader, host_values or HostValues())
    cms = signed.signatures[signature].cms if signed.signatures else None
    made: list[LoadedSkeleton] = []
    try:
        with deferred_endings() as signals, ExitStack() as temporary:
            fds = _load_program(
                kernel, signed.loader, cms, keyring_id, temporary, between=signals.deliver
            )
            made.append(_run(kernel, signed, fds, host_values or HostValues()))
        return made[0]
    except KernelError as error:
        advice = advise(error, signed, kernel.accepted_scheme())
        error.hint, error.is_environment = error.hint or advice.hint, advice.is_environment
        raise
    except BaseException:  # of a signal's handler, when all was there
        for loaded in made:
            for fd in (*loaded.map_fds.values(), *loaded.prog_fds.values()):
                close_quietly(kernel, fd)
        raise


def require_signature(signed: SignedLoader, *, unsigned: bool) -> None:
    """Refuse a loader without a signature, unless that is asked for, and one with, if it is.

    A kernel loads what has no signature like any program. So it must never happen under the name
    of a scheme that has one, nor for a loader that carries signatures over which nobody looks.

    Raises:
        VerificationError: see above.
    """
    name = signed.loader.scheme_name
    if unsigned:
        if signed.signatures:
            raise VerificationError(
                f"the variant {name} carries signatures, which a load without would not check",
                hint="load it as signed, or build the object with --scheme unsigned",
            )
    elif not signed.loader.scheme.signed_parts:
        raise VerificationError(
            f"a loader of scheme {name}: nobody checks it", hint=f"--scheme {name} asks for that"
        )
    elif not signed.signatures:
        raise VerificationError(
            f"the variant {name} is not signed",
            hint=f"bpfseal sign; without a signature only --scheme {UNSIGNED.name} loads",
        )


def _check_values(loader: Loader, values: HostValues) -> None:
    """Check that the host's values have the sizes that the loader copies.

    Raises:
        UsageError: a map is not there, or its value has another size.
    """
    sizes = {entry.ident: entry.value_size for entry in loader.maps}
    for ident, data in values.contents.items():
        if sizes.get(ident) != len(data):
            raise UsageError(f"map {ident} takes {sizes.get(ident, 'no')} bytes, not {len(data)}")


def _load_program(
    kernel: Kernel,
    loader: Loader,
    cms: bytes | None,
    keyring_id: int,
    temporary: ExitStack,
    *,
    between: Callable[[], None],
) -> list[int]:
    """Make the metadata map and load the loader; `temporary` closes all fds.

    `between` is called where it may raise.

    Returns:
        These fds; the last one is the loader.
    """
    scheme = loader.scheme
    is_signed = cms is not None
    fds: list[int] = []

    def keep(fd: int) -> int:
        fds.append(fd)
        temporary.callback(close_quietly, kernel, fd)
        between()
        return fd

    metadata_map = MapCreate(
        type=MapType.ARRAY,
        name=LOADER_MAP_NAME,
        key_size=len(_METADATA_KEY),
        value_size=len(loader.metadata),
        max_entries=1,
        excl_prog_hash=loader.excl_prog_hash if is_signed else None,
    )
    map_fd = keep(_step("map_create", lambda: kernel.map_create(metadata_map)))
    _step("map_update", lambda: kernel.map_update(map_fd, _METADATA_KEY, loader.metadata))
    if is_signed:
        _step("map_freeze", lambda: kernel.map_freeze(map_fd))
        if scheme.wants_map_hash:
            _step("map_hash", lambda: kernel.map_hash(map_fd))
    btf_fd = 0
    if scheme.has_loader_btf:
        btf_fd = keep(_step("btf_load", lambda: kernel.btf_load(loader.btf)))
    request = ProgLoad(
        type=ProgType.SYSCALL,
        name=LOADER_PROG_NAME,
        insns=loader.insns,
        license=LOADER_LICENSE,
        flags=ProgFlag.SLEEPABLE,
        fd_array=(map_fd,),
        fd_array_cnt=1 if is_signed and scheme.binds_metadata else 0,
        btf_fd=btf_fd,
        signature=cms,
        keyring_id=keyring_id if is_signed else 0,
    )
    keep(_step("prog_load", lambda: kernel.prog_load(request)))
    return fds


def _run(
    kernel: Kernel, signed: SignedLoader, temporary_fds: Sequence[int], host_values: HostValues
) -> LoadedSkeleton:
    """Run the loader, the last of the temporary fds, and read the fds out of its context."""
    prog_fd = temporary_fds[-1]
    loader = signed.loader
    ctx = bytearray(loader.ctx_size.to_bytes(4, loader.byteorder).ljust(loader.ctx_size, b"\0"))
    pointers: dict[int, bytes] = {}
    for number, entry in enumerate(loader.maps):
        behind_fd = loader.map_fd_offset(number) + 4
        size = host_values.max_entries.get(entry.ident, 0)
        ctx[behind_fd : behind_fd + 4] = size.to_bytes(4, loader.byteorder)
        if entry.ident in host_values.contents:
            pointers[behind_fd + 4] = host_values.contents[entry.ident]
    # A signal disturbs the verifier at what the loader loads, too. The loader has closed all again.
    retval, after, rule = undisturbed(
        lambda: _step("prog_run", lambda: kernel.prog_run(prog_fd, bytes(ctx), pointers)),
        lambda result: result.retval == -errno.EAGAIN,
    )
    if retval < 0:
        raise KernelError(-retval, rule, step="prog_run", rule=rule)
    if len(after) < loader.ctx_size:
        message = f"the context came back with {len(after)} of {loader.ctx_size} bytes"
        raise KernelError(errno.EFAULT, message, step="prog_run")

    return _taken_over(kernel, signed, after, temporary_fds)


def _taken_over(
    kernel: Kernel, signed: SignedLoader, ctx: bytes, temporary_fds: Collection[int]
) -> LoadedSkeleton:
    """Read the fds out of the context and check that each is what it should be.

    Raises:
        VerificationError: the loader handed back something else. The fds that it made are closed.
    """
    loader = signed.loader

    def fd_at(offset: int) -> int:
        return int.from_bytes(ctx[offset : offset + 4], loader.byteorder, signed=True)

    places: list[tuple[str, int, MapEntry | ProgramEntry]] = [
        *((e.ident, fd_at(loader.map_fd_offset(n)), e) for n, e in enumerate(loader.maps)),
        *((e.name, fd_at(loader.prog_fd_offset(n)), e) for n, e in enumerate(loader.programs)),
    ]
    taken = set(temporary_fds)
    maps: list[MapEntry] = []
    fault: BpfsealError | None = None
    with ExitStack() as failed:
        for name, fd, entry in places:
            try:
                if fd <= 0 or fd in taken:
                    raise VerificationError(
                        f"the loader handed back fd {fd} for {name}",
                        hint="an fd of a loader is positive, and each is there once",
                    )
                found = _told(kernel, entry, fd)
                taken.add(fd)
                failed.callback(close_quietly, kernel, fd)
                if isinstance(found, MapInfo) and isinstance(entry, MapEntry):
                    maps.append(_as_made(entry, found))
                elif found.type != entry.type:
                    raise VerificationError(
                        f"program {name} is of type {found.type}, the config says {entry.type}"
                    )
            except BpfsealError as error:
                fault = fault or error
        if fault is not None:  # what the kernel says is a map or program is closed, nothing else
            raise fault
        failed.pop_all()
    count = len(loader.maps)
    return LoadedSkeleton(
        signed,
        {name: fd for name, fd, _ in places[:count]},
        {name: fd for name, fd, _ in places[count:]},
        tuple(maps),
    )


def _told(kernel: Kernel, entry: MapEntry | ProgramEntry, fd: int) -> MapInfo | ProgInfo:
    """Return what the kernel says of an fd that should be this map or program."""
    if isinstance(entry, MapEntry):
        return _step("map_info", lambda: kernel.map_info(fd))
    return _step("prog_info", lambda: kernel.prog_info(fd))


def _as_made(entry: MapEntry, found: MapInfo) -> MapEntry:
    """Return the facts of a map with the number of entries that the kernel says.

    Raises:
        VerificationError: it is not the map that was wanted: its values have another size.
    """
    wanted = entry.type, entry.key_size, entry.value_size
    if (found.type, found.key_size, found.value_size) != wanted:
        raise VerificationError(
            f"map {entry.ident} is of type {found.type} with {found.key_size} bytes of key and "
            f"{found.value_size} of value, the config says {wanted}"
        )
    return replace(entry, max_entries=found.max_entries)


def _step(name: str, call: Callable[[], T]) -> T:
    """Make a call; a refusal gets the name of the step."""
    try:
        return call()
    except KernelError as error:
        error.step = error.where = name
        raise


def close_quietly(kernel: Kernel, fd: int) -> None:
    """Close a fd; one that is closed already, as a refused loader may do, is no error."""
    with suppress(KernelError):
        kernel.close(fd)
