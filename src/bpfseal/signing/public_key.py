"""Verify a signature with a public key, with the answers of a kernel.

Follows ``public_key_verify_signature`` (crypto/asymmetric_keys/public_key.c) and what it calls:
crypto/rsassa-pkcs1.c and rsa.c, ecdsa-x962.c and ecdsa.c. The errno of a signature that does not
match says where it failed, and reaches user space when an embedded certificate's key was used.

Example:
    >>> PublicKey("rsa", b"").matches("ecdsa"), PublicKey("ecdsa-nist-p256", b"").matches("ecdsa")
    (False, True)
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from bpfseal.errors import CapabilityError
from bpfseal.signing import ber, grammar, mldsa
from bpfseal.signing.ber import RefusedError

HASHES: Final[dict[str, Callable[[], hashes.HashAlgorithm]]] = {
    "sha1": hashes.SHA1,
    "sha224": hashes.SHA224,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
    "sha3-256": hashes.SHA3_256,
    "sha3-384": hashes.SHA3_384,
    "sha3-512": hashes.SHA3_512,
}
"""The implementation of each digest of `bpfseal.signing.oids.DIGESTS`."""

NO_DIGEST: Final = "none"
"""The digest of a signature over the message itself."""

_DIGEST_INFO: Final = {
    "sha1": "3021300906052b0e03021a05000414",
    "sha224": "302d300d06096086480165030402040500041c",
    "sha256": "3031300d060960864801650304020105000420",
    "sha384": "3041300d060960864801650304020205000430",
    "sha512": "3051300d060960864801650304020305000440",
    "sha3-256": "3031300d060960864801650304020805000420",
    "sha3-384": "3041300d060960864801650304020905000430",
    "sha3-512": "3051300d060960864801650304020a05000440",
}
"""What stands before a digest in an RSA signature (RFC 8017, section 9.2)."""

_RSA_BYTES: Final = (64, 128, 192, 256, 384, 512)
"""Sizes of a modulus that ``rsa_check_key_length`` takes."""

_MIN_PADDING: Final = 8
_LIMB: Final = 8
_MAX_NUMBER: Final = 16384 // 8
"""Bytes of the largest number of ``mpi_read_raw_data``."""


@dataclass(frozen=True, slots=True)
class _Curve:
    """A curve: its name in Linux and elsewhere, bytes of a coordinate, 64-bit words, and order."""

    name: str
    size: int
    words: int
    order: int
    curve: ec.EllipticCurve


_CURVES: Final = {
    curve.name: curve
    for curve in (
        _Curve(
            "ecdsa-nist-p192",
            24,
            3,
            0xFFFFFFFFFFFFFFFFFFFFFFFF99DEF836146BC9B1B4D22831,
            ec.SECP192R1(),
        ),
        _Curve(
            "ecdsa-nist-p256",
            32,
            4,
            0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
            ec.SECP256R1(),
        ),
        _Curve(
            "ecdsa-nist-p384",
            48,
            6,
            int(
                "ffffffffffffffffffffffffffffffffffffffffffffffff"
                "c7634d81f4372ddf581a0db248b0a77aecec196accc52973",
                16,
            ),
            ec.SECP384R1(),
        ),
        _Curve(
            "ecdsa-nist-p521",
            66,
            9,
            int(
                "1ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
                "fa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409",
                16,
            ),
            ec.SECP521R1(),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key, as a certificate has it (``struct public_key``).

    Attributes:
        algorithm: ``"rsa"``, ``"ecdsa-nist-p256"``, ``"ecrdsa"``, ``"mldsa65"``, ...
        key: RSAPublicKey in BER, an uncompressed point, or the raw key of ML-DSA.
    """

    algorithm: str
    key: bytes = field(repr=False)

    def matches(self, algorithm: str) -> bool:
        """Tell whether a signature of this algorithm can be by this key."""
        return algorithm in (self.algorithm, self.algorithm.partition("-")[0])

    @property
    def kind(self) -> str:
        """``"rsa2048"``, ``"p256"``, ``"mldsa65"``, ... or the algorithm if the key is broken."""
        if self.algorithm == "rsa":
            try:
                return f"rsa{_rsa_numbers(self.key)[0].bit_length()}"
            except RefusedError:
                return "rsa"
        return self.algorithm.removeprefix("ecdsa-nist-")

    def loaded(self) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey | mldsa.PublicKey | None:
        """Return the key as `cryptography` has it, or None if it takes no such key."""
        try:
            if self.algorithm == "rsa":
                modulus, exponent = _rsa_numbers(self.key)
                return rsa.RSAPublicNumbers(exponent, modulus).public_key()
            if self.algorithm in _CURVES:
                return _point(_CURVES[self.algorithm], self.key)
            return mldsa.load_public_key(self.algorithm, self.key)
        except (RefusedError, CapabilityError, ValueError, UnsupportedAlgorithm):
            return None


@dataclass(frozen=True, slots=True)
class SignatureValue:
    """A signature, and what it is over (``struct public_key_signature``).

    Attributes:
        algorithm: ``"rsa"``, ``"ecdsa"``, ``"ecrdsa"``, ``"mldsa65"``, ...
        digest: the digest's name, or `NO_DIGEST`.
        value: the signature value.
        message: the digest's value; with `NO_DIGEST` the message itself.
    """

    algorithm: str
    digest: str
    value: bytes
    message: bytes = field(repr=False)


def verify(key: PublicKey, signature: SignatureValue, algorithms: Collection[str]) -> None:
    """Verify a signature.

    Args:
        key: the public key.
        signature: the signature.
        algorithms: what the kernel can verify: ``"rsa"``, ``"ecdsa"``, ``"mldsa65"``, ...

    Raises:
        RefusedError: it does not verify; ``ENOENT`` if the kernel lacks the algorithm.
        CapabilityError: an algorithm or curve that this installation does not have.
    """
    if not key.matches(signature.algorithm):
        raise RefusedError(
            errno.EKEYREJECTED, f"{signature.algorithm} signature, but the key is {key.kind}"
        )
    if signature.algorithm in mldsa.KINDS:
        if signature.digest not in (NO_DIGEST, mldsa.DIGEST):
            raise RefusedError(errno.EINVAL, f"{signature.algorithm} with {signature.digest}")
    elif signature.algorithm != "ecrdsa" and signature.digest not in HASHES:
        raise RefusedError(errno.EINVAL, f"{signature.algorithm} with {signature.digest}")
    if signature.algorithm not in algorithms:
        raise RefusedError(errno.ENOENT, f"the kernel has no {signature.algorithm}")
    if signature.algorithm == "rsa":
        _verify_rsa(key.key, signature)
    elif signature.algorithm == "ecdsa":
        _verify_ecdsa(_CURVES[key.algorithm], key.key, signature)
    else:
        _verify_mldsa(key, signature)


class _Numbers:
    """Collects the numbers of an RSA key or an ECDSA signature."""

    def __init__(self, limit: int = 0) -> None:
        self.found: list[int] = []
        self._limit = limit
        self._modulus_size = 0

    def modulus(self, item: ber.Item) -> None:
        """``rsa_get_n``."""
        if not item.size:
            raise RefusedError(errno.EINVAL, "RSA key without a modulus")
        self._modulus_size = item.size
        self.found.append(int.from_bytes(item.value, "big"))

    def exponent(self, item: ber.Item) -> None:
        """``rsa_get_e``."""
        if not item.size or item.size > self._modulus_size:
            raise RefusedError(errno.EINVAL, "RSA key with a bad exponent")
        self.found.append(int.from_bytes(item.value, "big"))

    def r(self, item: ber.Item) -> None:
        """``ecdsa_get_signature_rs``: numbers have no sign there."""
        value = item.value
        too_long = item.size > self._limit and (item.size > self._limit + 1 or value[0])
        if not item.size or too_long:
            raise RefusedError(errno.EINVAL, "a number of an ECDSA signature has a wrong size")
        self.found.append(int.from_bytes(value, "big"))

    s = r


@lru_cache(maxsize=256)
def _rsa_numbers(key: bytes) -> tuple[int, int]:
    """Read an RSA key (``rsa_set_pub_key``)."""
    numbers = _Numbers()
    ber.walk(grammar.RSA_PUBLIC_KEY, key, numbers)
    modulus, exponent = numbers.found
    if max(modulus, exponent).bit_length() > _MAX_NUMBER * 8:
        raise RefusedError(errno.ENOMEM, "RSA key with a number that is too large")
    return modulus, exponent


def _rsa_size(modulus: int) -> int:
    """Return the bytes of a modulus in whole machine words (``mpi_get_size``)."""
    words = -(-modulus.bit_length() // (8 * _LIMB))
    return words * _LIMB


@lru_cache(maxsize=1024)
def _rsa_power(value: bytes, exponent: int, modulus: int) -> int:
    return pow(int.from_bytes(value, "big"), exponent, modulus)


def _verify_rsa(key: bytes, signature: SignatureValue) -> None:
    """``rsassa_pkcs1_verify``."""
    modulus, exponent = _rsa_numbers(key)
    size = _rsa_size(modulus)
    if size not in _RSA_BYTES:
        raise RefusedError(errno.EINVAL, f"RSA key of {modulus.bit_length()} bits")
    prefix = bytes.fromhex(_DIGEST_INFO[signature.digest])
    if len(signature.value) != size or len(signature.message) != prefix[-1]:
        raise RefusedError(errno.EINVAL, "the signature has another size than its key")
    # The range of _rsa_enc is narrower than that of RFC 8017.
    if not 1 < int.from_bytes(signature.value, "big") < modulus - 1:
        raise RefusedError(errno.EINVAL, "the signature is out of its key's range")
    found = _rsa_power(signature.value, exponent, modulus).to_bytes(size, "big")
    if found[0]:
        raise RefusedError(errno.EINVAL, "the signature does not match what it should cover")
    padding, end, rest = found[2:].partition(b"\0")
    if found[1] != 1 or padding.strip(b"\xff") or len(padding) < _MIN_PADDING or not end:
        raise RefusedError(errno.EBADMSG, "the signature does not match what it should cover")
    if not rest.startswith(prefix):
        raise RefusedError(errno.EBADMSG, "the signature is over another kind of digest")
    if rest[len(prefix) :] != signature.message:
        raise RefusedError(errno.EKEYREJECTED, "the signature does not match what it should cover")


@lru_cache(maxsize=256)
def _point(curve: _Curve, key: bytes) -> ec.EllipticCurvePublicKey:
    """Read a point (``ecdsa_set_pub_key``)."""
    half, odd = divmod(len(key) - 1, 2)
    if odd or key[:1] != b"\4" or -(-half // 8) != curve.words:
        raise RefusedError(errno.EINVAL, "EC key that is no uncompressed point of its curve")
    x, y = (int.from_bytes(part, "big") for part in (key[1 : 1 + half], key[1 + half :]))
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve.curve).public_key()
    except ValueError as error:
        raise RefusedError(errno.EINVAL, "EC key that is no point of its curve") from error
    except UnsupportedAlgorithm as error:
        raise CapabilityError(
            f"the installed cryptography has no {curve.name}",
            hint="use RSA, P-256 or P-384",
        ) from error


@lru_cache(maxsize=1024)
def _is_ecdsa_signature(
    curve: _Curve, key: bytes, r: int, s: int, digest: str, message: bytes
) -> bool:
    point = _point(curve, key)
    try:
        point.verify(encode_dss_signature(r, s), message, ec.ECDSA(Prehashed(HASHES[digest]())))
    except InvalidSignature:
        return False
    return True


def _verify_ecdsa(curve: _Curve, key: bytes, signature: SignatureValue) -> None:
    """``ecdsa_x962_verify`` and ``ecdsa_verify``."""
    _point(curve, key)
    numbers = _Numbers(limit=curve.words * 8)
    ber.walk(grammar.ECDSA_SIGNATURE, signature.value, numbers)
    r, s = numbers.found
    if not (0 < r < curve.order and 0 < s < curve.order):
        raise RefusedError(errno.EBADMSG, "the signature is out of its curve's range")
    if not _is_ecdsa_signature(curve, key, r, s, signature.digest, signature.message):
        raise RefusedError(errno.EKEYREJECTED, "the signature does not match what it should cover")


def _verify_mldsa(key: PublicKey, signature: SignatureValue) -> None:
    mldsa.require()
    public_key = key.loaded()
    try:
        if public_key is not None and mldsa.verify(
            public_key, signature.algorithm, signature.value, signature.message
        ):
            return
    except InvalidSignature:
        pass
    raise RefusedError(errno.EKEYREJECTED, "the signature does not match what it should cover")
