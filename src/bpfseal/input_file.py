"""Files as they are read everywhere in bpfseal: of a known kind, and never without an end.

`bpfseal.bundle.writing` writes them.

A name that a person gives may be a pipe, as ``<(...)`` of a shell is, or a terminal. What a program
finds by itself, such as the files of a directory, is a regular file or nothing: a pipe that nobody
writes to would hold it up for ever.

Example:
    >>> read_file(Path("/dev/null"), limit=100)
    b''
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from bpfseal.errors import InputError

OPEN_SECONDS: Final = 5.0
"""So long a pipe may have no writer."""

SILENT_SECONDS: Final = 60.0
"""So long a pipe with a writer may deliver nothing."""

_NULL: Final = os.makedev(1, 3)
_CHUNK: Final = 1 << 16


_inputs: set[tuple[int, int]] | None = None
"""Device and inode of what was read, while that is remembered."""


@contextlib.contextmanager
def remembered_inputs() -> Iterator[None]:
    """Remember which files and bundle directories are read: for a run of a program.

    What the run writes replaces none of them (`is_input`): a name given twice by mistake would
    destroy a key, or the only copy of a signed bundle. A library that reads and writes for as long
    as its process lives does not remember.
    """
    global _inputs
    before, _inputs = _inputs, set()
    try:
        yield
    finally:
        _inputs = before


def known_inputs() -> frozenset[tuple[int, int]]:
    """Return device and inode of each input so far, for another process of the same run."""
    return frozenset(_inputs or ())


def take_inputs(known: Iterable[tuple[int, int]]) -> None:
    """Remember in this process what another one of the run has read."""
    global _inputs
    _inputs = set(known)


def note_input(status: os.stat_result) -> None:
    """Remember a file or a directory as an input; of another kind nothing is replaced."""
    if _inputs is not None and (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        _inputs.add((status.st_dev, status.st_ino))


def is_input(status: os.stat_result) -> bool:
    """Whether this is a file or directory that was read, by whatever name or link."""
    return _inputs is not None and (status.st_dev, status.st_ino) in _inputs


def read_file(
    path: Path, *, limit: int, follow_links: bool = True, only_regular: bool = False
) -> bytes:
    """Return the contents of a file.

    Args:
        path: a regular file; unless told otherwise also a pipe or terminal that the caller named.
        limit: the most bytes to read.
        follow_links: whether `path` may be a symbolic link or something else than a regular file.
        only_regular: whether it must be a regular file, or a link to one.

    Raises:
        InputError: it cannot be read, is larger, is of the wrong kind, or is a pipe from which
            nothing comes.
    """
    # O_NONBLOCK: the open of a pipe without a writer does not return without it.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
        try:
            status = os.fstat(descriptor)
            note_input(status)
            if stat.S_ISREG(status.st_mode):
                data = _read_regular(descriptor, limit + 1)
            elif only_regular or not follow_links or not _is_stream(descriptor):
                raise InputError("not a regular file", where=str(path))
            else:
                data = _read_stream(descriptor, limit + 1, str(path))
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {reason(error)}", where=str(path)) from None
    if len(data) > limit:
        raise InputError(f"larger than {limit} bytes", where=str(path))
    return data


def read_open(file: BinaryIO, *, limit: int, where: str) -> bytes:
    """Return what is left of an open file, such as stdin.

    Args:
        file: the file.
        limit: the most bytes to read.
        where: its name, for errors.

    Raises:
        InputError: there is more, or it cannot be read.
    """
    data = bytearray()
    with contextlib.suppress(OSError):  # no file of the system
        note_input(os.fstat(file.fileno()))
    try:
        while chunk := file.read(min(_CHUNK, limit + 1 - len(data))):
            data += chunk
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {reason(error)}", where=where) from None
    if len(data) > limit:
        raise InputError(f"larger than {limit} bytes", where=where)
    return bytes(data)


def _read_regular(descriptor: int, size: int) -> bytes:
    """Read up to the end, or so many bytes, without room for more than the file has."""
    chunks = []
    room = os.fstat(descriptor).st_size + 1  # files of procfs say 0
    while size and (chunk := os.read(descriptor, min(size, max(room, _CHUNK)))):
        chunks.append(chunk)
        size -= len(chunk)
        room -= len(chunk)
    return b"".join(chunks)


def _is_stream(descriptor: int) -> bool:
    """Whether it is something that ends: a pipe, a terminal, a directory (which tells why not)."""
    status = os.fstat(descriptor)
    return (
        stat.S_ISFIFO(status.st_mode)
        or stat.S_ISDIR(status.st_mode)
        or (stat.S_ISCHR(status.st_mode) and (status.st_rdev == _NULL or os.isatty(descriptor)))
    )


def _read_stream(descriptor: int, size: int, where: str) -> bytes:
    """Read up to the end, or so many bytes."""
    data = bytearray()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    is_terminal = os.isatty(descriptor)
    while len(data) < size:
        wait = None if is_terminal else SILENT_SECONDS
        try:
            chunk = os.read(descriptor, min(_CHUNK, size - len(data)))
        except BlockingIOError:
            pass
        else:
            data += chunk
            if chunk:
                continue
            # The end, or a pipe that nobody has opened for writing yet: that one has not hung up.
            is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
            if data or not is_pipe or poll.poll(0):
                break
            wait = OPEN_SECONDS
        if not poll.poll(None if wait is None else wait * 1000):
            raise InputError(f"a pipe from which nothing came in {wait:.0f} s", where=where)
    return bytes(data)


def reason(error: OSError | ValueError) -> str:
    """Return why a file cannot be read or written, in the system's words."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
