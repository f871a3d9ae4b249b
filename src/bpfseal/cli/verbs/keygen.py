"""``bpfseal keygen``: make a signing key and its certificate."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bpfseal.bundle.writing import locked, made_folders, write_files
from bpfseal.cli.console import Console
from bpfseal.cli.credentials import add_passphrase_options, read_passphrase
from bpfseal.cli.options import Options
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
    paths = (key, certificate, certificate_der)
    _check_free(paths, force=args.force)  # before any work

    from bpfseal.signing.certificate import Certificate
    from bpfseal.signing.keygen import generate

    pair = generate(args.type, args.common_name, passphrase=read_passphrase(args))
    # The key comes last, so that where a key is there is its certificate. Who replaces a pair does
    # it alone: two at once would mix theirs.
    files = {
        certificate_der: pair.certificate_der,
        certificate: pair.certificate_pem,
        key: pair.private_key_pem,
    }
    with made_folders(folder), locked(folder):
        _check_free(paths, force=args.force)
        write_files(files, modes={key: 0o600}, exclusive=not args.force, spare=False)
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


def _check_free(paths: Sequence[Path], *, force: bool) -> None:
    """Refuse to replace what is there, and anything but a file in any case."""
    for path in paths:
        if not os.path.lexists(path):
            continue
        if not force:
            raise UsageError("is there already", where=str(path), hint="--force replaces it")
        if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113 - never raise
            raise UsageError("is no file", where=str(path))
