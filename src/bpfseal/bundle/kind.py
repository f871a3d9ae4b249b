r"""What a file is. One function says so, for every verb and for the library.

There are three kinds of files, and their first bytes are different:

    object     ELF magic: ``\x7fELF``
    archive    a bundle in one file: the name of a layout's first file, as `bpfseal.bundle.archive`
               writes it, in a ustar header
    header     a C light skeleton: UTF-8 text, perhaps with a byte order mark, that begins with the
               comment of the generated file and includes ``bpf/skel_internal.h``

A file that another reader could take for something else is refused, whatever it is: what one
program verifies, another might read in another way. So an archive has no line of a light skeleton
anywhere, a header has no mark of an archive, and neither may begin like an object.

Example:
    >>> kind_of(b"\x7fELF...", "a.bpf.o")
    <Kind.OBJECT: 'object'>
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from bpfseal.bundle.media import BLOB_FOLDER, INDEX_FILE
from bpfseal.errors import InputError


class Kind(Enum):
    """What a file can be."""

    OBJECT = "object"
    ARCHIVE = "bundle in one file"
    HEADER = "light skeleton"


_ELF: Final = b"\x7fELF"
_USTAR: Final = b"ustar"
_USTAR_OFFSET: Final = 257
"""Where a tar header says that it is one (POSIX.1-1988, ``struct posix_header.magic``)."""

_INCLUDE: Final = b"#include <bpf/skel_internal.h>"
"""The line that every C light skeleton has (``do_skeleton`` in tools/bpf/bpftool/gen.c)."""

_OWN_HEADER: Final = re.compile(rb"/\* [^\n*]{1,200}: made by bpfseal ")
"""How the headers of `bpfseal.bundle.skeleton_c` begin: they hold many variants, and nobody reads
them back."""

_ARCHIVE_STARTS: Final = (f"{BLOB_FOLDER}/".encode(), f"{INDEX_FILE}\0".encode())
_HEADER_STARTS: Final = (b"/*", b"\xef\xbb\xbf/*")
_CONTROL: Final = re.compile(rb"\r(?!\n)|[^\t\n\r\x20-\x7e\x80-\xff]")
"""Bytes that no text has; compilers pass over some of them, each over others."""

_UNKNOWN_HINT: Final = "it reads objects (.bpf.o), bundles and C light skeletons (.lskel.h)"


def looks_like_archive(data: bytes) -> bool:
    """Whether a file that begins so is a bundle in one file, if it is one of ours at all."""
    return data.startswith(_USTAR, _USTAR_OFFSET) and data.startswith(_ARCHIVE_STARTS)


def kind_of(data: bytes, where: str) -> Kind:
    """Say what a file is.

    Args:
        data: the whole file.
        where: its name, for error messages.

    Raises:
        InputError: it is empty, none of these, or could be taken for more than one of them.
    """
    if not data:
        raise InputError("empty file", where=where)
    marks = (
        (Kind.OBJECT, data.startswith(_ELF)),
        (Kind.ARCHIVE, data.startswith(_USTAR, _USTAR_OFFSET)),
        (Kind.HEADER, _INCLUDE in data),
    )
    found = [kind for kind, is_there in marks if is_there]
    if not found:
        raise InputError("not a file that bpfseal reads", where=where, hint=_UNKNOWN_HINT)
    if len(found) > 1:
        names = " and ".join(kind.value for kind in found)
        raise InputError(f"ambiguous: it could be read as {names}", where=where)
    (kind,) = found
    if kind is Kind.HEADER and _OWN_HEADER.match(data):
        raise InputError(
            "a C skeleton made by bpfseal, which is for compilers only",
            where=where,
            hint="give the bundle that it was made from",
        )
    if kind is Kind.ARCHIVE and not data.startswith(_ARCHIVE_STARTS):
        raise InputError("a tar archive that is no bundle", where=f"{where}: offset 0")
    if kind is Kind.HEADER:
        _check_text(data, where)
    return kind


def _check_text(data: bytes, where: str) -> None:
    """Check that a header is text from its first byte to its last."""
    if not data.startswith(_HEADER_STARTS):
        raise InputError(
            "a light skeleton begins with a comment, and this does not", where=f"{where}: line 1"
        )
    if control := _CONTROL.search(data):
        line = data.count(b"\n", 0, control.start()) + 1
        raise InputError(
            f"byte {control[0][0]:#04x}, which is no text", where=f"{where}: line {line}"
        )
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError("not a text in UTF-8", where=f"{where}: line {line}") from None
