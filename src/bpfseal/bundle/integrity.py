"""Whether the parts of a loader belong together, with nothing but hashes: no key, no signature.

Everybody who is about to trust signed instructions asks this first: they must determine the
metadata, and the BTF that names the check must be the expected one.

Example:
    >>> check_metadata(loader)
    >>> check_loader_btf(loader)
"""

from __future__ import annotations

from bpfseal.errors import VerificationError, errno_name
from bpfseal.loader.check_block import carried_digest
from bpfseal.loader.checks import LOADER_BTF
from bpfseal.loader.model import Loader


def check_metadata(loader: Loader) -> None:
    """Check that what is signed determines the metadata.

    A kernel that refuses a loader for its metadata has run its cleanup by then, which closes
    whatever fds that metadata names: this comes before a load.

    Raises:
        VerificationError: the instructions carry no digest, or the digest of other metadata.
    """
    scheme = loader.scheme
    if scheme.signed_parts and not scheme.binds_metadata:
        check_digest(loader, carried_digest(loader.insns, scheme, loader.byteorder))


def check_digest(loader: Loader, carried: bytes | None) -> None:
    """Compare the metadata with the digest that the instructions carry.

    Raises:
        VerificationError: they carry none, or that of other metadata.
    """
    if carried is None:
        raise VerificationError(
            "the signed instructions carry no digest of the metadata: nobody checks it",
            hint="do not load it",
        )
    if carried != loader.metadata_digest:
        name = errno_name(loader.scheme.mismatch_errno)
        raise VerificationError(
            f"metadata has SHA-256 {loader.metadata_digest.hex()}, "
            f"the signed instructions expect {carried.hex()}: -{name} at run time",
            hint="the metadata was changed after signing",
        )


def check_loader_btf(loader: Loader) -> None:
    """Check that the loader's BTF is the one that names the check, and nothing else.

    Raises:
        VerificationError: it is another one.
    """
    expected = LOADER_BTF if loader.scheme.has_loader_btf else b""
    if loader.btf != expected:
        raise VerificationError(
            f"the loader BTF ({len(loader.btf)} bytes) is not the one of scheme "
            f"{loader.scheme_name} ({len(expected)} bytes)",
            hint="the check may call another function",
        )
