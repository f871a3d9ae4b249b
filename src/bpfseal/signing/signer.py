"""Signers: whoever holds a private key.

`Signer` is all that `bpfseal.signing.cms.build` asks for, so that a key may lie in a file, in a
token (`bpfseal.signing.pkcs11`) or elsewhere. `load_signer` makes one from a private key in PEM or
DER: PKCS#8 or the traditional forms of RSA and EC keys, encrypted or not.

Example::

    signer = load_signer(Path("key.pem").read_bytes(), Path("cert.pem").read_bytes())
    signature = signer.sign(payload, "sha256")
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from bpfseal.errors import InputError, UnsupportedError, UsageError
from bpfseal.signing import mldsa
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.certificate_file import MAX_SIZE
from bpfseal.signing.public_key import HASHES

if TYPE_CHECKING:
    PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | mldsa.PrivateKey

SIGNING_HASHES = ("sha256", "sha384", "sha512")
"""The digests to sign with. Kernels also verify older ones."""

_RSA_BYTES = (256, 384, 512)
"""Sizes of RSA keys that kernels take (``rsa_check_key_length``), without the weak ones."""

_MIN_RSA_BITS = 2048
_CURVES = ("secp256r1", "secp384r1")
COORDINATE_SIZES = {"p256": 32, "p384": 48}
"""Bytes of one of the two numbers of an ECDSA signature, by key type."""

_KEY_TYPES = ("p256", "p384", *mldsa.KINDS)
_UNFIT_KEY = "a private key of a kind or size that cannot sign loaders"
_FIT_KEYS = "use RSA with 2048, 3072 or 4096 bits, P-256, P-384 or ML-DSA"


class Signer(Protocol):
    """Someone who can sign."""

    @property
    def certificate(self) -> Certificate:
        """The certificate of the key."""

    @property
    def algorithm(self) -> str:
        """``"rsa"`` (PKCS#1 v1.5), ``"ecdsa"`` or one of `bpfseal.signing.mldsa.KINDS`."""

    def sign(self, data: bytes, hash_name: str) -> bytes:
        """Return the signature value over `data`, in the form that CMS holds.

        Args:
            data: what is signed; the signer hashes it.
            hash_name: one of `SIGNING_HASHES`; ML-DSA has no use for it.

        Raises:
            UsageError: another hash.
        """


@dataclass(frozen=True, slots=True)
class KeySigner:
    """A signer whose private key is in this process's memory.

    Attributes:
        certificate: the certificate of the key.
    """

    certificate: Certificate
    _key: PrivateKey = field(repr=False, compare=False)

    @property
    def algorithm(self) -> str:
        """What the key signs with; see `Signer.algorithm`."""
        return self.certificate.algorithm

    def sign(self, data: bytes, hash_name: str) -> bytes:
        """Return the signature value over `data`; see `Signer.sign`."""
        hash_algorithm = require_hash(hash_name)
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(data, padding.PKCS1v15(), hash_algorithm)
        if not isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(data)
        try:
            # RFC 6979: the same input gives the same bytes, as everything before a load does.
            return self._key.sign(data, ec.ECDSA(hash_algorithm, deterministic_signing=True))
        except UnsupportedAlgorithm:  # OpenSSL before 3.2
            return self._key.sign(data, ec.ECDSA(hash_algorithm))


def require_hash(hash_name: str) -> hashes.HashAlgorithm:
    """Return the hash to sign with.

    Raises:
        UsageError: not one of `SIGNING_HASHES`.
    """
    if hash_name not in SIGNING_HASHES:
        raise UsageError(
            f"cannot sign with hash {hash_name}", hint=f"use one of {', '.join(SIGNING_HASHES)}"
        )
    return HASHES[hash_name]()


def require_signing_key(certificate: Certificate) -> None:
    """Refuse the certificate of a key that is not to sign loaders.

    Raises:
        InputError: it has no subjectKeyIdentifier.
        UnsupportedError: it is of another kind or size than kernels verify loaders with.
        CapabilityError: it is of ML-DSA, which this installation does not have.
    """
    certificate.require_subject_key_id()
    if certificate.algorithm in mldsa.KINDS:
        mldsa.require()
    is_rsa = certificate.algorithm == "rsa" and _is_fit_rsa(certificate.key_type[3:])
    if not is_rsa and certificate.key_type not in _KEY_TYPES:
        raise UnsupportedError(f"{_UNFIT_KEY}: {certificate.key_type}", hint=_FIT_KEYS)


def _is_fit_rsa(bits: str) -> bool:
    return int(bits or 0) >= _MIN_RSA_BITS and -(-int(bits) // 8) in _RSA_BYTES


def ecdsa_der(value: bytes) -> bytes:
    r"""Return the DER form (ECDSA-Sig-Value, RFC 3279) of a signature that is r and s side by side.

    Example:
        >>> ecdsa_der(bytes(31) + b"\x01" + bytes(31) + b"\x02").hex()
        '3006020101020102'
    """
    half = len(value) // 2
    r, s = int.from_bytes(value[:half], "big"), int.from_bytes(value[half:], "big")
    return encode_dss_signature(r, s)


def is_encrypted(key: bytes) -> bool:
    """Tell whether a private key in PEM or DER asks for a passphrase."""
    try:
        _parse_key(key, None)
    except TypeError:
        return True
    except (ValueError, UnsupportedAlgorithm):
        return False
    return False


def load_signer(key_pem: bytes, certificate: bytes, passphrase: bytes | None = None) -> KeySigner:
    """Make a signer from a private key and its certificate.

    Args:
        key_pem: an RSA key of 2048, 3072 or 4096 bits, a P-256, P-384 or ML-DSA key; PEM or DER.
        certificate: the X.509 certificate, PEM or DER.
        passphrase: what the key is encrypted with; not looked at when it is not encrypted.

    Raises:
        InputError: either cannot be read, they do not belong together, the passphrase is missing
            or wrong, or the certificate has no subjectKeyIdentifier.
        UnsupportedError: a key that kernels do not verify loaders with.
        CapabilityError: a key of ML-DSA, which this installation does not have.
    """
    try:
        key = _load_key(key_pem, passphrase)
    except InputError:
        # A key of ML-DSA is junk to an installation without it; the certificate tells.
        with contextlib.suppress(InputError):
            if Certificate.from_pem_or_der(certificate).algorithm in mldsa.KINDS:
                mldsa.require()
        raise
    own_certificate = Certificate.from_pem_or_der(certificate)
    public_key = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public_key != own_certificate.public_key_der:
        raise InputError(
            f"the private key does not belong to certificate {own_certificate.subject}",
            hint="give the certificate that was issued for this key",
        )
    require_signing_key(own_certificate)
    return KeySigner(own_certificate, key)


def _load_key(data: bytes, passphrase: bytes | None) -> PrivateKey:
    """Read a private key and refuse kinds that cannot sign loaders."""
    if len(data) > MAX_SIZE:
        raise InputError(f"private key file of {len(data)} bytes, more than {MAX_SIZE}")
    try:
        key = _parse_key(data, None)
    except TypeError as error:  # encrypted
        if not passphrase:
            raise InputError(
                "the private key is encrypted", hint="give its passphrase with --passphrase-file"
            ) from error
        try:
            key = _parse_key(data, passphrase)
        except (ValueError, UnsupportedAlgorithm) as wrong:
            raise InputError(
                "wrong passphrase for the private key, or a cipher that is not known"
            ) from wrong
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError("not a private key in PEM or DER") from error
    if isinstance(key, rsa.RSAPrivateKey) and _is_fit_rsa(str(key.key_size)):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return key
    if mldsa.private_key_kind(key):
        return cast("mldsa.PrivateKey", key)
    raise UnsupportedError(_UNFIT_KEY, hint=_FIT_KEYS)


def _parse_key(data: bytes, passphrase: bytes | None) -> PrivateKeyTypes:
    load = load_pem_private_key if b"-----BEGIN " in data else load_der_private_key
    return load(data, passphrase)
