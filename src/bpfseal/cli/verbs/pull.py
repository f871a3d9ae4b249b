"""``bpfseal pull``: a bundle out of an OCI registry."""

from __future__ import annotations

import argparse

from bpfseal.bundle.media import INDEX_FILE
from bpfseal.bundle.reference import parse_reference
from bpfseal.cli.console import Console
from bpfseal.cli.inputs import STDIO
from bpfseal.cli.options import Options
from bpfseal.cli.outputs import add_output_options, destinations, write_layout_output
from bpfseal.cli.registry import add_registry_options, read_access
from bpfseal.errors import UsageError


def configure(options: Options) -> None:
    """Declare the arguments and options."""
    options.argument("reference", metavar="HOST[:PORT]/NAME[:TAG|@DIGEST]", help="where from")
    add_output_options(options)
    add_registry_options(options)


def run(args: argparse.Namespace, console: Console) -> int:
    """Pull the bundle; its signatures are not verified."""
    from bpfseal.bundle.layout import decode, digest_of
    from bpfseal.bundle.registry import pull

    reference = parse_reference(args.reference)
    (output,) = destinations([reference.name], args.output, unpacked=args.unpacked)
    if console.json and output == STDIO:
        raise UsageError("--json needs stdout for itself", hint="-o FILE")
    files = pull(reference, read_access(args))
    bundle = decode(files, str(reference))
    write_layout_output(files, output)
    digest = digest_of(files[INDEX_FILE])
    schemes = [variant.loader.scheme_name for variant in bundle.variants]
    console.result(
        reference=str(reference),
        output=output,
        digest=digest,
        name=bundle.name,
        schemes=schemes,
    )
    if output != STDIO:
        console.say(f"{output}: pulled, {', '.join(schemes) or 'no loader'}, {digest}")
    return 0
