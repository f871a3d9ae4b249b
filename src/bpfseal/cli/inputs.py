"""What a verb reads: objects, bundles, certificates and keys, from files or ``-`` for stdin."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bpfseal.bundle.files import read_file
from bpfseal.bundle.media import MAX_BUNDLE_SIZE
from bpfseal.cli.options import Options
from bpfseal.errors import BpfsealError, InputError, UsageError
from bpfseal.scheme import SCHEMES, SIGNED_SCHEMES

if TYPE_CHECKING:
    from bpfseal.bundle.model import Bundle, SignedLoader
    from bpfseal.object.target import TargetValues
    from bpfseal.signing.certificate import Certificate
    from bpfseal.signing.signer import Signer

STDIO: Final = "-"
STDIN: Final = "stdin"
ALL: Final = "all"
SCHEME_CHOICES: Final = (*SCHEMES, ALL)
"""All schemes; of an object, ``all`` generates those that can be signed."""

CERTIFICATE_SUFFIXES: Final = (".pem", ".der", ".crt", ".cer", ".x509")
_KEY_LIMIT: Final = 1 << 20
_ELF_MAGIC: Final = b"\x7fELF"


def read_argument(path: str, *, limit: int = MAX_BUNDLE_SIZE) -> bytes:
    """Return the contents of the file that an argument names.

    Raises:
        InputError: it cannot be read or is larger than `limit` bytes.
    """
    if path != STDIO:
        return read_file(Path(path), limit=limit)
    data = sys.stdin.buffer.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"larger than {limit} bytes", where=STDIN)
    return data


def shown(path: str) -> str:
    """Return an argument as messages name it."""
    return STDIN if path == STDIO else path


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Make every error begin with the file that it is about, named as the user did."""
    try:
        yield
    except BpfsealError as error:
        name, _, rest = error.where.partition(": ")
        if not error.where or name == Path(path).name:
            error.where = f"{path}: {rest}" if rest else path
        elif not error.where.startswith(path):
            error.where = f"{path}: {error.where}"
        raise


def read_input(path: str, scheme: str = ALL, target: TargetValues | None = None) -> Bundle:
    """Read an object or a bundle; an object becomes an unsigned bundle.

    Args:
        path: a file, a bundle directory or ``-``.
        scheme: what to generate from an object: the name of a scheme, or ``all`` that can be
            signed.
        target: what an object may want to know of the machines that load it.

    Raises:
        InputError: neither an object nor a bundle, or malformed.
    """
    from bpfseal.bundle.store import read_bundle, unpack

    if path != STDIO and Path(path).is_dir():
        return read_bundle(Path(path))
    data = read_argument(path)
    where = shown(path)
    with naming(where):
        if data.startswith(_ELF_MAGIC):
            return build_bundle(data, Path(where).name, scheme, target)
        if not data:
            raise InputError("empty file")
        return unpack(data, where)


def build_bundle(
    data: bytes,
    name: str,
    scheme: str,
    target: TargetValues | None = None,
    *,
    traces: bool = False,
) -> Bundle:
    """Generate the loaders of an object.

    Args:
        data: the object.
        name: its file name.
        scheme: the name of a scheme, or ``all`` that can be signed.
        target: what the object may want to know of the machines that load it.
        traces: the loaders print what they do.

    Raises:
        InputError: it is malformed, or no loader can do what it asks for.
    """
    from bpfseal.bundle.model import Bundle, SignedLoader
    from bpfseal.loader import generate
    from bpfseal.object import read_object
    from bpfseal.object.target import DEFAULT_TARGET

    obj = read_object(data, name, target or DEFAULT_TARGET)
    wanted = SIGNED_SCHEMES if scheme == ALL else (scheme,)
    loaders = [generate(obj, scheme_name, traces=traces) for scheme_name in wanted]
    return Bundle(loaders[0].name, tuple(SignedLoader(loader) for loader in loaders))


def variants(bundle: Bundle, scheme: str) -> tuple[SignedLoader, ...]:
    """Return the variants that ``--scheme`` asks for; at least one.

    Raises:
        UsageError: the bundle does not have it.
    """
    if scheme != ALL:
        return (bundle.variant(scheme),)
    if not bundle.variants:
        raise UsageError("the bundle holds no loader")
    return bundle.variants


def single_variant(bundle: Bundle, scheme: str) -> SignedLoader:
    """Return the variant of a scheme, or with ``all`` the only one.

    Raises:
        UsageError: the bundle does not have it, or has more than one.
    """
    found = variants(bundle, scheme)
    if len(found) > 1:
        have = ", ".join(variant.loader.scheme_name for variant in found)
        raise UsageError("the bundle holds several schemes", hint=f"--scheme one of {have}")
    return found[0]


def read_certificates(files: Sequence[str], folder: str | None = None) -> list[Certificate]:
    """Read trusted certificates, PEM or DER.

    Args:
        files: files with one certificate or, in PEM, several.
        folder: a directory; its ``.pem``, ``.der``, ``.crt``, ``.cer`` and ``.x509`` files are
            read.

    Raises:
        InputError: one of them cannot be read, or the directory has none.
    """
    from bpfseal.signing.certificate import Certificate

    paths = list(files)
    if folder is not None:
        try:
            entries = sorted(Path(folder).iterdir())
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", where=folder) from None
        found = [str(path) for path in entries if path.suffix.lower() in CERTIFICATE_SUFFIXES]
        if not found:
            raise InputError("holds no certificate", where=folder)
        paths += found
    certificates: list[Certificate] = []
    for path in paths:
        with naming(path):
            certificates += Certificate.all_from_pem_or_der(read_argument(path, limit=_KEY_LIMIT))
    return certificates


@dataclass(frozen=True, slots=True)
class Credentials:
    """The files of a signer, as bytes, so that worker processes can have them too."""

    where: str
    private_key: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    passphrase: bytes | None = field(repr=False)

    @functools.cache  # noqa: B019 - as many entries as one run has keys: one
    def signer(self) -> Signer:
        """Return the signer.

        Raises:
            InputError: key, certificate and passphrase do not fit.
        """
        from bpfseal.signing.signer import load_signer

        with naming(self.where):
            return load_signer(self.private_key, self.certificate, self.passphrase)


def add_passphrase_options(options: Options) -> None:
    """Declare the two ways to give a private key's passphrase."""
    options.add("--passphrase-file", metavar="FILE", help="file with the key's passphrase")
    options.add("--passphrase-env", metavar="VAR", help="variable with the key's passphrase")


def read_passphrase(args: argparse.Namespace) -> bytes | None:
    """Return the passphrase that the options name, or None.

    Raises:
        InputError: the file cannot be read.
        UsageError: the variable is not set, or both ways are asked for.
    """
    if args.passphrase_file is not None and args.passphrase_env is not None:
        raise UsageError("--passphrase-file and --passphrase-env exclude each other")
    if args.passphrase_file is not None:
        return read_argument(args.passphrase_file, limit=_KEY_LIMIT).rstrip(b"\r\n")
    if args.passphrase_env is None:
        return None
    if args.passphrase_env not in os.environ:
        raise UsageError(f"the variable {args.passphrase_env} is not set")
    return os.fsencode(os.environ[args.passphrase_env])


def read_credentials(args: argparse.Namespace) -> Credentials:
    """Read the files of the signer that the options name.

    Raises:
        InputError: a file cannot be read.
        UsageError: see `read_passphrase`.
    """
    return Credentials(
        where=f"{args.private_key}, {args.certificate}",
        private_key=read_argument(args.private_key, limit=_KEY_LIMIT),
        certificate=read_argument(args.certificate, limit=_KEY_LIMIT),
        passphrase=read_passphrase(args),
    )
