"""``bpfseal verify``: is it signed, by a trusted key, over everything that it must cover."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from bpfseal.cli.console import Console, error_fields
from bpfseal.cli.inputs import (
    ALL,
    SCHEME_CHOICES,
    naming,
    read_certificates,
    read_input,
    shown,
    variants,
)
from bpfseal.cli.options import Options
from bpfseal.errors import BpfsealError, UsageError

if TYPE_CHECKING:
    from bpfseal.bundle.model import SignedLoader
    from bpfseal.signing.certificate import Certificate

SUMMARY: Final = "check signatures, and that they cover all that runs"


def configure(options: Options) -> None:
    """Declare the arguments and options."""
    options.argument("inputs", nargs="+", metavar="IN", help="object or bundle, - for stdin")
    options.add(
        "--certificate", metavar="FILE", repeatable=True, help="trust this; may be given again"
    )
    options.add("--trust", metavar="DIR", help="trust the certificates in this directory")
    options.add("--scheme", choices=SCHEME_CHOICES, default=ALL, help="variants to verify")


def run(args: argparse.Namespace, console: Console) -> int:
    """Verify each input; the worst status counts."""
    if not args.certificate and args.trust is None:
        raise UsageError("nobody is trusted", hint="--certificate FILE or --trust DIR")
    trusted = read_certificates(args.certificate or (), args.trust)
    return max(_verify_input(path, args.scheme, trusted, console) for path in args.inputs)


def _verify_input(path: str, scheme: str, trusted: Sequence[Certificate], console: Console) -> int:
    try:
        with naming(shown(path)):
            found = variants(read_input(path, scheme), scheme)
    except BpfsealError as error:
        console.complain(error)
        console.result(input=path, verified=False, error=error_fields(error))
        return error.exit_status
    return max(_verify_variant(path, variant, trusted, console) for variant in found)


def _verify_variant(
    path: str, variant: SignedLoader, trusted: Sequence[Certificate], console: Console
) -> int:
    from bpfseal.bundle.verify import verify_loader

    scheme_name = variant.loader.scheme_name
    try:
        verification = verify_loader(variant, trusted)
    except BpfsealError as error:
        console.verdict(f"{path}: {scheme_name}: NOT VERIFIED: {error}", good=False)
        console.result(input=path, scheme=scheme_name, verified=False, error=error_fields(error))
        return error.exit_status
    signers = ", ".join(found.certificate.subject for found in verification.signatures)
    notes = [note for found in verification.signatures for note in found.notes]
    notes += [f"another signature does not verify: {text}" for text in verification.failures]
    console.verdict(f"{path}: {scheme_name}: verified, signed by {signers}", good=True)
    for note in notes:
        console.note(f"{path}: {scheme_name}: {note}")
    console.result(
        input=path,
        scheme=scheme_name,
        verified=True,
        signers=[
            {
                "subject": found.certificate.subject,
                "fingerprint": found.certificate.fingerprint,
                "digest": found.digest,
            }
            for found in verification.signatures
        ],
        notes=notes,
    )
    return 0
