"""Bundles on disk: one file or a directory, the same content (see docs/bundle-format.md).

Example:
    >>> from bpfseal.bundle.model import Bundle
    >>> unpack(pack(Bundle("execsnoop_bpf", ())), "execsnoop.bpfseal").name
    'execsnoop_bpf'
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from bpfseal.bundle import media
from bpfseal.bundle.archive import read_tar, write_tar
from bpfseal.bundle.layout import decode, encode, is_layout_path
from bpfseal.bundle.model import Bundle
from bpfseal.bundle.writing import is_folder, write_directory, write_files
from bpfseal.errors import InputError, UsageError
from bpfseal.input_file import note_input, read_file


def pack(bundle: Bundle) -> bytes:
    """Return the one-file form: the same bundle gives the same bytes.

    Raises:
        InputError: a part of it is beyond the limits of the format.
    """
    return write_tar(encode(bundle))


def unpack(data: bytes, where: str) -> Bundle:
    """Read the one-file form.

    Args:
        data: the file.
        where: its name, for error messages.

    Raises:
        InputError: anything in it that is missing, wrong, unknown or left over.
    """
    return decode(read_tar(data, where), where)


def read_bundle(path: Path) -> Bundle:
    """Read a bundle from a file or a directory; `bpfseal.bundle.reading` takes headers, too.

    Raises:
        InputError: it cannot be read or is not a bundle.
    """
    return decode(read_layout(path), str(path))


def read_layout(path: Path) -> dict[str, bytes]:
    """Read the files of a bundle, as they are; nothing in them is checked yet.

    Args:
        path: a bundle in one file or a directory.

    Returns:
        Contents by path relative to the layout.

    Raises:
        InputError: it cannot be read, or has files that no bundle has.
    """
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises what this answers with False
        files = _read_directory(path)
        note_input(path.stat())
        return files
    return read_tar(read_file(path, limit=media.MAX_BUNDLE_SIZE), str(path))


def write_bundle(bundle: Bundle, path: Path | str) -> None:
    """Write a bundle: a directory if `path` ends in ``/`` or is one, else a file.

    What was there is replaced only when the whole bundle has been written, and a directory only if
    all of it is a bundle.

    Raises:
        InputError: a part of it is beyond the limits of the format.
        UsageError: the directory holds something that is not a bundle, or the file is a key, a
            certificate or an object.
        CapabilityError: it cannot be written.
    """
    write_layout(encode(bundle), path)


def write_layout(
    files: Mapping[str, bytes], path: Path | str, *, over: os.stat_result | None = None
) -> None:
    """Write the files of a bundle as they are; see `write_bundle`.

    Args:
        files: contents by path relative to the layout.
        path: see `write_bundle`.
        over: a bundle that was read and may be replaced.

    Raises:
        UsageError: see `write_bundle`.
        CapabilityError: it cannot be written.
    """
    target = Path(path)
    if is_folder(target) or os.fspath(path).endswith("/"):
        write_directory(files, target, owned=_files_of_bundle, over=over)
    else:
        write_files({target: write_tar(files)}, over=over)


def _files_of_bundle(folder: Path) -> frozenset[str]:
    """Return the files of a directory that is a bundle and nothing else.

    Other OCI image layouts have the same names for their files, so that names do not do: each file
    is read, and one must lead to the other.

    Raises:
        UsageError: it is none.
    """
    try:
        files = _read_directory(folder)
        decode(files, str(folder))
    except InputError as error:
        raise UsageError(
            f"holds something else than a bundle, and is not replaced: {error}",
            where=str(folder),
            hint="name a new one",
        ) from None
    return frozenset(files)


def _read_directory(root: Path) -> dict[str, bytes]:
    """Read the files of a layout, and nothing through links or outside of it."""
    files: dict[str, bytes] = {}
    budget = media.MAX_BUNDLE_SIZE
    folders = [""]
    try:
        for folder in folders:
            with os.scandir(root / folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    name = f"{folder}/{entry.name}".removeprefix("/")
                    if name in ("blobs", media.BLOB_FOLDER) and not entry.is_symlink():
                        folders.append(name)
                        continue
                    if not is_layout_path(name):
                        raise InputError(
                            f"{entry.name!r} does not belong into a bundle",
                            where=str(root / folder),
                        )
                    if len(files) == media.MAX_FILES:
                        raise InputError(f"more than {media.MAX_FILES} files", where=str(root))
                    files[name] = read_file(Path(entry.path), limit=budget, follow_links=False)
                    budget -= len(files[name])
    except OSError as error:
        raise InputError(f"not a bundle: {error.strerror}", where=str(root)) from None
    return files
