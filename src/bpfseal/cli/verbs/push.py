"""``bpfseal push``: a bundle into an OCI registry."""

from __future__ import annotations

import argparse
from pathlib import Path

from bpfseal.bundle.reference import parse_reference
from bpfseal.cli.console import Console
from bpfseal.cli.inputs import STDIO, naming, read_argument, shown
from bpfseal.cli.options import Options
from bpfseal.cli.registry import add_registry_options, read_access


def configure(options: Options) -> None:
    """Declare the arguments and options."""
    options.argument("input", metavar="IN", help="bundle, - for stdin")
    options.argument("reference", metavar="HOST[:PORT]/NAME[:TAG]", help="where to")
    add_registry_options(options)


def run(args: argparse.Namespace, console: Console) -> int:
    """Push the bundle as it is."""
    from bpfseal.bundle.archive import read_tar
    from bpfseal.bundle.layout import decode
    from bpfseal.bundle.registry import push
    from bpfseal.bundle.store import read_layout

    reference = parse_reference(args.reference)
    access = read_access(args)
    source = shown(args.input)
    with naming(source):
        if args.input == STDIO:
            files = read_tar(read_argument(args.input), source)
        else:
            files = read_layout(Path(args.input))
        bundle = decode(files, source)
    digest = push(files, reference, access)
    schemes = [variant.loader.scheme_name for variant in bundle.variants]
    console.result(
        input=args.input,
        reference=str(reference),
        digest=digest,
        name=bundle.name,
        schemes=schemes,
    )
    console.say(f"{reference}: pushed, {', '.join(schemes) or 'no loader'}, {digest}")
    return 0
