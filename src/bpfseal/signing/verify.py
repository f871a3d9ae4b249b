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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from bpfseal.errors import VerificationError, errno_name
from bpfseal.release import MAX_SIGNATURE_SIZE, NEWEST, RELEASES, KernelCrypto, names_of
from bpfseal.signing import der, mldsa, pkcs7, pkcs7_parser
from bpfseal.signing.ber import RefusedError
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.pkcs7 import Payload, Trusted
from bpfseal.signing.pkcs7_parser import ParsedMessage
from bpfseal.signing.x509 import ParsedCertificate

_WEAK_DIGESTS = ("sha1", "sha224")
_CHANGED = "kernels do not look at it, but the message was changed"

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
    payload: bytes | Payload,
    trusted: Sequence[Certificate],
    crypto: KernelCrypto = NEWEST,
    *,
    at: datetime | None = None,
    as_kernel: bool = False,
) -> VerifiedSignature:
    """Verify that a trusted key signed `payload`, as a kernel would.

    A message that is not in DER, or says one thing about its digest in one place and another
    elsewhere, is refused too, although kernels do not look: no signer writes it, so somebody has
    changed it.

    Args:
        cms: the CMS message.
        payload: what it must cover (`bpfseal.signing.payload.signed_payload`).
        trusted: the certificates to trust; they stand for the kernel's keyring.
        crypto: what the kernel can compute; by default the newest one's, with a note for ML-DSA.
        at: the time, with its time zone, to hold the certificate's validity period against for
            `VerifiedSignature.problems`; None leaves the period out.
        as_kernel: accept whatever a kernel accepts.

    Raises:
        RefusedError: a kernel would refuse it; a `VerificationError` that names the errno.
        VerificationError: the message is not in DER or contradicts itself.
        CapabilityError: a signature with ML-DSA, which this installation does not have.
    """
    check_size(cms)
    covered = payload if isinstance(payload, Payload) else Payload(payload)
    message = pkcs7_parser.parse(cms, crypto)
    try:
        found = pkcs7.check(
            message, covered, pkcs7.find_in(each.parsed for each in trusted), crypto
        )
    except RefusedError as refused:
        if refused.errno == errno.ENOPKG:
            refused.hint = refused.hint or _where_digests_are(message, crypto)
        raise
    if not as_kernel:
        _refuse_odd_forms(cms, message)
    signer = _certificate(found.signer, trusted)
    return VerifiedSignature(
        certificate=signer,
        digest=found.info.digest,
        notes=tuple(_notes(message, found, len(cms) - message.size)),
        problems=signer.problems(at),
        found_by="key id" if found.info.key_id else "issuer and serial number",
        algorithm=found.info.algorithm,
        size=len(cms),
    )


def check_size(cms: bytes) -> None:
    """Refuse a message of a size that kernels do not look at.

    Raises:
        RefusedError: it is empty, or larger than `MAX_SIGNATURE_SIZE`.
    """
    if not cms:
        raise RefusedError(errno.EBADMSG, "the signature is empty", hint=_other_errnos())
    if len(cms) > MAX_SIGNATURE_SIZE:
        raise RefusedError(
            errno.EINVAL, f"signature of {len(cms)} bytes, more than {MAX_SIGNATURE_SIZE}"
        )


def _certificate(found: ParsedCertificate, trusted: Sequence[Certificate]) -> Certificate:
    """Return the certificate as it was given, or an embedded one."""
    known = next((each for each in trusted if each.parsed is found), None)
    return known or Certificate(found.der, found)


def _other_errnos() -> str:
    einval = names_of(lambda release: release.empty_signature_errno == errno.EINVAL)
    return f"-{errno_name(errno.EINVAL)} on {einval}"


def _where_digests_are(message: ParsedMessage, crypto: KernelCrypto) -> str:
    """Say which releases have the digests that were missing."""
    found = []
    for name in sorted({info.digest for info in message.signer_infos} - crypto.digests):
        having = [each.name for each in RELEASES.values() if each.has_digest(name) != "no"]
        if having:
            found.append(f"only {', '.join(having)} have {name}")
    return "; ".join(found)


def _notes(message: ParsedMessage, trusted: Trusted, trailing: int) -> Iterator[str]:
    info = trusted.info
    if trailing:
        yield f"{trailing} bytes after the CMS message, which no signature covers"
    if len(message.signer_infos) > 1:
        yield f"{len(message.signer_infos)} signatures in one message; one trusted key suffices"
    if message.certificates:
        yield f"{len(message.certificates)} embedded certificates, which a loader does not need"
    if trusted.signer.der != trusted.key.der:
        voucher = Certificate(trusted.key.der, trusted.key).subject
        yield f"the signer is trusted because {voucher} vouches for its certificate"
    if info.attributes is not None:
        yield "signed attributes, which a loader does not need"
    if info.digest in _WEAK_DIGESTS and info.algorithm not in mldsa.KINDS:
        yield f"digest {info.digest}; sign with sha256 or better"


def _refuse_odd_forms(cms: bytes, message: ParsedMessage) -> None:
    """Refuse what kernels overlook and no signer writes.

    RFC 5652, section 5.1, and RFC 5754, sections 2 and 3.3, let a verifier refuse it.
    """
    if not message.has_standard_tags or not der.is_canonical(cms[: message.size]):
        raise VerificationError("the CMS message is not in DER", hint=_CHANGED)
    if message.has_parameters:
        raise VerificationError("an algorithm in the message has unknown parameters", hint=_CHANGED)
    for info in message.signer_infos:
        is_value = info.algorithm == "ecdsa"
        if is_value and not (info.value[:1] == b"\x30" and der.is_canonical(info.value)):
            raise VerificationError("an ECDSA signature is not in DER", hint=_CHANGED)
        if info.digest not in message.digests:
            announced = ", ".join(name or "unknown" for name in message.digests)
            raise VerificationError(
                f"the message announces the digests {announced} and uses {info.digest}",
                hint=_CHANGED,
            )
        if info.algorithm == "ecdsa" and info.algorithm_name != f"ecdsa-with-{info.digest}":
            raise VerificationError(
                f"the signature algorithm is not ECDSA with {info.digest}, the digest in use",
                hint=_CHANGED,
            )
