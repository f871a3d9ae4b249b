"""``bpfseal export``: the raw parts of one scheme."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bpfseal.bundle.targets import check_distinct
from bpfseal.bundle.writing import write_files
from bpfseal.cli.console import Console
from bpfseal.cli.inputs import ALL, STDIO, read_input, single_variant
from bpfseal.cli.options import INPUT_HELP, Options
from bpfseal.cli.outputs import stdio
from bpfseal.cli.streams import write_stdout
from bpfseal.errors import UsageError
from bpfseal.scheme import SCHEMES

if TYPE_CHECKING:
    from bpfseal.bundle.model import SignedLoader

PARTS: Final = {
    "insns": "the loader program",
    "data": "the metadata",
    "btf": "the loader BTF",
    "signature": "the CMS signature",
    "signed_payload": "the bytes that a signature covers",
}


def configure(options: Options) -> None:
    """Declare the arguments and options."""
    options.argument("input", metavar="IN", help=INPUT_HELP)
    options.add("--scheme", choices=SCHEMES, help="the scheme; needed if IN holds several")
    for part, meaning in PARTS.items():
        flag = f"--{part.replace('_', '-')}"
        options.add(flag, metavar="FILE", help=f"write {meaning}, - for stdout")


def run(args: argparse.Namespace, console: Console) -> int:
    """Write the parts that were asked for."""
    wanted = {part: stdio(path) for part in PARTS if (path := getattr(args, part)) is not None}
    if not wanted:
        raise UsageError("nothing to write", hint="--insns FILE, --data FILE, ...")
    paths = list(wanted.values())
    if paths.count(STDIO) > 1:
        raise UsageError("two parts would be written to stdout")
    check_distinct(Path(path) for path in paths if path != STDIO)
    if STDIO in paths and console.json:
        raise UsageError("--json needs stdout for itself")

    scheme = args.scheme or ALL
    variant = single_variant(read_input(args.input, scheme), scheme)
    contents = {part: part_of(variant, part) for part in wanted}
    write_files({Path(path): contents[part] for part, path in wanted.items() if path != STDIO})
    for part, path in wanted.items():
        if path == STDIO:
            write_stdout(contents[part])
            continue
        console.result(part=part, file=path, size=len(contents[part]))
        if STDIO not in paths:
            console.say(f"{path}: {PARTS[part]}, {len(contents[part])} bytes")
    return 0


def part_of(variant: SignedLoader, part: str) -> bytes:
    """Return one part of a loader.

    Raises:
        UsageError: it has no such part, or more than one.
    """
    from bpfseal.bundle.sign import payload_of

    loader = variant.loader
    if part == "signature":
        if len(variant.signatures) != 1:
            raise UsageError(f"the loader has {len(variant.signatures)} signatures, not one")
        return variant.signatures[0].cms
    if part == "btf" and not loader.btf:
        raise UsageError(f"scheme {loader.scheme_name} has no loader BTF")
    if part == "signed_payload":
        return payload_of(loader)
    return {"insns": loader.insns, "data": loader.metadata, "btf": loader.btf}[part]
