"""Files as they are read everywhere in bpfseal: with a limit on the size.

`bpfseal.bundle.writing` writes them.

Example:
    >>> read_file(Path("/dev/null"), limit=100)
    b''
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bpfseal.errors import InputError


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
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {reason(error)}", where=str(path)) from None
    if len(data) > limit:
        raise InputError(f"larger than {limit} bytes", where=str(path))
    return data


def reason(error: OSError | ValueError) -> str:
    """Return why a file cannot be read or written, in the system's words."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
