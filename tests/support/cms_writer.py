"""Write CMS messages in all the forms that kernels take, and many that they refuse.

`message` puts a message together from SignerInfos of every make; `Generator` makes any number of
them from a seed: several signers in any order, over several payloads, with odd digests, algorithms,
attributes, certificates, and lengths that only BER allows.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from bpfseal.signing import der, oids
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.public_key import HASHES

ODD_DIGESTS = {**oids.OTHER_DIGESTS, "md5": "1.2.840.113549.2.5"}
ODD_ALGORITHMS = {
    **oids.GOST_KEYS,
    **oids.MLDSA,
    "pss": oids.RSASSA_PSS,
    "sm2": "1.2.156.10197.1.501",
}
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Key:
    """A private key with its certificate."""

    private: Any = field(compare=False, repr=False)
    certificate: Certificate

    @property
    def algorithm(self) -> str:
        return self.certificate.algorithm


def certificate_for(
    public: Any, by: Any, subject: str, *, issuer: str = "", key_id: bytes | None = None
) -> Certificate:
    """Make a certificate, signed by the private key `by`."""
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    above = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer or subject)])
    own_id = x509.SubjectKeyIdentifier.from_public_key(public)
    if key_id is not None:
        own_id = x509.SubjectKeyIdentifier(key_id)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(above)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_BEGIN + timedelta(days=36500))
        .add_extension(own_id, critical=False)
    )
    if issuer:
        builder = builder.add_extension(authority, critical=False)
    made = builder.sign(by, hashes.SHA256())
    return Certificate.from_der(made.public_bytes(Encoding.DER))


@cache
def key(name: str, kind: str = "rsa", *, by: str = "") -> Key:
    """Return the one key of a name in a test run; `by` names the RSA key that issued it."""
    private: Any
    if kind == "rsa":
        private = rsa.generate_private_key(65537, 2048)
    else:
        private = ec.generate_private_key(ec.SECP256R1())
    signing = key(by).private if by else private
    return Key(private, certificate_for(private.public_key(), signing, name, issuer=by))


@cache
def sign(by: Key, digest: str, data: bytes) -> bytes:
    """Return the signature value over data."""
    algorithm = HASHES[digest]()
    how = (padding.PKCS1v15(), algorithm) if by.algorithm == "rsa" else (ec.ECDSA(algorithm),)
    value: bytes = by.private.sign(data, *how)
    return value


def signer_info(
    by: Key,
    data: bytes,
    *,
    digest: str = "sha256",
    digest_oid: str = "",
    algorithm_oid: str = "",
    parameters: bytes = b"",
    value: bytes | None = None,
    attributes: Sequence[bytes] | None = None,
    is_by_name: bool = False,
) -> bytes:
    """Return a SignerInfo over data, or over attributes.

    Args:
        by: who signs.
        data: what the signature covers.
        digest: the digest that is used.
        digest_oid: the digest that is named, where it is another one.
        algorithm_oid: the signature algorithm that is named, where it is another one.
        parameters: the parameters of the digest's algorithm.
        value: the signature value, where it is no good one.
        attributes: signed attributes, which the signature then covers.
        is_by_name: it names the certificate by issuer and serial number, in version 1.
    """
    parsed = by.certificate.parsed
    if is_by_name:
        sid = der.sequence(der.sequence(parsed.issuer), der.element(0x02, parsed.serial))
    else:
        sid = der.element(0x80, by.certificate.require_subject_key_id())
    covered = data if attributes is None else der.element(0x31, *attributes)
    usual = oids.RSA_ENCRYPTION if by.algorithm == "rsa" else oids.ECDSA_WITH[digest]
    null = der.NULL if by.algorithm == "rsa" else b""
    return der.sequence(
        der.integer(1 if is_by_name else 3),
        sid,
        der.sequence(der.oid(digest_oid or oids.DIGESTS[digest]), parameters),
        b"" if attributes is None else der.explicit(0, *attributes),
        der.sequence(der.oid(algorithm_oid or usual), null),
        der.octets(sign(by, digest, covered) if value is None else value),
    )


def signed_attributes(data: bytes, digest: str = "sha256", *extra: bytes) -> list[bytes]:
    """Return the attributes that say what data is."""
    name = digest.replace("sha3-", "sha3_")
    return [
        attribute("contentType", der.oid(oids.DATA)),
        attribute("messageDigest", der.octets(hashlib.new(name, data).digest())),
        *extra,
    ]


def attribute(kind: str, *values: bytes) -> bytes:
    return der.sequence(der.oid(oids.ATTRIBUTES[kind]), der.element(0x31, *values))


def message(
    *infos: bytes,
    version: int = 3,
    digests: Sequence[str] = ("sha256",),
    certificates: Sequence[bytes] = (),
) -> bytes:
    """Return a message of these SignerInfos, in this order."""
    algorithms = (der.sequence(der.oid(oids.DIGESTS[name])) for name in digests)
    enclosed = der.explicit(0, *certificates) if certificates else b""
    signed_data = der.sequence(
        der.integer(version),
        der.element(0x31, *algorithms),
        der.sequence(der.oid(oids.DATA)),
        enclosed,
        der.element(0x31, *infos),
    )
    return der.sequence(der.oid(oids.SIGNED_DATA), der.explicit(0, signed_data))


def in_ber(data: bytes, chance: random.Random, share: float) -> bytes:
    """Write the outer elements of a message with lengths that only BER allows.

    Args:
        data: one element, or several, in DER.
        chance: what decides.
        share: how many of the elements are changed, from 0 to 1.
    """
    written, at = b"", 0
    while at < len(data):
        tag, size, start = data[at], data[at + 1], at + 2
        if size >= 0x80:
            start += size & 0x7F
            size = int.from_bytes(data[at + 2 : start], "big")
        contents = data[start : start + size]
        if tag & 0x20:
            contents = in_ber(contents, chance, share)
        written += _element(tag, contents, chance if chance.random() < share else None)
        at = start + size
    return written


def _element(tag: int, contents: bytes, chance: random.Random | None) -> bytes:
    if chance is None:
        return der.element(tag, contents)
    size = len(contents)
    forms = ["82"] + ["81"] * (size < 256) + ["80"] * bool(tag & 0x20)
    form = chance.choice(forms)
    if form == "80":
        return bytes([tag, 0x80]) + contents + b"\0\0"
    return bytes([tag]) + bytes.fromhex(form) + size.to_bytes(int(form[1]), "big") + contents


@dataclass(slots=True)
class Generator:
    """Makes messages from a seed.

    Attributes:
        trusted: the keys that a kernel may have.
        others: keys that nobody has.
        payloads: what signatures may be over, by name.
        seed: the seed.
    """

    trusted: Sequence[Key]
    others: Sequence[Key]
    payloads: Mapping[str, bytes]
    seed: int
    _chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)  # noqa: S311 - not for keys

    def message(self) -> bytes:
        """Return the next message."""
        chance = self._chance
        is_by_name = chance.random() < 0.3
        has_attributes = chance.random() < 0.12
        infos = [
            self._info(is_by_name=is_by_name, has_attributes=has_attributes)
            for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4)))
        ]
        made = message(
            *infos,
            version=1 if is_by_name else 3,
            digests=chance.choice((*(tuple(oids.DIGESTS),) * 4, ("sha256",), ("sha256", "sha384"))),
            certificates=self._certificates(),
        )
        if chance.random() < 0.3:
            made = in_ber(made, chance, chance.choice((0.05, 0.3, 1.0)))
        if chance.random() < 0.1:
            made += bytes(chance.randrange(1, 20))
        if chance.random() < 0.05:
            at = chance.randrange(len(made))
            made = made[:at] + bytes([made[at] ^ 1 << chance.randrange(8)]) + made[at + 1 :]
        return made

    def _certificates(self) -> list[bytes]:
        if self._chance.random() < 0.6:
            return []
        keys = [*self.trusted, *self.others]
        return [
            each.certificate.der for each in self._chance.sample(keys, self._chance.randrange(4))
        ]

    def _info(self, *, is_by_name: bool, has_attributes: bool) -> bytes:
        chance = self._chance
        by = chance.choice((*self.trusted, *self.trusted, *self.others))
        names = list(self.payloads)
        data = self.payloads[chance.choices(names, range(2 * len(names), 0, -2))[0]]
        digest = chance.choice(
            ("sha256",) * 6 + ("sha1", "sha384", "sha512", "sha3-256", "sha3-512")
        )
        given: dict[str, Any] = {}
        oddity = chance.random()
        if oddity < 0.12:
            given["digest_oid"] = chance.choice(list(ODD_DIGESTS.values()))
        elif oddity < 0.22:
            given["algorithm_oid"] = chance.choice(list(ODD_ALGORITHMS.values()))
        elif oddity < 0.3:
            given["value"] = chance.randbytes(256)
        elif oddity < 0.36:
            given["parameters"] = chance.choice((der.NULL, der.octets(b"x"), der.sequence()))
        if has_attributes:
            extra = [attribute("smimeCapabilities", der.sequence())] * (chance.random() < 0.1)
            given["attributes"] = signed_attributes(data, digest, *extra)
        return signer_info(by, data, digest=digest, is_by_name=is_by_name, **given)
