"""The one-file form of a bundle: a tar archive, written in one way and read in that way only.

POSIX ustar, names in ascending order, mode 0644, owner and time 0, two blocks of zeros at the end:
the same files give the same bytes, and other bytes are no bundle. Whoever unpacks it with any tar
sees what is read here. The standard library's reader is made to accept as much as it can, which is
the opposite of what is wanted.

Example:
    >>> read_tar(write_tar({"index.json": b"{}"}), "a.bpfseal")
    {'index.json': b'{}'}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from bpfseal.bundle.kind import Kind, kind_of
from bpfseal.bundle.layout import is_layout_path
from bpfseal.bundle.media import MAX_BUNDLE_SIZE, MAX_FILES
from bpfseal.errors import InputError

_BLOCK: Final = 512
_NAME: Final = slice(0, 100)
_SIZE: Final = slice(124, 136)
_HINT: Final = "a bundle is exactly what bpfseal writes; a directory of its files is taken, too"


def write_tar(files: Mapping[str, bytes]) -> bytes:
    """Return the archive of the files, in the order of their names.

    Raises:
        InputError: what no reader would take: see `bpfseal.bundle.kind`.
    """
    out = bytearray()
    for name in sorted(files):
        out += _header(name, len(files[name])) + files[name]
        out += bytes(-len(out) % _BLOCK)
    data = bytes(out + bytes(2 * _BLOCK))
    kind_of(data, "bundle")
    return data


def _header(name: str, size: int) -> bytes:
    fields = (
        name.encode().ljust(100, b"\0"),
        b"0000644\0",  # mode
        b"0000000\0",  # uid
        b"0000000\0",  # gid
        b"%011o\0" % size,
        b"%011o\0" % 0,  # mtime
        b" " * 8,  # checksum, counted as blanks
        b"0".ljust(101, b"\0"),  # type, name of a link
        b"ustar\x0000",
    )
    block = bytearray(b"".join(fields).ljust(_BLOCK, b"\0"))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def read_tar(data: bytes, where: str) -> dict[str, bytes]:
    """Return the files of an archive by path.

    Args:
        data: the archive.
        where: its name, for error messages.

    Raises:
        InputError: not a bundle in one file (`bpfseal.bundle.kind`), damaged, or not in the form
            that `write_tar` gives.
    """
    if len(data) > MAX_BUNDLE_SIZE:
        raise InputError(f"larger than {MAX_BUNDLE_SIZE} bytes", where=where)
    if (kind := kind_of(data, where)) is not Kind.ARCHIVE:
        raise InputError(f"not a bundle: this is of the kind {kind.value}", where=where)
    files: dict[str, bytes] = {}
    last = ""
    offset = 0
    while True:
        header = data[offset : offset + _BLOCK]
        place = f"{where}: offset {offset}"
        if len(header) < _BLOCK:
            raise InputError("the archive is cut off", where=place)
        if not any(header):
            break
        name, size = _member(header, place)
        if name <= last:
            raise InputError(f"member {name!r} is not behind {last!r} by its name", where=place)
        if len(files) == MAX_FILES:
            raise InputError(f"more than {MAX_FILES} files", where=place)
        offset += _BLOCK
        end = offset + size
        padded_end = end + -size % _BLOCK
        if padded_end > len(data):
            raise InputError(f"member {name!r} is cut off", where=place)
        if any(data[end:padded_end]):
            raise InputError(f"bytes behind member {name!r}", where=place)
        files[name] = data[offset:end]
        last, offset = name, padded_end
    if len(data) != offset + 2 * _BLOCK or any(data[offset:]):
        raise InputError(
            "the end of the archive is not two blocks of zeros", where=f"{where}: offset {offset}"
        )
    return files


def _member(header: bytes, place: str) -> tuple[str, int]:
    """Return the name and size of a header, which has the one form that `_header` gives."""
    name = header[_NAME].rstrip(b"\0").decode("ascii", "backslashreplace")
    if not is_layout_path(name):
        raise InputError(f"member {name!r} does not belong into a bundle", where=place)
    digits = header[_SIZE]
    size = int(digits[:11], 8) if re.fullmatch(rb"[0-7]{11}\0", digits) else -1
    if size < 0 or header != _header(name, size):
        raise InputError(
            f"the header of member {name!r} is not of the one form", where=place, hint=_HINT
        )
    return name, size
