"""``bpfseal attach``: a signature that was made elsewhere, verified and put in."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Final

from bpfseal.cli.console import Console
from bpfseal.cli.inputs import (
    ALL,
    KEY_LIMIT,
    STDIO,
    naming,
    read_argument,
    read_input,
    shown,
    single_variant,
)
from bpfseal.cli.options import Options
from bpfseal.cli.outputs import add_output_options, destinations, write_output
from bpfseal.cli.target import add_target_options, read_target
from bpfseal.cli.verbs.sign import HASHES
from bpfseal.errors import UsageError
from bpfseal.scheme import SIGNED_SCHEMES

FORMATS: Final = ("auto", "raw", "cms")


def configure(options: Options) -> None:
    """Declare the arguments and options."""
    options.argument("input", metavar="IN", help="what prepare was given, - for stdin")
    options.add(
        "--scheme", choices=SIGNED_SCHEMES, help="what was signed; needed if IN holds several"
    )
    options.add("--signature", metavar="FILE", required=True, help="bare signature, or CMS")
    options.add("--format", choices=FORMATS, default="auto", help="what --signature is", local=True)
    options.add("--certificate", metavar="FILE", required=True, help="the signer's certificate")
    options.add("--hash", choices=HASHES, default="sha256", help="digest of a bare signature")
    add_target_options(options)
    add_output_options(options)


def run(args: argparse.Namespace, console: Console) -> int:
    """Verify the signature and write the signed bundle."""
    if [args.input, args.signature, args.certificate].count(STDIO) > 1:
        raise UsageError("only one input can come from stdin")
    (output,) = destinations([args.input], args.output, unpacked=args.unpacked)
    if console.json and output == STDIO:
        raise UsageError("--json needs stdout for itself", hint="-o FILE")

    from bpfseal.bundle.offline import attach
    from bpfseal.signing.certificate import Certificate

    with naming(shown(args.input)):
        scheme = args.scheme or ALL
        bundle = read_input(args.input, scheme, read_target(args))
        variant = single_variant(bundle, scheme)
    with naming(shown(args.certificate)):
        certificate = Certificate.from_pem_or_der(read_argument(args.certificate, limit=KEY_LIMIT))
    with naming(shown(args.signature)):
        signature = read_argument(args.signature, limit=KEY_LIMIT)
        attached, verified = attach(
            variant, signature, certificate, hash_name=args.hash, form=args.format
        )
    for note in (*verified.notes, *verified.problems):
        console.note(f"warning: {args.signature}: {note}")
    changed = tuple(attached if each is variant else each for each in bundle.variants)
    write_output(replace(bundle, variants=changed), output, over=args.input)
    scheme_name, subject = variant.loader.scheme_name, verified.certificate.subject
    console.result(
        input=args.input,
        output=output,
        scheme=scheme_name,
        signer=subject,
        hash=verified.digest,
        notes=[*verified.notes, *verified.problems],
    )
    if output != STDIO:
        console.say(f"{output}: {scheme_name} signed by {subject}")
    return 0
