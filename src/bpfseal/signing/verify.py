"""Verify a loader's signature against trusted certificates.

Whatever a kernel refuses is refused, with the kernel's errno in the message; what a kernel lets
through although it should make a person look twice is in `VerifiedSignature.notes`, and what is
wrong with the certificate in `VerifiedSignature.problems`: kernels look at neither.

Example::

    trusted = read_certificates(Path("signing_cert.pem").read_bytes()).certificates
    verify_signature(cms, payload, trusted).notes  # ()
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from bpfseal.errors import InputError, VerificationError, errno_name
from bpfseal.release import MAX_SIGNATURE_SIZE, RELEASES, names_of
from bpfseal.signing import mldsa, oids
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.cms import CmsMessage, parse
from bpfseal.signing.pkcs7 import (
    KERNEL_DIGESTS,
    NEWER_ALGORITHMS,
    Pkcs7Error,
    TrustedSigner,
    check_pkcs7,
    find_in,
)

_WEAK_DIGESTS = ("sha1", "sha224")

FoundBy = Literal["key id", "issuer and serial number"]
"""How a signature names its signer's certificate."""


@dataclass(frozen=True, slots=True)
class VerifiedSignature:
    """A signature that verifies.

    Attributes:
        certificate: the signer's certificate.
        digest: the digest's name.
        notes: what kernels overlook in the message, one line for each.
        problems: what is wrong with the certificate, one line for each; kernels overlook it too.
        found_by: how the signature names the certificate.
        algorithm: ``"rsa"``, ``"ecdsa"``, ...
        size: bytes of the message.
    """

    certificate: Certificate
    digest: str
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    found_by: FoundBy = "key id"
    algorithm: str = "rsa"
    size: int = 0


def verify_signature(
    cms: bytes,
    payload: bytes,
    trusted: Sequence[Certificate],
    algorithms: Collection[str] = NEWER_ALGORITHMS,
    *,
    digests: Collection[str] = KERNEL_DIGESTS,
    at: datetime | None = None,
    as_kernel: bool = False,
) -> VerifiedSignature:
    """Verify that a trusted key signed `payload`, as a kernel would.

    A message that says one thing about its digest in one place and another elsewhere is refused
    too, although kernels do not look: no signer writes it, so somebody has changed it.

    Args:
        cms: DER of the CMS message.
        payload: what it must cover (`bpfseal.signing.payload.signed_payload`).
        trusted: the certificates to trust; they stand for the kernel's keyring.
        algorithms: what the kernel can verify; by default also ML-DSA, with a note.
        digests: the digests that the kernel has.
        at: the time, with its time zone, to hold the certificate's validity period against for
            `VerifiedSignature.problems`; None leaves the period out.
        as_kernel: accept whatever a kernel accepts.

    Raises:
        Pkcs7Error: a kernel would refuse it; a `VerificationError` that names the errno.
        VerificationError: the message contradicts itself.
        CapabilityError: a signature with ML-DSA, which this installation does not have.
    """
    if not cms:
        raise Pkcs7Error(errno.EBADMSG, "the signature is empty", hint=_other_errnos())
    if len(cms) > MAX_SIGNATURE_SIZE:
        raise Pkcs7Error(
            errno.EINVAL, f"signature of {len(cms)} bytes, more than {MAX_SIGNATURE_SIZE}"
        )
    try:
        message = parse(cms)
    except InputError as error:
        raise Pkcs7Error(errno.EBADMSG, error.message) from error
    try:
        signer = check_pkcs7(message, payload, find_in(trusted), digests, algorithms)
    except Pkcs7Error as error:
        if error.errno == errno.ENOPKG:
            error.hint = error.hint or _where_digests_are(message, digests)
        raise
    if not as_kernel:
        _refuse_contradictions(message)
    return VerifiedSignature(
        certificate=signer.signer,
        digest=signer.info.digest,
        notes=tuple(_notes(message, signer)),
        problems=signer.signer.problems(at),
        found_by="issuer and serial number" if signer.info.signer.key_id is None else "key id",
        algorithm=signer.info.algorithm,
        size=len(cms),
    )


def _other_errnos() -> str:
    einval = names_of(lambda release: release.empty_signature_errno == errno.EINVAL)
    return f"-{errno_name(errno.EINVAL)} on {einval}"


def _where_digests_are(message: CmsMessage, digests: Collection[str]) -> str:
    """Say which releases have the digests that were missing."""
    found = []
    for name in sorted({info.digest for info in message.signer_infos} - set(digests)):
        having = [each.name for each in RELEASES.values() if each.has_digest(name) != "no"]
        if having:
            found.append(f"only {', '.join(having)} have {name}")
    return "; ".join(found)


def named_signers(cms: bytes, certificates: Sequence[Certificate]) -> tuple[Certificate, ...]:
    """Return those of the certificates that a message names as its signers.

    Raises:
        InputError: it is not a CMS message.
    """
    names = [info.signer for info in parse(cms).signer_infos]
    return tuple(
        certificate
        for certificate in certificates
        if any(certificate.is_named_by(name) for name in names)
    )


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
    if info.digest in _WEAK_DIGESTS and info.algorithm not in mldsa.KINDS:
        yield f"digest {info.digest}; sign with sha256 or better"


def _refuse_contradictions(message: CmsMessage) -> None:
    """Refuse what RFC 5652 section 5.1 and RFC 5754 section 3.3 let a verifier refuse."""
    for info in message.signer_infos:
        if info.digest not in message.digests:
            raise VerificationError(
                f"the message announces the digests {', '.join(message.digests)} and uses "
                f"{info.digest}",
                hint="kernels do not look at it, but the message was changed",
            )
        if info.algorithm == "ecdsa" and info.algorithm_oid != oids.ECDSA_WITH[info.digest]:
            raise VerificationError(
                f"the signature algorithm is not ECDSA with {info.digest}, the digest in use",
                hint="kernels do not look at it, but the message was changed",
            )
