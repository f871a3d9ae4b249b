"""``bpfseal keygen``: make a signing key and its certificate."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from bpfseal.bundle.files import write_files
from bpfseal.cli.console import Console
from bpfseal.cli.credentials import add_passphrase_options, read_passphrase
from bpfseal.cli.options import Options
from bpfseal.cli.outputs import make_folder
from bpfseal.errors import UsageError
from bpfseal.release import ML_DSA

KEY_TYPES: Final = ("rsa2048", "rsa3072", "rsa4096", "p256", "p384", *ML_DSA)


def configure(options: Options) -> None:
    """Declare the options."""
    options.add("--type", choices=KEY_TYPES, default="rsa2048", help="kind of key", local=True)
    options.add("--out", metavar="DIR", default=".", help="where to write key and certificate")
    options.add(
        "--common-name",
        metavar="NAME",
        default="bpfseal signing key",
        help="certificate's subject",
        local=True,
    )
    add_passphrase_options(options)
    options.flag("--force", help="replace files that are there")


def run(args: argparse.Namespace, console: Console) -> int:
    """Write ``key.pem`` (mode 0600), ``cert.pem`` and ``cert.der``."""
    folder = Path(args.out)
    key, certificate, certificate_der = (
        folder / name for name in ("key.pem", "cert.pem", "cert.der")
    )
    for path in (key, certificate, certificate_der):
        if os.path.lexists(path) and not args.force:
            raise UsageError("is there already", where=str(path), hint="--force replaces it")

    from bpfseal.signing.certificate import Certificate
    from bpfseal.signing.keygen import generate

    pair = generate(args.type, args.common_name, passphrase=read_passphrase(args))
    make_folder(folder)
    write_files(
        {
            key: pair.private_key_pem,
            certificate: pair.certificate_pem,
            certificate_der: pair.certificate_der,
        },
        modes={key: 0o600},
    )
    made = Certificate.from_der(pair.certificate_der)
    console.result(
        private_key=str(key),
        certificate=str(certificate),
        certificate_der=str(certificate_der),
        type=args.type,
        subject=made.subject,
        fingerprint=made.fingerprint,
    )
    console.say(f"{key}: private key, {args.type}")
    console.say(f"{certificate}, {certificate_der}: {made.subject}, SHA-256 {made.fingerprint}")
    return 0
