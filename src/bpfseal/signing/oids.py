"""The object identifiers that signed loaders meet, with the names that the kernel gives them.

Example:
    >>> digest_name("2.16.840.1.101.3.4.2.1"), algorithm_name("1.2.840.113549.1.1.10")
    ('sha256', 'rsa-pss')
    >>> name_of(bytes.fromhex("608648016503040201")), encode("2.5.4.3").hex()
    ('sha256', '550403')
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

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
"""The digests that a key of a loader can sign with."""

OTHER_DIGESTS = {
    "sm3": "1.2.156.10197.1.401",
    "streebog256": "1.2.643.7.1.1.2.2",
    "streebog512": "1.2.643.7.1.1.2.3",
}
"""The other digests that the kernel's parser knows (``pkcs7_sig_note_digest_algo``)."""

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

RSA_WITH = {
    "sha1": "1.2.840.113549.1.1.5",
    "sha224": "1.2.840.113549.1.1.14",
    "sha256": "1.2.840.113549.1.1.11",
    "sha384": "1.2.840.113549.1.1.12",
    "sha512": "1.2.840.113549.1.1.13",
    "sha3-256": "2.16.840.1.101.3.4.3.14",
    "sha3-384": "2.16.840.1.101.3.4.3.15",
    "sha3-512": "2.16.840.1.101.3.4.3.16",
}
"""What signs certificates with RSA and each digest (RFC 8017, appendix C)."""

GOST_KEYS = {"gost2012-256": "1.2.643.7.1.1.1.1", "gost2012-512": "1.2.643.7.1.1.1.2"}
"""Keys of GOST R 34.10-2012: ``ecrdsa`` in Linux."""

GOST_WITH = {"streebog256": "1.2.643.7.1.1.3.2", "streebog512": "1.2.643.7.1.1.3.3"}
"""What signs certificates with such a key."""

EC_PUBLIC_KEY = "1.2.840.10045.2.1"
"""id-ecPublicKey (RFC 5480, section 2.1.1)."""

CURVES = {
    "p192": "1.2.840.10045.3.1.1",
    "p256": "1.2.840.10045.3.1.7",
    "p384": "1.3.132.0.34",
    "p521": "1.3.132.0.35",
}
"""The curves that ``x509_extract_key_data`` knows (RFC 5480, section 2.1.1.1)."""

MLDSA = {
    "mldsa44": "2.16.840.1.101.3.4.3.17",
    "mldsa65": "2.16.840.1.101.3.4.3.18",
    "mldsa87": "2.16.840.1.101.3.4.3.19",
}
"""The algorithm of keys and signatures of each parameter set of ML-DSA (RFC 9881, RFC 9882)."""

ATTRIBUTES = {
    "contentType": "1.2.840.113549.1.9.3",
    "messageDigest": "1.2.840.113549.1.9.4",
    "signingTime": "1.2.840.113549.1.9.5",
    "smimeCapabilities": "1.2.840.113549.1.9.15",
    "msSpOpusInfo": "1.3.6.1.4.1.311.2.1.12",
    "msStatementType": "1.3.6.1.4.1.311.2.1.11",
}
"""The signed attributes that the kernel looks at (``pkcs7_sig_note_authenticated_attr``)."""

AUTHENTICODE_DATA = "1.3.6.1.4.1.311.2.1.4"
"""msIndirectData, the other type of content that the kernel's parser knows."""

EXTENSIONS = {
    "subjectKeyIdentifier": "2.5.29.14",
    "keyUsage": "2.5.29.15",
    "basicConstraints": "2.5.29.19",
    "authorityKeyIdentifier": "2.5.29.35",
}
"""The extensions that the kernel looks at (``x509_process_extension``)."""

_DIGEST_NAMES = {oid: name for name, oid in (DIGESTS | OTHER_DIGESTS).items()}
_ALGORITHM_NAMES = {
    RSA_ENCRYPTION: "rsa",
    RSASSA_PSS: "rsa-pss",
    **dict.fromkeys(ECDSA_WITH.values(), "ecdsa"),
    **dict.fromkeys(GOST_KEYS.values(), "ecrdsa"),
    **{oid: name for name, oid in MLDSA.items()},
}


def digest_name(oid: str) -> str:
    """Return the name of a digest, or the dotted OID itself where it has none here."""
    return _DIGEST_NAMES.get(oid, oid)


def algorithm_name(oid: str) -> str:
    """Return the name of a SignerInfo's signature algorithm, or the dotted OID itself."""
    return _ALGORITHM_NAMES.get(oid, oid)


def encode(dotted: str) -> bytes:
    """Return the contents of an OBJECT IDENTIFIER (X.690, section 8.19)."""
    first, second, *others = (int(arc) for arc in dotted.split("."))
    encoded = bytearray()
    for arc in (first * 40 + second, *others):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | arc & 0x7F)
        encoded += bytes(reversed(groups))
    return bytes(encoded)


def decode(contents: bytes) -> str:
    """Return the dotted form of the contents of an OBJECT IDENTIFIER, in whatever form they are."""
    arcs: list[int] = []
    arc = 0
    for byte in contents:
        arc = arc << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(arc)
            arc = 0
    if not arcs or contents[-1] & 0x80:
        return f"#{contents.hex()}"
    first = min(arcs[0] // 40, 2)
    return ".".join(str(each) for each in (first, arcs[0] - 40 * first, *arcs[1:]))


def _registry() -> Mapping[bytes, str]:
    """Return the identifiers that something is decided by, under one name each."""
    named = {
        "data": DATA,
        "signedData": SIGNED_DATA,
        "msIndirectData": AUTHENTICODE_DATA,
        "rsa": RSA_ENCRYPTION,
        "ec": EC_PUBLIC_KEY,
        **DIGESTS,
        **OTHER_DIGESTS,
        **{f"ecdsa-with-{digest}": oid for digest, oid in ECDSA_WITH.items()},
        **{f"rsa-with-{digest}": oid for digest, oid in RSA_WITH.items()},
        **GOST_KEYS,
        **{f"gost-with-{digest}": oid for digest, oid in GOST_WITH.items()},
        **CURVES,
        **MLDSA,
        **ATTRIBUTES,
        **EXTENSIONS,
    }
    return MappingProxyType({encode(oid): name for name, oid in named.items()})


_NAMES = _registry()


def name_of(contents: bytes) -> str:
    """Return the name of an identifier, or ``""`` for one that decides nothing.

    As ``look_up_OID`` does it (lib/oid_registry.c): the bytes must be the same. Identifiers that
    the kernel knows and makes nothing of are as good as unknown.
    """
    return _NAMES.get(contents, "")
