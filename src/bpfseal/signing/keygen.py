"""Make a key and a self-signed certificate fit for signing loaders.

The certificate has what kernels and their tools ask for: a subjectKeyIdentifier to name the key by,
keyUsage digitalSignature, and no CA bit (the extensions of ``certs/default_x509.genkey``).

Example::

    pair = generate("p256", "loader signing")
    signer = load_signer(pair.private_key_pem, pair.certificate_pem)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from bpfseal.errors import UsageError
from bpfseal.signing import mldsa

if TYPE_CHECKING:
    from bpfseal.signing.signer import PrivateKey

VALIDITY = timedelta(days=3653)
"""Ten years. Kernels do not look at it; other tools do."""

_MAX_COMMON_NAME = 64
"""Bytes in UTF-8 of a commonName: as many characters are allowed (RFC 5280, ub-common-name), but
``cryptography`` and others count bytes."""

_rsa = partial(rsa.generate_private_key, 65537)

_MAKE_KEY: dict[str, Callable[[], PrivateKey]] = {
    "rsa2048": partial(_rsa, 2048),
    "rsa3072": partial(_rsa, 3072),
    "rsa4096": partial(_rsa, 4096),
    "p256": partial(ec.generate_private_key, ec.SECP256R1()),
    "p384": partial(ec.generate_private_key, ec.SECP384R1()),
    **{kind: partial(mldsa.generate, kind) for kind in mldsa.KINDS},
}

KEY_TYPES = tuple(_MAKE_KEY)
"""The kinds of keys that `generate` makes."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key and its certificate.

    Attributes:
        private_key_pem: PKCS#8, encrypted if a passphrase was given.
        certificate_pem: the certificate for people and most tools.
        certificate_der: the certificate for ``keyctl padd asymmetric``.
    """

    private_key_pem: bytes = field(repr=False)
    certificate_pem: bytes
    certificate_der: bytes


def generate(
    key_type: str,
    common_name: str,
    *,
    passphrase: bytes | None = None,
    not_before: datetime | None = None,
) -> KeyPair:
    """Make a new key and its self-signed certificate.

    Args:
        key_type: one of `KEY_TYPES`.
        common_name: the certificate's name, 1 to 64 bytes in UTF-8.
        passphrase: encrypts the private key; None leaves it readable.
        not_before: when the validity begins, with its time zone; now by default.

    Raises:
        UsageError: another key type, or a name that is empty, too long or no text.
        CapabilityError: ML-DSA, which this installation does not have.
    """
    if key_type not in _MAKE_KEY:
        raise UsageError(f"no key type {key_type}", hint=f"use one of {', '.join(KEY_TYPES)}")
    try:
        size = len(common_name.encode())
    except UnicodeEncodeError:
        raise UsageError("the common name is not valid Unicode") from None
    if not 1 <= size <= _MAX_COMMON_NAME:
        raise UsageError(f"the common name must have 1 to {_MAX_COMMON_NAME} bytes in UTF-8")
    if passphrase == b"":
        raise UsageError("the passphrase is empty")
    key = _MAKE_KEY[key_type]()
    certificate = _self_signed(key, common_name, not_before or datetime.now(UTC))
    return KeyPair(
        private_key_pem=key.private_bytes(
            Encoding.PEM,
            PrivateFormat.PKCS8,
            BestAvailableEncryption(passphrase) if passphrase else NoEncryption(),
        ),
        certificate_pem=certificate.public_bytes(Encoding.PEM),
        certificate_der=certificate.public_bytes(Encoding.DER),
    )


def _self_signed(key: PrivateKey, common_name: str, not_before: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_before + VALIDITY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(key_id, critical=False)
        .add_extension(authority, critical=False)
        .sign(key, None if mldsa.private_key_kind(key) else hashes.SHA256())
    )
