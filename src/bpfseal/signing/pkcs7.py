"""What a kernel makes of a CMS message: its checks, in its order, with its errnos.

This is the core of both `bpfseal.signing.verify` and the kernel model's keyrings. It follows
``verify_pkcs7_message_sig`` (certs/system_keyring.c), which the kernel calls with the usage
VERIFYING_BPF_SIGNATURE, and what that calls in ``crypto/asymmetric_keys/``: pkcs7_verify.c and
pkcs7_trust.c. Two walks over the SignerInfos follow each other:

1. `pkcs7_verify`: one whose digest the kernel lacks is passed over. Where the message brings the
   signer's certificate, the signature and the chain above it are verified; any failure ends it.
2. `pkcs7_validate_trust`: a signature of a known key that does not match ends it, -EKEYREJECTED,
   even after a good one; an unknown key is passed over. One good signature is enough.

Example::

    trusted = check(parse(cms, crypto), Payload(insns), find_in([certificate]), crypto)
    trusted.info.digest
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bpfseal.release import KernelCrypto
from bpfseal.signing import public_key
from bpfseal.signing.ber import RefusedError
from bpfseal.signing.pkcs7_parser import ParsedMessage, SignerInfo
from bpfseal.signing.public_key import NO_DIGEST, PublicKey, SignatureValue
from bpfseal.signing.x509 import ParsedCertificate

FindKey = Callable[[bytes], ParsedCertificate | None]
"""Looks a key up in a keyring by one of its names. It may raise `RefusedError`."""


class Payload:
    """What a signature should cover; each digest of it is computed once.

    Args:
        parts: the bytes, in several pieces if they are large.
    """

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts
        self._digests: dict[str, bytes] = {}
        self._data: bytes | None = None

    def digest(self, name: str) -> bytes:
        """Return a digest of it, by the digest's name in Linux."""
        if name not in self._digests:
            self._digests[name] = self.compute(name)
        return self._digests[name]

    def compute(self, name: str) -> bytes:
        """Return a digest of it, computed now."""
        hashed = hashlib.new(name.replace("sha3-", "sha3_"))
        for part in self._parts:
            hashed.update(part)
        return hashed.digest()

    @property
    def data(self) -> bytes:
        """All of it."""
        if self._data is None:
            self._data = b"".join(self._parts)
        return self._data


@dataclass(frozen=True, slots=True)
class Trusted:
    """Why a message is trusted.

    Attributes:
        info: the SignerInfo that was verified.
        signer: the certificate whose key made the signature; an embedded one, or `key`.
        key: the certificate of the keyring: the signer's own, or one that vouches for it.
    """

    info: SignerInfo
    signer: ParsedCertificate
    key: ParsedCertificate


@dataclass(slots=True)
class _Chain:
    """The links from the embedded certificates to those above them (``x509->signer``)."""

    certificates: Sequence[ParsedCertificate]
    above: dict[int, int] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    verified: dict[int, ParsedCertificate] = field(default_factory=dict)


def find_in(certificates: Iterable[ParsedCertificate]) -> FindKey:
    """Return a lookup in a list of certificates; the first that fits is found."""
    known: dict[bytes, ParsedCertificate] = {}
    for certificate in certificates:
        known.setdefault(certificate.names_key, certificate)
        if certificate.key_id is not None:
            known.setdefault(certificate.key_id, certificate)
    return known.get


def check(
    message: ParsedMessage, payload: Payload, find_key: FindKey, crypto: KernelCrypto
) -> Trusted:
    """Check a message as a kernel does when a signed program is loaded.

    Args:
        message: the signature, parsed with the same `crypto`.
        payload: what it should cover.
        find_key: the keyring.
        crypto: what the kernel can compute.

    Returns:
        The first SignerInfo that leads to a key of the keyring.

    Raises:
        RefusedError: the kernel refuses the message.
        CapabilityError: a signature with ML-DSA, which this installation does not have.
    """
    check_content(message)
    chain = _Chain(message.certificates)
    usable = [_can_digest(info, crypto) for info in message.signer_infos]
    if not any(usable):
        names = ", ".join(sorted({info.digest for info in message.signer_infos}))
        raise RefusedError(errno.ENOPKG, f"the kernel has no digest {names}")
    verified: list[tuple[SignerInfo, SignatureValue, int | None]] = []
    for info, can_digest in zip(message.signer_infos, usable, strict=True):
        if can_digest:
            value = signature_value(info, payload)
            verified.append((info, value, _verify_one(info, value, chain, crypto)))
    trusted: Trusted | None = None
    for info, value, signer in verified:
        found = _trust_one(info, value, signer, chain, find_key, crypto)
        trusted = trusted or found
    if trusted is not None:
        return trusted
    if not all(usable):
        raise RefusedError(errno.ENOPKG, "the kernel lacks the digest of some of the signatures")
    signer_name = _describe(verified[0][0])
    raise RefusedError(errno.ENOKEY, f"no trusted key for the signer {signer_name}")


def check_content(message: ParsedMessage) -> None:
    """Check that the message is one for a loader, as far as that depends on nothing else.

    Raises:
        RefusedError: it has its content inside (``pkcs7_supply_detached_data``), or is of
            Authenticode (``pkcs7_verify``).
    """
    if message.has_content:
        raise RefusedError(errno.EBADMSG, "the message has its content embedded; detach it")
    if message.content_type != "data":
        raise RefusedError(errno.EKEYREJECTED, "the message is of Authenticode")


def _can_digest(info: SignerInfo, crypto: KernelCrypto) -> bool:
    """Tell whether the kernel can hash for a signature; some algorithms hash themselves."""
    return (info.takes_data and info.attributes is None) or crypto.has_digest(info.digest)


def signature_value(info: SignerInfo, payload: Payload) -> SignatureValue:
    """Return what a key has to verify (``pkcs7_digest``).

    Raises:
        RefusedError: the digest among the signed attributes is not that of the payload.
    """
    if info.attributes is None:
        if info.takes_data:
            return SignatureValue(info.algorithm, NO_DIGEST, info.value, payload.data)
        return SignatureValue(info.algorithm, info.digest, info.value, payload.digest(info.digest))
    digest = payload.digest(info.digest)
    if len(info.message_digest or b"") != len(digest):
        raise RefusedError(errno.EBADMSG, "messageDigest is of another kind of digest")
    if info.message_digest != digest:
        raise RefusedError(errno.EKEYREJECTED, "messageDigest does not match what it should cover")
    if info.takes_data:
        return SignatureValue(info.algorithm, info.digest, info.value, info.attributes)
    hashed = Payload(info.attributes).digest(info.digest)
    return SignatureValue(info.algorithm, info.digest, info.value, hashed)


def _verify_one(
    info: SignerInfo, value: SignatureValue, chain: _Chain, crypto: KernelCrypto
) -> int | None:
    """Verify a signature by the message's own certificates (``pkcs7_verify_one``).

    Returns:
        The position of the signer's certificate, or None if the message does not bring it.
    """
    # Embedded certificates are matched by serial and issuer alone (pkcs7_find_key).
    signer = _position(chain, lambda each: each.names_key == info.name)
    if signer is None:
        return None
    certificate = chain.certificates[signer]
    time = info.signing_time
    if time is not None and not certificate.not_before <= time <= certificate.not_after:
        raise RefusedError(
            errno.EKEYREJECTED, "signed outside of the embedded certificate's validity period"
        )
    public_key.verify(certificate.key, value, crypto.algorithms)
    _verify_chain(signer, chain, crypto)
    return signer


def _position(chain: _Chain, is_it: Callable[[ParsedCertificate], bool]) -> int | None:
    return next((at for at, each in enumerate(chain.certificates) if is_it(each)), None)


def _verify_chain(signer: int, chain: _Chain, crypto: KernelCrypto) -> None:
    """Verify the certificates above a signer's (``pkcs7_verify_sig_chain``)."""
    seen = {signer}
    at = signer
    while True:
        below = chain.certificates[at]
        if below.is_self_signed:
            chain.above[at] = at
            return
        wanted, key_id = below.authority, below.authority_key_id
        if wanted is not None:
            above = _position(chain, lambda each, name=wanted: each.names_key == name)  # type: ignore[misc]
            if above is not None and key_id not in (None, chain.certificates[above].key_id):
                raise RefusedError(
                    errno.EKEYREJECTED, "an embedded certificate bears the name of another key"
                )
        elif key_id is not None:
            above = _position(chain, lambda each, name=key_id: each.key_id == name)  # type: ignore[misc]
        else:
            above = None
        if above is None or above in seen:
            return
        _verify_issued(chain.certificates[above].key, below, crypto)
        chain.above[at] = above
        seen.add(above)
        at = above


def _verify_issued(key: PublicKey, below: ParsedCertificate, crypto: KernelCrypto) -> None:
    if below.has_unsupported_signature and not below.signature.message:
        raise RefusedError(errno.EINVAL, "an embedded certificate is signed in an unknown way")
    public_key.verify(key, below.signature, crypto.algorithms)


def _trust_one(
    info: SignerInfo,
    value: SignatureValue,
    signer: int | None,
    chain: _Chain,
    find_key: FindKey,
    crypto: KernelCrypto,
) -> Trusted | None:
    """Look for a key of the keyring that vouches for a signature (``pkcs7_validate_trust_one``)."""
    own = None if signer is None else chain.certificates[signer]
    path: list[int] = []
    at, last = signer, signer
    while at is not None:
        certificate = chain.certificates[at]
        if at in chain.seen:
            key = chain.verified.get(at)
            if key is None or own is None:
                return None
            chain.verified.update(dict.fromkeys(path, key))
            return Trusted(info, own, key)
        chain.seen.add(at)
        key = _find(find_key, certificate.names_key)
        if key is not None and certificate.key_id not in (None, key.key_id):
            key = None  # -EKEYREJECTED of find_asymmetric_key, which counts as not found here
        if key is not None:
            signed = value if not path else chain.certificates[path[-1]].signature
            _verify_trusted(key, signed, crypto)
            chain.verified.update(dict.fromkeys((*path, at), key))
            # An embedded copy of a known certificate may differ from it in all but the name.
            return Trusted(info, own if own is not None and path else key, key)
        above = chain.above.get(at)
        if above == at:
            return None  # unknown and self-signed
        path.append(at)
        last, at = at, above
    if last is not None and own is not None:
        top = chain.certificates[last]
        key = _find_authority(find_key, top)
        if key is not None:
            _verify_trusted(key, top.signature, crypto)
            chain.verified.update(dict.fromkeys(path, key))
            return Trusted(info, own, key)
    key = _find(find_key, info.name)
    if key is None:
        return None
    _verify_trusted(key, value, crypto)
    return Trusted(info, key, key)


def _find(find_key: FindKey, name: bytes) -> ParsedCertificate | None:
    """``find_asymmetric_key`` with one name."""
    if not name:  # asymmetric_key_hex_to_key_id
        raise RefusedError(errno.EINVAL, "the signature does not name its key")
    return find_key(name)


def _find_authority(find_key: FindKey, below: ParsedCertificate) -> ParsedCertificate | None:
    first, second = below.authority, below.authority_key_id
    name = second if first is None else first
    if name is None:
        return None
    key = _find(find_key, name)
    if key is not None and first is not None and second not in (None, key.key_id):
        raise RefusedError(
            errno.EKEYREJECTED, "an embedded certificate's issuer bears the name of another key"
        )
    return key


def _verify_trusted(
    certificate: ParsedCertificate, value: SignatureValue, crypto: KernelCrypto
) -> None:
    try:
        public_key.verify(certificate.key, value, crypto.algorithms)
    except RefusedError as refused:
        raise RefusedError(errno.EKEYREJECTED, refused.reason) from refused


def _describe(info: SignerInfo) -> str:
    if info.version == 3:  # RFC 5652, section 5.3
        return f"with key id {info.name.hex()}"
    return "with this issuer and serial number"
