"""Pin what was loaded, so that it outlives the process.

Maps go to ``DIR/maps/IDENT`` and programs to ``DIR/programs/NAME``. Either all of them are pinned
or none, after an error and after a signal that ends the process.

Example:
    >>> pin_loaded(kernel, loaded, Path("/sys/fs/bpf/exectrace"))  # doctest: +SKIP
    (PosixPath('/sys/fs/bpf/exectrace/maps/events'), ...)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from errno import EINVAL, EPERM
from pathlib import Path
from typing import Final

from bpfseal.bundle.c_types import is_identifier
from bpfseal.errors import CapabilityError, InputError, KernelError
from bpfseal.kernel.load import LoadedSkeleton
from bpfseal.kernel.protocol import MapKernel
from bpfseal.signals import deferred_endings

MAPS: Final = "maps"
PROGRAMS: Final = "programs"
LINKS: Final = "links"


def pin_loaded(kernel: MapKernel, loaded: LoadedSkeleton, directory: Path) -> tuple[Path, ...]:
    """Pin all maps and programs below a directory in bpffs, and return the paths.

    Raises:
        InputError: a name is no identifier, so that it is no safe file name either.
        CapabilityError: the directory cannot be made, or is in no bpffs.
        KernelError: something is pinned there already (EEXIST), or must not be pinned.
    """
    return pin_all(kernel, {MAPS: loaded.map_fds, PROGRAMS: loaded.prog_fds}, directory)


def pin_all(
    kernel: MapKernel, folders: Mapping[str, Mapping[str, int]], directory: Path
) -> tuple[Path, ...]:
    """Pin fds by name, in folders below a directory, and return the paths; see `pin_loaded`."""
    paths: list[Path] = []
    with deferred_endings() as signals, ExitStack() as undo:
        for folder, fds in folders.items():
            for path in _pin(kernel, fds, directory / folder, undo):
                paths.append(path)
                signals.deliver()
        undo.pop_all()
    return tuple(paths)


def _pin(
    kernel: MapKernel, fds: Mapping[str, int], folder: Path, undo: ExitStack
) -> Iterable[Path]:
    for name in fds:
        if not is_identifier(name):
            raise InputError(f"{name!r} is no name for a pin", where=str(folder))
    _make_directories(folder, undo)
    for name, fd in fds.items():
        path = folder / name
        try:
            kernel.pin(fd, str(path))
        except KernelError as error:
            if error.errno in (EPERM, EINVAL):
                raise CapabilityError(
                    f"cannot be pinned: {error.errno_name}",
                    where=str(path),
                    hint="the directory must be in bpffs: mount -t bpf bpf /sys/fs/bpf",
                ) from None
            error.step = error.where = f"pin {path}"
            raise
        undo.callback(path.unlink, missing_ok=True)
        yield path


def _make_directories(folder: Path, undo: ExitStack) -> None:
    """Make a directory and what is missing above it."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        try:
            path.mkdir(mode=0o700)
        except OSError as error:
            raise CapabilityError(f"cannot be made: {error.strerror}", where=str(path)) from None
        undo.callback(_remove, path)


def _remove(folder: Path) -> None:
    with suppress(OSError):  # somebody else put something there in the meantime
        folder.rmdir()
