"""What a path that is to be written leads to: an open file, an input of the same run, a bundle.

Example:
    >>> check_distinct([Path("a"), Path("b")])
    >>> check_distinct([Path("a"), Path("./a")])
    Traceback (most recent call last):
    bpfseal.errors.UsageError: a: would be written twice
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from bpfseal.bundle.kind import looks_like_archive
from bpfseal.errors import UsageError
from bpfseal.input_file import is_input

_MAX_LINKS: Final = 40
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
"""A file descriptor's: what is longer is none (/proc/sys/fs/nr_open)."""

_HEAD: Final = 512


def own_descriptor(path: Path) -> int | None:
    """Return the number of this process's open file that a path such as ``/dev/stdout`` names.

    Opening the path would truncate the file, and renaming would leave whoever holds it with the old
    one.
    """
    own = re.compile(rf"/proc/{os.getpid()}(/task/[0-9]+)?/fd")
    with contextlib.suppress(OSError, ValueError):  # no path, or below a directory that is gone
        for _ in range(_MAX_LINKS):
            folder = os.path.realpath(path.parent)
            if own.fullmatch(folder) and _NUMBER.fullmatch(path.name):
                return int(path.name)
            if not path.is_symlink():
                break
            path = Path(folder) / path.readlink()
    return None


def check_distinct(paths: Iterable[Path]) -> None:
    """Refuse to write one file twice, by whatever names: one content would be lost.

    Raises:
        UsageError: two paths lead to the same file.
    """
    seen: set[object] = set()
    for path in paths:
        status = status_of(path)
        keys = {_real(path), (status.st_dev, status.st_ino) if status else None}
        if not seen.isdisjoint(keys):
            raise UsageError("would be written twice", where=str(path))
        seen |= keys - {None}


def check_no_input(path: Path, over: os.stat_result | None = None) -> None:
    """Refuse to replace what was read in this run, and to put something into a bundle directory.

    Args:
        path: what is to be written.
        over: a bundle that may be replaced, as it is this bundle that is written again.

    Raises:
        UsageError: it is an input, or in one.
    """
    status = status_of(path)
    if status is not None and is_input(status):
        is_same = over is not None and os.path.samestat(over, status)
        if not (is_same and (path.is_dir() or _is_bundle(path))):
            raise UsageError(
                "is an input, which is not replaced", where=str(path), hint="name another file"
            )
    for folder in _real(path).parents:
        inside = status_of(folder)
        if inside is not None and is_input(inside):
            raise UsageError(
                "is in a bundle that was read", where=str(path), hint="name another directory"
            )


def _real(path: Path) -> Path:
    """Return a path without links, as far as it can be looked at; writing it tells the rest."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return path


def _is_bundle(path: Path) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return looks_like_archive(file.read(_HEAD))
    return False


def status_of(path: Path | str) -> os.stat_result | None:
    """Return the status of a file, through links; None if it cannot be had."""
    try:
        descriptor = own_descriptor(Path(path))
        return Path(path).stat() if descriptor is None else os.fstat(descriptor)
    except (OSError, ValueError):
        return None
