"""From a file to a bundle: the reading that every verb and the library share.

`kind_of` decides what a file is. The bytes are read once; what was verified is the value that is
loaded, signed, pushed or embedded, never the file a second time.

Example:
    >>> from bpfseal.bundle.model import Bundle
    >>> from bpfseal.bundle.store import pack
    >>> bundle_of(pack(Bundle("execsnoop_bpf", ())), "execsnoop.bpfseal").name
    'execsnoop_bpf'
"""

from __future__ import annotations

import os
from pathlib import Path

from bpfseal.bundle.kind import Kind, kind_of
from bpfseal.bundle.layout import decode
from bpfseal.bundle.media import MAX_BUNDLE_SIZE
from bpfseal.bundle.model import Bundle
from bpfseal.bundle.store import read_layout, unpack
from bpfseal.errors import InputError
from bpfseal.input_file import read_file


def bundle_of(data: bytes, where: str) -> Bundle:
    """Return the bundle that a file holds: the one-file form, or a C light skeleton.

    Args:
        data: the whole file.
        where: its name, for error messages.

    Raises:
        InputError: it is neither, could be taken for both, or is malformed.
        VerificationError: a light skeleton with a digest that is not that of its parts.
    """
    kind = kind_of(data, where)
    if kind is Kind.HEADER:
        from bpfseal.bundle.lskel_import import import_header  # cryptography, for headers only

        return import_header(data, where)
    if kind is Kind.OBJECT:
        raise InputError("an object, not a bundle", where=where, hint="bpfseal build, or sign")
    return unpack(data, where)


def read_bundle_file(path: str | os.PathLike[str]) -> Bundle:
    """Return the bundle at a path: a directory, the one-file form, or a C light skeleton.

    Raises:
        InputError: it cannot be read, is no bundle, or is malformed.
        VerificationError: see `bundle_of`.
    """
    where = os.fspath(path)
    if os.path.isdir(where):  # noqa: PTH112 - Path.is_dir raises what this answers with False
        return decode(read_layout(Path(where)), where)
    return bundle_of(read_file(Path(where), limit=MAX_BUNDLE_SIZE), where)
