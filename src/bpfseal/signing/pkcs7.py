"""What a kernel makes of a CMS message: its checks, in its order, with its errnos.

This is the core of both `bpfseal.signing.verify` and the kernel model's keyrings. It follows
``verify_pkcs7_message_sig`` (certs/system_keyring.c), which the kernel calls with the usage
VERIFYING_BPF_SIGNATURE, and what that calls in ``crypto/asymmetric_keys/``: pkcs7_parser.c,
pkcs7_verify.c and pkcs7_trust.c.

Example::

    trusted = check_pkcs7(parse(der), payload, find_in([certificate]))
    trusted.signer.subject
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from bpfseal.errors import InputError, VerificationError, errno_name
from bpfseal.release import RELEASES, digests_of
from bpfseal.signing import mldsa, oids
from bpfseal.signing.certificate import Certificate, KeyId
from bpfseal.signing.cms import CmsMessage, SignerInfo

KERNEL_DIGESTS = digests_of([RELEASES["7.3"]])
"""The digests that kernels commonly have built in: SHA-1 and SHA-2. SHA-3 is a module since 7.1."""

KERNEL_ALGORITHMS = ("rsa", "ecdsa")
"""The algorithms of ``pkcs7_sig_note_pkey_algo`` for which a loader's key can exist, to 7.3."""

NEWER_ALGORITHMS = (*KERNEL_ALGORITHMS, *mldsa.KINDS)
"""The same of kernels after 7.3 with CONFIG_CRYPTO_MLDSA."""

FindKey = Callable[[KeyId], Certificate | None]
"""Looks a key up in a keyring, as ``find_asymmetric_key`` does. It may raise `Pkcs7Error`."""


class Pkcs7Error(VerificationError):
    """A message that a kernel refuses.

    Attributes:
        errno: the positive errno that the kernel answers with, for example 74 for ``EBADMSG``.
        reason: what is wrong, without the errno's name, which `message` begins with.
    """

    def __init__(self, errno: int, reason: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(f"-{errno_name(errno)}: {reason}", where=where, hint=hint)
        self.errno = errno
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TrustedSigner:
    """Why a message is trusted.

    Attributes:
        signer: the certificate whose key made the signature.
        key: the certificate from the keyring: `signer` itself, or one that vouches for it.
        info: the SignerInfo that was verified.
    """

    signer: Certificate
    key: Certificate
    info: SignerInfo


def find_in(certificates: Sequence[Certificate]) -> FindKey:
    """Return a lookup in a list of certificates; the first that fits is found."""

    def find(name: KeyId) -> Certificate | None:
        return next((known for known in certificates if known.is_named_by(name)), None)

    return find


def check_pkcs7(
    message: CmsMessage,
    payload: bytes,
    find_key: FindKey,
    digests: Collection[str] = KERNEL_DIGESTS,
    algorithms: Collection[str] = KERNEL_ALGORITHMS,
) -> TrustedSigner:
    """Check a message as a kernel does when a signed program is loaded.

    Args:
        message: the signature.
        payload: what it should cover.
        find_key: the keyring.
        digests: the names of the digests that the kernel has.
        algorithms: the names of the signature algorithms that the kernel has.

    Returns:
        The first SignerInfo that leads to a key of the keyring.

    Raises:
        Pkcs7Error: the kernel refuses the message.
        CapabilityError: a signature with ML-DSA, which this installation does not have.
    """
    _check_form(message, algorithms)
    if message.content is not None:
        raise Pkcs7Error(errno.EBADMSG, "the message has its content embedded; detach it")
    if any(info.signed_attributes is not None for info in message.signer_infos):
        raise Pkcs7Error(
            errno.EKEYREJECTED,
            "the signature has signed attributes",
            hint="sign without them (openssl cms: -noattr)",
        )
    # pkcs7_verify: against the certificates that the message itself brings.
    # ML-DSA takes the payload as it is (algo_takes_data), whatever digest the message names.
    usable = [
        info
        for info in message.signer_infos
        if info.digest in digests or info.algorithm in mldsa.KINDS
    ]
    if not usable:
        names = ", ".join(sorted({info.digest for info in message.signer_infos}))
        raise Pkcs7Error(errno.ENOPKG, f"the kernel has no digest {names}")
    embedded = _embedded_certificates(message)
    chains = [_embedded_chain(info, payload, embedded) for info in usable]
    # pkcs7_validate_trust: a bad signature of a known key counts even after a good one.
    trusted = [
        _trust_one(info, chain, payload, find_key)
        for info, chain in zip(usable, chains, strict=True)
    ]
    for signer in trusted:
        if signer is not None:
            return signer
    if len(usable) < len(message.signer_infos):
        raise Pkcs7Error(errno.ENOPKG, "the kernel lacks the digest of some of the signatures")
    raise Pkcs7Error(errno.ENOKEY, f"no trusted key for the signer {_describe(usable[0].signer)}")


def _check_form(message: CmsMessage, algorithms: Collection[str]) -> None:
    """Check what pkcs7_parser.c refuses while it parses, in its order."""
    if message.version not in (1, 3):
        raise Pkcs7Error(errno.EINVAL, f"SignedData of version {message.version}, not 1 or 3")
    if message.content_type != oids.DATA:
        raise Pkcs7Error(errno.EINVAL, f"content of type {message.content_type}, not id-data")
    for info in message.signer_infos:
        if info.version not in (1, 3):
            raise Pkcs7Error(errno.EINVAL, f"SignerInfo of version {info.version}, not 1 or 3")
        if info.version != message.version:
            raise Pkcs7Error(
                errno.EBADMSG,
                f"SignerInfo of version {info.version} in a SignedData of {message.version}",
            )
        if info.digest not in oids.DIGESTS:
            raise Pkcs7Error(errno.ENOPKG, f"kernels do not know the digest {info.digest}")
        if info.algorithm not in algorithms:
            who = "kernels up to 7.3" if info.algorithm in mldsa.KINDS else "kernels"
            raise Pkcs7Error(
                errno.ENOPKG,
                f"{who} do not take signatures of the algorithm {info.algorithm}",
                hint="sign with RSA PKCS#1 v1.5 or ECDSA",
            )
    if not message.signer_infos:
        raise Pkcs7Error(errno.EINVAL, "the message holds no signature")
    with_attributes = [info.signed_attributes is not None for info in message.signer_infos]
    if any(with_attributes) and not all(with_attributes):
        raise Pkcs7Error(errno.EINVAL, "some of the signatures have signed attributes, some none")


def _embedded_certificates(message: CmsMessage) -> list[Certificate]:
    try:
        return [Certificate.from_der(der) for der in message.certificates]
    except InputError as error:
        raise Pkcs7Error(errno.EBADMSG, f"embedded certificate: {error.message}") from error


def _embedded_chain(
    info: SignerInfo, payload: bytes, embedded: Sequence[Certificate]
) -> list[Certificate]:
    """Verify a signature by the message's own certificates (``pkcs7_verify_one``).

    Returns:
        The signer's certificate and then each one's issuer, as far as the message brings them;
        empty when it does not bring the signer's.
    """
    # Embedded certificates are matched by issuer and serial alone (pkcs7_find_key).
    name = KeyId(issuer=info.signer.issuer, serial=info.signer.serial)
    signer = find_in(embedded)(name)
    if signer is None or signer.algorithm != info.algorithm:
        return []
    _verify_payload(signer, info, payload)
    chain = [signer]
    while not chain[-1].is_self_issued:
        issuer = find_in(embedded)(chain[-1].authority)
        if issuer is None or issuer in chain:
            break
        _verify_issued(issuer, chain[-1])
        chain.append(issuer)
    return chain


def _trust_one(
    info: SignerInfo, chain: Sequence[Certificate], payload: bytes, find_key: FindKey
) -> TrustedSigner | None:
    """Look for a key of the keyring that vouches for a signature (``pkcs7_validate_trust_one``)."""
    below: Certificate | None = None
    for certificate in chain:
        key = find_key(KeyId(issuer=certificate.issuer_der, serial=certificate.serial))
        if key is not None:
            if certificate.subject_key_id not in (None, key.subject_key_id):
                raise Pkcs7Error(
                    errno.EKEYREJECTED, "an embedded certificate bears the name of another key"
                )
            if below is None:
                _verify_payload(key, info, payload)
                return TrustedSigner(key, key, info)
            _verify_issued(key, below)
            return TrustedSigner(chain[0], key, info)
        if certificate.is_self_issued:
            return None
        below = certificate
    if below is not None:
        key = find_key(below.authority)
        if key is not None:
            _verify_issued(key, below)
            return TrustedSigner(chain[0], key, info)
    key = find_key(info.signer)
    if key is None:
        return None
    _verify_payload(key, info, payload)
    return TrustedSigner(key, key, info)


def _verify_payload(certificate: Certificate, info: SignerInfo, payload: bytes) -> None:
    try:
        certificate.verify_signature(info.algorithm, info.digest, payload, info.signature)
    except VerificationError as error:
        raise Pkcs7Error(errno.EKEYREJECTED, f"{certificate.subject}: {error.message}") from error


def _verify_issued(issuer: Certificate, child: Certificate) -> None:
    try:
        issuer.verify_issued(child)
    except VerificationError as error:
        raise Pkcs7Error(
            errno.EKEYREJECTED, f"{issuer.subject} did not issue {child.subject}: {error.message}"
        ) from error


def _describe(name: KeyId) -> str:
    if name.key_id is not None:
        return f"with key id {name.key_id.hex()}"
    if name.serial is not None:
        return f"with certificate serial number {name.serial:#x}"
    return "that the message does not name"
