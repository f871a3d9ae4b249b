"""The object identifiers that signed loaders meet, with the names that the kernel gives them.

Example:
    >>> digest_name("2.16.840.1.101.3.4.2.1"), algorithm_name("1.2.840.113549.1.1.10")
    ('sha256', 'rsa-pss')
"""

from __future__ import annotations

DATA = "1.2.840.113549.1.7.1"
"""id-data (RFC 5652, section 4)."""

SIGNED_DATA = "1.2.840.113549.1.7.2"
"""id-signedData (RFC 5652, section 5.1)."""

RSA_ENCRYPTION = "1.2.840.113549.1.1.1"
"""rsaEncryption: RSASSA-PKCS1-v1_5 when it is a SignerInfo's algorithm (RFC 3370, section 3.2)."""

RSASSA_PSS = "1.2.840.113549.1.1.10"
"""id-RSASSA-PSS (RFC 4056)."""

DIGESTS = {
    "sha1": "1.3.14.3.2.26",
    "sha224": "2.16.840.1.101.3.4.2.4",
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3",
    "sha3-256": "2.16.840.1.101.3.4.2.8",
    "sha3-384": "2.16.840.1.101.3.4.2.9",
    "sha3-512": "2.16.840.1.101.3.4.2.10",
}
"""The digests that the kernel's parser knows (``pkcs7_sig_note_digest_algo``)."""

ECDSA_WITH = {
    "sha1": "1.2.840.10045.4.1",
    "sha224": "1.2.840.10045.4.3.1",
    "sha256": "1.2.840.10045.4.3.2",
    "sha384": "1.2.840.10045.4.3.3",
    "sha512": "1.2.840.10045.4.3.4",
    "sha3-256": "2.16.840.1.101.3.4.3.10",
    "sha3-384": "2.16.840.1.101.3.4.3.11",
    "sha3-512": "2.16.840.1.101.3.4.3.12",
}
"""The ECDSA signature algorithm of each digest (RFC 5758, section 3.2)."""

MLDSA = {
    "mldsa44": "2.16.840.1.101.3.4.3.17",
    "mldsa65": "2.16.840.1.101.3.4.3.18",
    "mldsa87": "2.16.840.1.101.3.4.3.19",
}
"""The algorithm of keys and signatures of each parameter set of ML-DSA (RFC 9881, RFC 9882)."""

_DIGEST_NAMES = {oid: name for name, oid in DIGESTS.items()}
_ALGORITHM_NAMES = {
    RSA_ENCRYPTION: "rsa",
    RSASSA_PSS: "rsa-pss",
    **dict.fromkeys(ECDSA_WITH.values(), "ecdsa"),
    **{oid: name for name, oid in MLDSA.items()},
}


def digest_name(oid: str) -> str:
    """Return the name of a digest, or the dotted OID itself where it has none here."""
    return _DIGEST_NAMES.get(oid, oid)


def algorithm_name(oid: str) -> str:
    """Return the name of a SignerInfo's signature algorithm, or the dotted OID itself."""
    return _ALGORITHM_NAMES.get(oid, oid)
