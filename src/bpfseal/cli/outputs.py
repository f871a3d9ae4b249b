"""Where a verb writes bundles.

Example:
    >>> destinations(["tools/execsnoop.bpf.o"], None, unpacked=False)
    ['execsnoop.bpfseal']
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bpfseal.bundle.media import LAYOUT_FILE
from bpfseal.bundle.targets import check_distinct, own_descriptor, status_of
from bpfseal.bundle.writing import is_folder, made_folders
from bpfseal.cli.inputs import STDIO, shown
from bpfseal.cli.options import Options
from bpfseal.cli.streams import write_stdout
from bpfseal.errors import UsageError

if TYPE_CHECKING:
    from bpfseal.bundle.model import Bundle

SUFFIX: Final = ".bpfseal"


def add_output_options(options: Options) -> None:
    """Declare the options that `destinations` interprets."""
    options.add("-o", "--output", metavar="FILE|DIR", help="where to write, - for stdout")
    options.flag("--unpacked", help="write bundles as directories", local=True)


def destinations(inputs: Sequence[str], output: str | None, *, unpacked: bool) -> list[str]:
    """Return the path to write for each input.

    `output` is a directory to write ``NAME.bpfseal`` into if there are several inputs, if it ends
    in ``/``, or if it is a directory that is not itself a bundle. Otherwise it is the bundle.

    Args:
        inputs: the arguments of the verb.
        output: the value of ``-o``, or None for the current directory.
        unpacked: write bundles as directories.

    Raises:
        UsageError: two inputs would be written to the same path.
    """
    output = None if output is None else stdio(output)
    folder = Path(output or ".")
    holds_several = (
        output is None
        or len(inputs) > 1
        or output.endswith("/")
        or (is_folder(folder) and not _is_bundle(folder))
    )
    if not holds_several:
        return [f"{output}/" if unpacked and output != STDIO else str(output)]
    if output == STDIO:
        raise UsageError("several bundles do not fit into stdout", hint="-o DIR")
    if output is not None and _is_bundle(folder):
        raise UsageError("is a bundle, it cannot hold several", where=output)
    paths = [str(folder / f"{stem(name)}{SUFFIX}") for name in inputs]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            other = inputs[paths.index(path)]
            raise UsageError(f"{other} and {inputs[index]} would both be written", where=path)
    check_distinct(map(Path, paths))
    return [f"{path}/" if unpacked else path for path in paths]


def stdio(path: str) -> str:
    """Return ``-`` for a path that leads to what stdout is, such as ``/dev/stdout``.

    What is said about the output, beside it, would become a part of it.
    """
    descriptor = own_descriptor(Path(path))
    with contextlib.suppress(OSError):
        if descriptor is not None and os.path.sameopenfile(descriptor, 1):
            return STDIO
    return path


def write_output(bundle: Bundle, path: str, *, over: str | None = None) -> None:
    """Write a bundle to a destination; ``-`` is stdout.

    Args:
        bundle: the bundle.
        path: one of `destinations`.
        over: the input that it was read from, which it may replace if that is a bundle, too.

    Raises:
        UsageError: something is there that is not replaced.
        CapabilityError: it cannot be written.
    """
    from bpfseal.bundle.layout import encode

    write_layout_output(encode(bundle), path, over=over)


def write_layout_output(files: Mapping[str, bytes], path: str, *, over: str | None = None) -> None:
    """Write the files of a bundle to a destination as `write_output` does.

    Raises:
        UsageError: something is there that is not replaced.
        CapabilityError: it cannot be written.
    """
    from bpfseal.bundle.archive import write_tar
    from bpfseal.bundle.store import write_layout

    if path == STDIO:
        write_stdout(write_tar(files))
        return
    with made_folders(Path(path).parent):
        read = None if over is None else status_of("/dev/stdin" if over == STDIO else over)
        write_layout(files, path, over=read)


def _is_bundle(path: Path) -> bool:
    """Whether the path is a bundle in the form of a directory."""
    return is_folder(path) and (path / LAYOUT_FILE).is_file()


def stem(name: str) -> str:
    """Return the name of an input without what says its kind."""
    path = Path(shown(name))
    full = path.name or path.resolve().name
    return full.removesuffix(SUFFIX).removesuffix(".o").removesuffix(".bpf") or full
