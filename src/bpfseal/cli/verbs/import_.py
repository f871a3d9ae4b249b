"""``bpfseal import``: a C light skeleton of the reference tool to a bundle."""

from __future__ import annotations

import argparse
from typing import Final

from bpfseal.cli.console import Console
from bpfseal.cli.inputs import STDIO, naming, read_argument, read_trust, shown
from bpfseal.cli.options import Options
from bpfseal.cli.outputs import add_output_options, destinations, write_output
from bpfseal.errors import InputError, UsageError

UNVERIFIED: Final = "signature not verified (--certificate FILE)"


def configure(options: Options) -> None:
    """Declare the arguments and options."""
    options.argument("input", metavar="HEADER", help="the .lskel.h file, - for stdin")
    options.add(
        "--certificate",
        metavar="FILE",
        repeatable=True,
        help="verify the signature with this; may be given again",
    )
    add_output_options(options)


def run(args: argparse.Namespace, console: Console) -> int:
    """Read one header, verify what can be verified, and write the bundle."""
    from bpfseal.bundle.kind import Kind, kind_of
    from bpfseal.bundle.lskel import MAX_HEADER_SIZE
    from bpfseal.bundle.lskel_import import import_header, verify_import

    trusted = read_trust(args.certificate or ()).certificates
    where = shown(args.input)
    stem = where.removesuffix(".h").removesuffix(".lskel")
    (output,) = destinations([stem], args.output, unpacked=args.unpacked)
    if output == STDIO and console.json:
        raise UsageError("--json needs stdout for itself", hint="-o FILE")
    with naming(where):
        data = read_argument(args.input, limit=MAX_HEADER_SIZE)
        if (kind := kind_of(data, where)) is not Kind.HEADER:
            raise InputError(f"a light skeleton is wanted, not a file of kind {kind.value}")
        bundle = import_header(data, where)
        verified: list[str] = []
        if trusted:
            bundle, verification = verify_import(bundle, trusted)
            verified = [entry.certificate.subject for entry in verification.signatures]
    write_output(bundle, output)
    (variant,) = bundle.variants
    status = "unsigned"
    if variant.signatures:
        status = f"signed by {', '.join(verified)}" if verified else UNVERIFIED
    console.result(
        input=args.input,
        output=output,
        name=bundle.name,
        scheme=variant.loader.scheme_name,
        signed=bool(variant.signatures),
        verified=bool(verified),
        signers=verified,
    )
    if output != STDIO:
        console.say(f"{output}: {bundle.name}, scheme {variant.loader.scheme_name}, {status}")
    return 0
