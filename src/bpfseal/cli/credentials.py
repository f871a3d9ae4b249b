"""Who signs: the options that name a key, its certificate, and the secret that opens it."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from bpfseal.bundle.writing import locked
from bpfseal.cli.console import printable
from bpfseal.cli.inputs import (
    KEY_LIMIT,
    STDIO,
    naming,
    read_argument,
    read_secret,
    read_secret_file,
)
from bpfseal.cli.options import Options
from bpfseal.cli.secrets import redacted
from bpfseal.cli.streams import is_terminal
from bpfseal.errors import InputError, UsageError
from bpfseal.signing.pkcs11_uri import SCHEME, is_pkcs11_uri

if TYPE_CHECKING:
    from bpfseal.signing.pkcs11_uri import Pkcs11Uri
    from bpfseal.signing.signer import Signer

SOURCES: Final = ("file", "provider:pkcs11")
"""What ``--private-key`` is, as systemd's tools say it."""

_TERMINAL: Final = Path("/dev/tty")


class Credentials(Protocol):
    """A signer to be."""

    @property
    def portable(self) -> bool:
        """Worker processes can have it too."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is careless about how the key is kept."""

    def signer(self) -> Signer:
        """Return the signer; the same one each time.

        Raises:
            BpfsealError: key, certificate and secret do not fit, or the token does not do it.
        """


@dataclass(frozen=True, slots=True)
class FileCredentials:
    """The files of a signer, as bytes, so that worker processes can have them too."""

    where: str
    private_key: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    passphrase: bytes | None = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def portable(self) -> bool:
        """Bytes can go anywhere."""
        return True

    @functools.cache  # noqa: B019 - as many entries as one run has keys: one
    def signer(self) -> Signer:
        """Return the signer; see `Credentials.signer`."""
        from bpfseal.signing.signer import load_signer

        with naming(self.where):
            return load_signer(self.private_key, self.certificate, self.passphrase)


@dataclass(frozen=True, slots=True)
class TokenCredentials:
    """A signer whose key is on a token: the session belongs to this process."""

    open_signer: Signer
    warnings: tuple[str, ...] = ()

    @property
    def portable(self) -> bool:
        """A session cannot go to another process."""
        return False

    def signer(self) -> Signer:
        """Return the signer."""
        return self.open_signer


def add_credential_options(options: Options) -> None:
    """Declare the options that `credentials` reads."""
    options.add(
        "--private-key",
        metavar="FILE|URI",
        required=True,
        help="private key, PEM or DER, or pkcs11:... on a token",
    )
    options.add(
        "--private-key-source",
        choices=SOURCES,
        help="what --private-key is; without it, pkcs11: says that it is on a token",
    )
    options.add(
        "--certificate",
        metavar="FILE",
        help="its certificate (required, unless the token has it)",
    )
    add_passphrase_options(options)
    options.add("--pin-file", metavar="FILE", help="file with the token's PIN")
    options.add("--pin-env", metavar="VAR", help="variable with the token's PIN")
    options.together("--pin-file", "--pin-env")


def add_passphrase_options(options: Options) -> None:
    """Declare the two ways to give a private key's passphrase."""
    options.add("--passphrase-file", metavar="FILE", help="file with the key's passphrase")
    options.add("--passphrase-env", metavar="VAR", help="variable with the key's passphrase")
    options.together("--passphrase-file", "--passphrase-env")


def read_passphrase(args: argparse.Namespace) -> bytes | None:
    """Return the passphrase that the options name, or None.

    Raises:
        InputError: the file cannot be read.
        UsageError: the variable is not set, or both ways are asked for.
    """
    return read_secret(args, "passphrase")


@contextlib.contextmanager
def open_credentials(args: argparse.Namespace) -> Iterator[Credentials]:
    """Read what the options name; a session with a token ends with the block.

    Raises:
        InputError: a file cannot be read, or certificate or PIN do not fit the token.
        UsageError: the options contradict each other, or something is missing.
        CapabilityError: the token, or what it takes to speak to it, is not there.
    """
    on_token = is_pkcs11_uri(args.private_key) and args.private_key_source != "file"
    if args.private_key_source == "provider:pkcs11" and not on_token:
        raise UsageError(f"--private-key is no URI that begins with {SCHEME}")
    if not on_token:
        _refuse(args, "pin_file", "pin_env", because="the private key is in a file")
        yield _file_credentials(args)
        return
    _refuse(args, "passphrase_file", "passphrase_env", because="the private key is on a token")
    from bpfseal.signing.pkcs11 import open_signer
    from bpfseal.signing.pkcs11_uri import Pkcs11Uri

    uri = Pkcs11Uri.parse(args.private_key)
    certificate = None
    if args.certificate is not None:
        certificate = read_argument(args.certificate, limit=KEY_LIMIT)
    with open_signer(uri, functools.partial(_pin, args, uri), certificate) as signer:
        yield TokenCredentials(signer)


def _file_credentials(args: argparse.Namespace) -> FileCredentials:
    from bpfseal.signing.signer import is_encrypted

    if args.certificate is None:
        raise UsageError("--certificate is needed with a private key in a file")
    with _settled(args.private_key):
        private_key = read_argument(args.private_key, limit=KEY_LIMIT)
        certificate = read_argument(args.certificate, limit=KEY_LIMIT)
    passphrase = read_passphrase(args)
    if passphrase is None and is_encrypted(private_key):
        passphrase = _prompt(f"Passphrase for {args.private_key}: ")
    return FileCredentials(
        where=f"{args.private_key}, {args.certificate}",
        private_key=private_key,
        certificate=certificate,
        passphrase=passphrase,
        warnings=_exposure(args.private_key),
    )


def _settled(path: str) -> contextlib.AbstractContextManager[None]:
    """Read a key and its certificate while no ``keygen --force`` replaces them."""
    return contextlib.nullcontext() if path == STDIO else locked(Path(path).parent, shared=True)


def _exposure(path: str) -> tuple[str, ...]:
    """Say who but its owner can read or change a private key."""
    if path == STDIO:
        return ()
    try:
        status = Path(path).stat()
    except OSError:  # gone already: a file of somebody who is careful
        return ()
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o077:
        return ()
    who = "everybody" if status.st_mode & 0o007 else "its group"
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    return (f"{path}: {who} has access to this private key, mode {mode} (chmod 600)",)


def _pin(args: argparse.Namespace, uri: Pkcs11Uri, token: str) -> str | None:
    """Return the PIN from the options, the URI, or the terminal; None without any."""
    pin = read_secret(args, "pin")
    if pin is not None and (uri.pin_value is not None or uri.pin_source is not None):
        raise UsageError("both the URI and an option give a PIN")
    if uri.pin_value is not None:
        return uri.pin_value
    if uri.pin_source is not None:
        pin = read_secret_file(uri.pin_source, "pin-source")
    if pin is None:
        pin = _prompt(f"PIN for token {token}: ")
    try:
        return None if pin is None else pin.decode()
    except UnicodeDecodeError:
        raise InputError("the PIN is not UTF-8") from None


def _prompt(text: str) -> bytes | None:
    """Ask for a secret on the terminal; None where nobody sits at one.

    A process may have a terminal that nobody looks at, so stdin or stderr must be one as well.
    """
    if not (is_terminal(sys.stdin) or is_terminal(sys.stderr)):
        return None
    try:
        _TERMINAL.open("rb").close()
    except OSError:
        return None
    import getpass

    try:
        return os.fsencode(getpass.getpass(printable(redacted(text))))
    except EOFError:
        return None


def _refuse(args: argparse.Namespace, *names: str, because: str) -> None:
    """Refuse options that would have no effect."""
    for name in names:
        if getattr(args, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} has no use: {because}")
