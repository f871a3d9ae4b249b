"""Signers: whoever holds a private key.

`Signer` is all that `bpfseal.signing.cms.build` asks for, so that a key may lie in a file, in a
token or on another machine. `load_signer` makes one from a private key in PEM or DER.

Example::

    signer = load_signer(Path("key.pem").read_bytes(), Path("cert.pem").read_bytes())
    signature = signer.sign(payload, "sha256")
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from bpfseal.errors import InputError, UnsupportedError, UsageError
from bpfseal.signing.certificate import HASHES, MAX_SIZE, Certificate

SIGNING_HASHES = ("sha256", "sha384", "sha512")
"""The digests to sign with. Kernels also verify older ones."""

_RSA_BITS = range(2048, 4097)
_CURVES = ("secp256r1", "secp384r1")

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Signer(Protocol):
    """Someone who can sign."""

    @property
    def certificate(self) -> Certificate:
        """The certificate of the key."""

    @property
    def algorithm(self) -> str:
        """``"rsa"`` (PKCS#1 v1.5) or ``"ecdsa"``."""

    def sign(self, data: bytes, hash_name: str) -> bytes:
        """Return the signature value over `data`.

        Args:
            data: what is signed; the signer hashes it.
            hash_name: one of `SIGNING_HASHES`.

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
        """``"rsa"`` (PKCS#1 v1.5) or ``"ecdsa"``."""
        return "rsa" if isinstance(self._key, rsa.RSAPrivateKey) else "ecdsa"

    def sign(self, data: bytes, hash_name: str) -> bytes:
        """Return the signature value over `data`; see `Signer.sign`."""
        hash_algorithm = require_hash(hash_name)
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(data, padding.PKCS1v15(), hash_algorithm)
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


def load_signer(key_pem: bytes, certificate: bytes, passphrase: bytes | None = None) -> KeySigner:
    """Make a signer from a private key and its certificate.

    Args:
        key_pem: an RSA key of 2048 to 4096 bits, or a P-256 or P-384 key; PEM or DER.
        certificate: the X.509 certificate, PEM or DER.
        passphrase: what the key is encrypted with; not looked at when it is not encrypted.

    Raises:
        InputError: either cannot be read, they do not belong together, the passphrase is missing
            or wrong, or the certificate has no subjectKeyIdentifier.
        UnsupportedError: a key that kernels do not verify loaders with.
    """
    key = _load_key(key_pem, passphrase)
    own_certificate = Certificate.from_pem_or_der(certificate)
    public_key = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public_key != own_certificate.public_key_der:
        raise InputError(
            f"the private key does not belong to certificate {own_certificate.subject}",
            hint="give the certificate that was issued for this key",
        )
    own_certificate.require_subject_key_id()
    return KeySigner(own_certificate, key)


def _load_key(data: bytes, passphrase: bytes | None) -> PrivateKey:
    """Read a private key and refuse kinds that cannot sign loaders."""
    if len(data) > MAX_SIZE:
        raise InputError(f"private key file of {len(data)} bytes, more than {MAX_SIZE}")
    load = load_pem_private_key if b"-----BEGIN " in data else load_der_private_key
    try:
        key = load(data, None)
    except TypeError as error:  # encrypted
        if not passphrase:
            raise InputError(
                "the private key is encrypted", hint="give its passphrase with --passphrase-file"
            ) from error
        try:
            key = load(data, passphrase)
        except (ValueError, UnsupportedAlgorithm) as wrong:
            raise InputError("wrong passphrase for the private key") from wrong
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError("not a private key in PEM or DER") from error
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size in _RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return key
    raise UnsupportedError(
        "a private key of a kind or size that cannot sign loaders",
        hint="use RSA with 2048 to 4096 bits, P-256 or P-384",
    )
