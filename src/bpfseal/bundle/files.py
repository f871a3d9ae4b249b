"""Files as they are read and written everywhere in bpfseal.

Read: with a limit on the size. Written: under a temporary name in the same directory and renamed,
so that a failure leaves nothing and never touches a file that was there.

Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_files({Path(folder) / "a.bin": b"one", Path(folder) / "b.bin": b"two"})
    ...     read_file(Path(folder) / "b.bin", limit=100)
    b'two'
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from bpfseal.errors import CapabilityError, InputError, UsageError

_PIECE: Final = 1 << 20
"""Bytes that are asked for at once: Python takes memory for all of a request beforehand."""


def read_file(path: Path, *, limit: int, follow_links: bool = True) -> bytes:
    """Return the contents of a file.

    Args:
        path: a regular file; with `follow_links` also a pipe or device that the caller named.
        limit: the most bytes to read.
        follow_links: whether `path` may be a symbolic link or something else than a regular file.

    Raises:
        InputError: it cannot be read, is larger, or is of the wrong kind.
    """
    flags = os.O_RDONLY | (0 if follow_links else os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            if not follow_links and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError("not a regular file", where=str(path))
            data = read_up_to(file, limit + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {_reason(error)}", where=str(path)) from None
    if len(data) > limit:
        raise InputError(f"larger than {limit} bytes", where=str(path))
    return data


def read_up_to(file: BinaryIO, size: int) -> bytes:
    """Return at most `size` bytes of a file; memory is taken for those alone that are there."""
    pieces = []
    while size > 0 and (piece := file.read(min(size, _PIECE))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def write_files(files: Mapping[Path, bytes], *, modes: Mapping[Path, int] | None = None) -> None:
    """Write all files under temporary names, then rename them.

    A target that exists and is no regular file, such as ``/dev/stdout``, is written to directly:
    renaming would replace it.

    Args:
        files: contents by path.
        modes: permissions of some of them, before the umask; 0666 for the others.

    Raises:
        CapabilityError: a file cannot be written.
    """
    staged: list[tuple[Path, Path]] = []
    try:
        for path, data in files.items():
            with _writing(path):
                if path.exists() and not path.is_file() and not path.is_dir():
                    path.write_bytes(data)
                    continue
                target = path.resolve()
                if target.is_dir():
                    raise IsADirectoryError(None, "is a directory")
                temporary = _temporary_name(target)
                mode = (modes or {}).get(path, 0o666)
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                staged.append((temporary, target))
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
        for temporary, target in staged:
            with _writing(target):
                temporary.replace(target)
    finally:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)


def write_directory(files: Mapping[str, bytes], path: Path, *, marker: str) -> None:
    """Write a directory with these files, in place of one that was there.

    Args:
        files: contents by relative path.
        path: the directory. If it exists it is empty or holds `marker`.
        marker: the file that tells a directory of this kind from any other.

    Raises:
        UsageError: the directory holds something else.
        CapabilityError: it cannot be written; the old one is still there then.
    """
    path = path.resolve()
    with _writing(path):
        if path.exists() and not (path / marker).is_file() and any(path.iterdir()):
            raise UsageError(
                f"holds something else (it has no {marker})", where=str(path), hint="name a new one"
            )
        new, old = _temporary_name(path), _temporary_name(path)
        try:
            for name, data in files.items():
                file = new / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            if path.exists():
                path.rename(old)
            try:
                new.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name[:200]}.{os.urandom(4).hex()}.tmp")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        message = f"cannot be written: {_reason(error)}"
        raise CapabilityError(message, where=str(path)) from None


def _reason(error: OSError | ValueError) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
