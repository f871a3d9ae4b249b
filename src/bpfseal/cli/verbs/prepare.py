"""``bpfseal prepare``: what a machine with the key has to sign."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bpfseal.bundle.writing import is_folder, made_folders, write_files
from bpfseal.cli.console import Console
from bpfseal.cli.inputs import ALL, STDIO, naming, read_input, shown, variants
from bpfseal.cli.options import INPUT_HELP, Options
from bpfseal.cli.outputs import stdio, stem
from bpfseal.cli.streams import write_stdout
from bpfseal.cli.target import add_target_options, read_target
from bpfseal.cli.verbs.sign import HASHES
from bpfseal.errors import UsageError
from bpfseal.scheme import SIGNED_SCHEMES

if TYPE_CHECKING:
    from bpfseal.bundle.offline import Preparation

SUFFIX: Final = ".payload"


def configure(options: Options) -> None:
    """Declare the arguments and options."""
    options.argument("input", metavar="IN", help=INPUT_HELP)
    options.add("--scheme", choices=(*SIGNED_SCHEMES, ALL), default=ALL, help="what to prepare")
    options.add("--hash", choices=HASHES, default="sha256", help="digest to sign")
    options.add("-o", "--output", metavar="FILE|DIR", help="where to write, - for stdout")
    add_target_options(options)


def run(args: argparse.Namespace, console: Console) -> int:
    """Write payload, digest and description of each scheme."""
    from bpfseal.bundle.offline import prepare

    with naming(shown(args.input)):
        bundle = read_input(args.input, args.scheme, read_target(args))
        found = [
            prepare(variant, args.hash)
            for variant in variants(bundle, args.scheme)
            if variant.loader.scheme.signed_parts or args.scheme != ALL
        ]
    if not found:
        raise UsageError("no scheme of the bundle has a signature", where=shown(args.input))
    if args.output is not None and stdio(args.output) == STDIO:
        return _to_stdout(found, console)
    paths = _paths(args.input, args.output, found)
    files: dict[Path, bytes] = {}
    for preparation, path in zip(found, paths, strict=True):
        files |= _files(preparation, path)
    with made_folders(paths[0].parent):
        write_files(files)
    for preparation, path in zip(found, paths, strict=True):
        console.result(
            **_description(preparation, path.name),
            output=str(path),
            digest_file=f"{path}.digest",
            description_file=f"{path}.json",
        )
        console.say(
            f"{path}: {len(preparation.payload)} bytes to sign for {preparation.loader.scheme_name}"
            f", {preparation.hash_name} {preparation.digest.hex()}"
        )
        console.detail(f"for example: {preparation.commands(path.name)['cms']}")
    return 0


def _to_stdout(found: list[Preparation], console: Console) -> int:
    if console.json:
        raise UsageError("--json needs stdout for itself", hint="-o FILE")
    if len(found) > 1:
        raise UsageError("several payloads do not fit into stdout", hint="--scheme, or -o DIR")
    write_stdout(found[0].payload)
    return 0


def _paths(source: str, output: str | None, found: list[Preparation]) -> list[Path]:
    """Return the path of each payload; digest and description stand beside it."""
    folder = Path(output or ".")
    if (
        output is not None
        and len(found) == 1
        and not output.endswith("/")
        and not is_folder(folder)
    ):
        return [folder]
    return [folder / f"{stem(source)}.{each.loader.scheme_name}{SUFFIX}" for each in found]


def _files(preparation: Preparation, path: Path) -> dict[Path, bytes]:
    import json

    description = json.dumps(_description(preparation, path.name), indent=2)
    return {
        path: preparation.payload,
        path.with_name(f"{path.name}.digest"): preparation.digest,
        path.with_name(f"{path.name}.json"): f"{description}\n".encode(),
    }


def _description(preparation: Preparation, name: str) -> dict[str, Any]:
    """Say what is to be signed and how; without anything of this machine."""
    loader = preparation.loader
    return {
        "name": loader.name,
        "scheme": loader.scheme_name,
        "covers": list(loader.scheme.signed_parts),
        "payload": name,
        "size": len(preparation.payload),
        "hash": preparation.hash_name,
        "digest": preparation.digest.hex(),
        "commands": preparation.commands(name),
    }
