"""Verify a loader's signature against trusted certificates.

Whatever a kernel refuses is refused, with the kernel's errno in the message; what a kernel lets
through although it should make a person look twice is in `VerifiedSignature.notes`.

Example::

    trusted = Certificate.all_from_pem_or_der(Path("signing_cert.pem").read_bytes())
    verify_signature(cms, payload, trusted).notes  # ()
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bpfseal.errors import InputError
from bpfseal.signing import oids
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.cms import CmsMessage, parse
from bpfseal.signing.pkcs7 import Pkcs7Error, TrustedSigner, check_pkcs7, find_in

MAX_SIGNATURE_SIZE = 8192
"""Bytes of the largest signature that kernels take: KMALLOC_MAX_CACHE_SIZE with 4 KiB pages."""

_WEAK_DIGESTS = ("sha1", "sha224")


@dataclass(frozen=True, slots=True)
class VerifiedSignature:
    """A signature that verifies.

    Attributes:
        certificate: the signer's certificate.
        digest: the digest's name.
        notes: what kernels overlook, one line for each.
    """

    certificate: Certificate
    digest: str
    notes: tuple[str, ...]


def verify_signature(
    cms: bytes, payload: bytes, trusted: Sequence[Certificate]
) -> VerifiedSignature:
    """Verify that a trusted key signed `payload`, as a kernel would.

    Args:
        cms: DER of the CMS message.
        payload: what it must cover (`bpfseal.signing.payload.signed_payload`).
        trusted: the certificates to trust; they stand for the kernel's keyring.

    Raises:
        Pkcs7Error: a kernel would refuse it; a `VerificationError` that names the errno.
    """
    if not cms:
        raise Pkcs7Error(errno.EBADMSG, "the signature is empty")
    if len(cms) > MAX_SIGNATURE_SIZE:
        raise Pkcs7Error(
            errno.EINVAL, f"signature of {len(cms)} bytes, more than {MAX_SIGNATURE_SIZE}"
        )
    try:
        message = parse(cms)
    except InputError as error:
        raise Pkcs7Error(errno.EBADMSG, error.message) from error
    signer = check_pkcs7(message, payload, find_in(trusted))
    return VerifiedSignature(signer.signer, signer.info.digest, tuple(_notes(message, signer)))


def _notes(message: CmsMessage, trusted: TrustedSigner) -> Iterator[str]:
    info = trusted.info
    if message.trailing:
        yield f"{message.trailing} bytes after the CMS message, which no signature covers"
    if len(message.signer_infos) > 1:
        yield f"{len(message.signer_infos)} signatures in one message; one trusted key suffices"
    if message.certificates:
        yield f"{len(message.certificates)} embedded certificates, which a loader does not need"
    if trusted.signer != trusted.key:
        yield f"the signer is trusted because {trusted.key.subject} vouches for its certificate"
    if info.digest in _WEAK_DIGESTS:
        yield f"digest {info.digest}; sign with sha256 or better"
    if info.digest not in message.digests:
        yield f"digest {info.digest} is not among those that the message announces"
    if info.algorithm == "ecdsa" and info.algorithm_oid != oids.ECDSA_WITH[info.digest]:
        yield f"the signature algorithm is not ECDSA with {info.digest}, the digest that was used"
    for problem in trusted.signer.problems():
        yield f"certificate {trusted.signer.subject}: {problem}"
