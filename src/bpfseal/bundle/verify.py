"""Is a loader signed, by a trusted key, over everything that it must cover?

A CMS message that verifies is not enough. The metadata is part of what runs, so either the
signature covers it, or the signed instructions carry its digest and check it; and the loader's BTF
says which function that check calls. `verify_loader` demands all of it.

Example:
    >>> from bpfseal.bundle.model import SignedLoader
    >>> from bpfseal.loader.model import Loader
    >>> verify_loader(SignedLoader(Loader("kfunc", "x", b"", b"", b"", (), ())), [])
    Traceback (most recent call last):
    bpfseal.errors.VerificationError: not signed (sign it with: bpfseal sign)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bpfseal.bundle.model import SignedLoader
from bpfseal.bundle.sign import payload_of
from bpfseal.errors import VerificationError
from bpfseal.loader.check_block import carried_digest
from bpfseal.loader.checks import LOADER_BTF
from bpfseal.loader.model import Loader
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.verify import VerifiedSignature, verify_signature


@dataclass(frozen=True, slots=True)
class LoaderVerification:
    """What was proven of a loader.

    Attributes:
        signatures: the signatures that verify with a trusted certificate; at least one.
        failures: why each other signature does not, one line each.
    """

    signatures: tuple[VerifiedSignature, ...]
    failures: tuple[str, ...] = ()


def verify_loader(signed: SignedLoader, trusted: Sequence[Certificate]) -> LoaderVerification:
    """Verify a loader: its signatures, its metadata and its BTF.

    One trusted signature is enough, as one is all that a load passes to the kernel. The
    certificates inside the bundle are not consulted.

    Args:
        signed: the loader with its signatures.
        trusted: the certificates that may have signed it.

    Raises:
        VerificationError: unsigned, no signature by a trusted certificate, metadata that the signed
            instructions do not vouch for, or an unexpected loader BTF.
    """
    if not signed.signatures:
        raise VerificationError("not signed", hint="sign it with: bpfseal sign")
    if not signed.loader.scheme.signed_parts:
        raise VerificationError(f"scheme {signed.loader.scheme_name}: a signature covers nothing")
    payload = payload_of(signed.loader)
    verified: list[VerifiedSignature] = []
    failures: list[VerificationError] = []
    for signature in signed.signatures:
        try:
            verified.append(verify_signature(signature.cms, payload, trusted))
        except VerificationError as error:
            failures.append(error)
    if not verified:
        raise failures[0]
    check_metadata(signed.loader)
    check_loader_btf(signed.loader)
    return LoaderVerification(tuple(verified), tuple(str(failure) for failure in failures))


def check_metadata(loader: Loader) -> None:
    """Check that what is signed determines the metadata.

    Raises:
        VerificationError: the instructions carry no digest, or the digest of other metadata.
    """
    if "metadata" in loader.scheme.signed_parts:
        return
    carried = carried_digest(loader.insns, loader.scheme, loader.byteorder)
    if carried is None:
        raise VerificationError(
            "the signed instructions carry no digest of the metadata: nobody checks it",
            hint="do not load it",
        )
    if carried != loader.metadata_digest:
        raise VerificationError(
            f"metadata has SHA-256 {loader.metadata_digest.hex()}, "
            f"the signed instructions expect {carried.hex()}: -EBADMSG at run time",
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
