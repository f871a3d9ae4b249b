"""What a verb reads: objects, bundles and certificates, from files or ``-`` for stdin."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bpfseal.bundle.media import MAX_BUNDLE_SIZE
from bpfseal.cli.streams import stdin
from bpfseal.errors import BpfsealError, InputError, UsageError
from bpfseal.input_file import read_file, read_open
from bpfseal.scheme import SCHEMES, SIGNED_SCHEMES

if TYPE_CHECKING:
    from bpfseal.bundle.model import Bundle, SignedLoader
    from bpfseal.cli.options import Options
    from bpfseal.object.target import TargetValues
    from bpfseal.signing.trust import TrustStore

STDIO: Final = "-"
STDIN: Final = "stdin"
ALL: Final = "all"
SCHEME_CHOICES: Final = (*SCHEMES, ALL)
"""All schemes; of an object, ``all`` generates those that can be signed."""

INLINE_REVISIONS: Final = {
    "original": ("inline-original",),
    "hardened": ("inline",),
    "both": ("inline-original", "inline"),
}
"""The schemes that ``--inline-revision`` chooses from."""

CERTIFICATE_SUFFIXES: Final = (".pem", ".der", ".crt", ".cer", ".x509")
KEY_LIMIT: Final = 1 << 20
"""Bytes of the largest file of keys, certificates, passphrases and signatures that is read."""


def read_argument(path: str, *, limit: int = MAX_BUNDLE_SIZE, only_regular: bool = False) -> bytes:
    """Return the contents of the file that an argument names.

    Args:
        path: the file, also a pipe, or ``-`` for stdin.
        limit: the most bytes to read.
        only_regular: whether `path` is the name of a regular file or a link to one.

    Raises:
        InputError: it cannot be read, is of the wrong kind or is larger than `limit` bytes.
    """
    if only_regular or path != STDIO:
        return read_file(Path(path), limit=limit, only_regular=only_regular)
    return read_open(stdin(), limit=limit, where=STDIN)


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


def add_revision_option(options: Options) -> None:
    """Declare the option that `scheme_names` interprets beside ``--scheme``."""
    options.add(
        "--inline-revision",
        choices=tuple(INLINE_REVISIONS),
        help="which loaders are meant by inline, with --scheme inline (else: hardened) or all "
        "(else: both)",
    )


def scheme_names(scheme: str, revision: str | None = None) -> tuple[str, ...]:
    """Return the schemes that ``--scheme`` and ``--inline-revision`` ask for.

    Raises:
        UsageError: a revision beside a scheme that has none.
    """
    if revision is None:
        return SIGNED_SCHEMES if scheme == ALL else (scheme,)
    chosen = INLINE_REVISIONS[revision]
    if scheme == "inline":
        return chosen
    if scheme == ALL:
        others = set(INLINE_REVISIONS["both"]).difference(chosen)
        return tuple(name for name in SIGNED_SCHEMES if name not in others)
    raise UsageError(f"--inline-revision with --scheme {scheme}", hint="--scheme inline or all")


def read_input(
    path: str,
    scheme: str = ALL,
    target: TargetValues | None = None,
    *,
    revision: str | None = None,
    is_checked_later: bool = False,
) -> Bundle:
    """Read an object, a bundle or a C light skeleton; an object becomes an unsigned bundle.

    What a bundle's config says is compared with its loaders, so that nobody signs, prints or passes
    on something else than what he sees.

    Args:
        path: a file, a bundle directory or ``-``.
        scheme: what to generate from an object: the name of a scheme, or ``all`` that can be
            signed.
        target: what an object may want to know of the machines that load it.
        revision: which inline loaders to generate; see `scheme_names`.
        is_checked_later: the caller compares the config itself.

    Raises:
        InputError: neither an object nor a bundle, or malformed.
        VerificationError: the config is not that of the loaders.
    """
    from bpfseal.bundle.kind import Kind, kind_of
    from bpfseal.bundle.reading import bundle_of, read_bundle_file
    from bpfseal.bundle.variants import check_bundle

    where = shown(path)
    with naming(where):
        if path != STDIO and os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises, this does not
            bundle = read_bundle_file(path)
        else:
            data = read_argument(path)
            if kind_of(data, where) is Kind.OBJECT:
                return build_bundle(data, Path(where).name, scheme, target, revision=revision)
            bundle = bundle_of(data, where)
        if not is_checked_later:
            check_bundle(bundle)
        return bundle


def build_bundle(
    data: bytes,
    name: str,
    scheme: str,
    target: TargetValues | None = None,
    *,
    revision: str | None = None,
    traces: bool = False,
) -> Bundle:
    """Generate the loaders of an object.

    Args:
        data: the object.
        name: its file name.
        scheme: the name of a scheme, or ``all`` that can be signed.
        target: what the object may want to know of the machines that load it.
        revision: which inline loaders to generate; see `scheme_names`.
        traces: the loaders print what they do.

    Raises:
        InputError: it is malformed, or no loader can do what it asks for.
    """
    from bpfseal.bundle.model import Bundle, SignedLoader
    from bpfseal.loader import generate_all
    from bpfseal.object import read_object
    from bpfseal.object.target import DEFAULT_TARGET

    obj = read_object(data, name, target or DEFAULT_TARGET)
    wanted = scheme_names(scheme, revision)
    loaders = generate_all(obj, wanted, traces=traces)
    return Bundle(loaders[0].name, tuple(SignedLoader(loader) for loader in loaders))


def variants(bundle: Bundle, scheme: str, revision: str | None = None) -> tuple[SignedLoader, ...]:
    """Return the variants that ``--scheme`` asks for; at least one.

    With ``all`` these are all that there are, except inline ones of another revision.

    Raises:
        UsageError: the bundle does not have it.
    """
    names = scheme_names(scheme, revision)
    if scheme != ALL:
        return tuple(bundle.variant(name) for name in names)
    others = set(SIGNED_SCHEMES).difference(names)
    found = tuple(v for v in bundle.variants if v.loader.scheme_name not in others)
    if not found:
        raise UsageError(
            "the bundle holds no such loader" if others else "the bundle holds no loader"
        )
    return found


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


def read_trust(files: Sequence[str], folders: Sequence[str] = ()) -> TrustStore:
    """Read trusted certificates (`bpfseal.signing.trust`).

    Args:
        files: files of certificates: PEM, or DER one right after the other.
        folders: directories; their files that end in one of `CERTIFICATE_SUFFIXES` are read, and
            those without a certificate are passed over with a warning: keys lie there, too.

    Raises:
        InputError: a file or directory cannot be read, or holds no certificate.
    """
    from bpfseal.signing.trust import TrustStore
    from bpfseal.signing.trust import read_certificates as parse

    stores = []
    for path in dict.fromkeys(files):
        with naming(path):
            stores.append(parse(read_argument(path, limit=KEY_LIMIT)).named(shown(path)))
    return TrustStore.of([*stores, *map(_read_folder, dict.fromkeys(folders))])


def _read_folder(folder: str) -> TrustStore:
    """Read the certificates of a directory; at least one."""
    from bpfseal.signing.trust import TrustStore, read_certificates

    try:
        entries = sorted(Path(folder).iterdir())
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=folder) from None
    stores = []
    for path in (str(path) for path in entries if path.suffix.lower() in CERTIFICATE_SUFFIXES):
        with naming(path):
            data = read_argument(path, limit=KEY_LIMIT, only_regular=True)
        try:
            stores.append(read_certificates(data).named(path))
        except InputError as error:
            stores.append(TrustStore(warnings=(f"{path} is passed over: {error.message}",)))
    store = TrustStore.of(stores)
    if not store.certificates:
        names = " ".join(CERTIFICATE_SUFFIXES)
        raise InputError("holds no certificate", where=folder, hint=f"files named *{names}")
    return store


def read_secret(args: argparse.Namespace, name: str) -> bytes | None:
    """Return the secret that ``--NAME-file`` or ``--NAME-env`` names, or None without them.

    Raises:
        InputError: the file cannot be read.
        UsageError: the variable is not set, or both ways are asked for.
    """
    file, variable = getattr(args, f"{name}_file"), getattr(args, f"{name}_env")
    if file is not None and variable is not None:
        raise UsageError(f"--{name}-file and --{name}-env exclude each other")
    if file is not None:
        return read_secret_file(file, f"--{name}-file")
    if variable is None:
        return None
    if variable not in os.environ:  # its name may be the secret itself, given by mistake
        raise UsageError(f"--{name}-env: no such variable is set", hint="it takes a name")
    return os.fsencode(os.environ[variable])


def read_secret_file(path: str, told: str) -> bytes:
    """Return the contents of a file without the newline at its end.

    Args:
        path: the file.
        told: who names it. Messages say that in place of the name, which may be the secret itself,
            given by mistake.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return read_argument(path, limit=KEY_LIMIT).rstrip(b"\r\n")
    except InputError as error:
        raise InputError(error.message, where=told) from None
