"""The one-file form of a bundle: a tar archive, written in one way and read strictly.

Written: POSIX ustar, sorted names, mode 0644, owner and time 0, so that the same files give the
same bytes. Read: regular files of the layout's own names (directories are passed over); no links,
no devices, no extended headers, nothing behind the end. The standard library's reader is made to
accept as much as it can, which is the opposite of what is wanted here.

Example:
    >>> read_tar(write_tar({"index.json": b"{}"}), "a.bpfseal")
    {'index.json': b'{}'}
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from bpfseal.bundle.layout import is_layout_path
from bpfseal.bundle.media import BLOB_FOLDER, MAX_BUNDLE_SIZE, MAX_FILES
from bpfseal.errors import InputError

_BLOCK = 512
_MAGIC_OFFSET = 257
_FOLDERS = ("", "blobs", BLOB_FOLDER)
_REGULAR = (b"0", b"\0")
_DIRECTORY = b"5"


def is_tar(data: bytes) -> bool:
    """Whether the bytes begin like a ustar archive."""
    return data[_MAGIC_OFFSET : _MAGIC_OFFSET + 5] == b"ustar"


def write_tar(files: Mapping[str, bytes]) -> bytes:
    """Return the archive of the files, in the order of their names."""
    out = bytearray()
    for name in sorted(files):
        out += _header(name, len(files[name])) + files[name]
        out += bytes(-len(out) % _BLOCK)
    return bytes(out + bytes(2 * _BLOCK))


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
        InputError: not an archive, damaged, or with members that no bundle has.
    """
    if len(data) > MAX_BUNDLE_SIZE:
        raise InputError(f"larger than {MAX_BUNDLE_SIZE} bytes", where=where)
    if not is_tar(data):
        raise InputError("not a bundle (no tar archive)", where=where)
    files: dict[str, bytes] = {}
    offset = 0
    while True:
        header = data[offset : offset + _BLOCK]
        place = f"{where}: offset {offset}"
        if len(header) < _BLOCK:
            raise InputError("the archive is cut off", where=place)
        if not any(header):
            break
        name, kind, size = _member(header, place)
        offset += _BLOCK
        if kind == _DIRECTORY and size == 0 and name in _FOLDERS:
            continue
        if kind not in _REGULAR or not is_layout_path(name):
            raise InputError(f"member {name!r} does not belong into a bundle", where=place)
        if name in files:
            raise InputError(f"member {name!r} occurs twice", where=place)
        if len(files) == MAX_FILES:
            raise InputError(f"more than {MAX_FILES} files", where=place)
        end = offset + size
        padded_end = end + -size % _BLOCK
        if padded_end > len(data):
            raise InputError(f"member {name!r} is cut off", where=place)
        if any(data[end:padded_end]):
            raise InputError(f"bytes behind member {name!r}", where=place)
        files[name] = data[offset:end]
        offset = padded_end
    if len(data) < offset + 2 * _BLOCK or data.count(0, offset) != len(data) - offset:
        raise InputError("the end of the archive is damaged", where=f"{where}: offset {offset}")
    return files


def _member(header: bytes, place: str) -> tuple[str, bytes, int]:
    """Return the name, type and size of a checked header."""
    if not is_tar(header):
        raise InputError("no ustar header", where=place)
    checksum = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if _octal(header[148:156], place) != checksum:
        raise InputError("the header's checksum is wrong", where=place)
    if any(header[345:500]):
        raise InputError("a name longer than 100 bytes", where=place)
    name = header[:100].rstrip(b"\0").decode("ascii", "backslashreplace")
    return name.removeprefix("./").rstrip("/"), header[156:157], _octal(header[124:136], place)


def _octal(field: bytes, place: str) -> int:
    matched = re.fullmatch(rb" *([0-7]+)[ \0]*", field)
    if not matched:
        raise InputError("a number that is not octal", where=place)
    return int(matched[1], 8)
