"""PKCS #7 messages as kernels read them, with their errnos.

Follows ``pkcs7_parse_message`` (crypto/asymmetric_keys/pkcs7_parser.c). What a signature's parts
mean is decided while they are read, so that a SignerInfo which lacks the name that its version asks
for bears the one that was read last, in an earlier SignerInfo or nowhere.

Example::

    message = parse(cms, RELEASES["7.3"].crypto())
    [info.name.hex() for info in message.signer_infos]
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from bpfseal.release import KernelCrypto
from bpfseal.signing import ber, der, grammar, mldsa, oids, x509
from bpfseal.signing.ber import RefusedError
from bpfseal.signing.x509 import ParsedCertificate

_SET: Final = bytes([grammar.SET])
_BY_ISSUER: Final = 1
_BY_KEY_ID: Final = 3
_VERSIONS: Final = (_BY_ISSUER, _BY_KEY_ID)
_INDEFINITE: Final = 0x80


@dataclass(frozen=True, slots=True)
class SignerInfo:
    """One signature of a message.

    Attributes:
        version: 1 or 3.
        key_id: the subjectKeyIdentifier that names the signer's key in version 3, else empty.
        serial: the serial number of the signer's certificate in version 1, else empty.
        issuer: the contents of the Name of its issuer in version 1, else empty.
        digest: the digest's name (`bpfseal.signing.oids.DIGESTS` and ``OTHER_DIGESTS``).
        algorithm: ``"rsa"``, ``"ecdsa"``, ``"ecrdsa"`` or one of `bpfseal.signing.mldsa.KINDS`.
        algorithm_name: the algorithm as the message calls it, for example ``ecdsa-with-sha256``.
        value: the signature value.
        attributes: the signed attributes as they are hashed, or None without any.
        message_digest: the digest that the signed attributes hold.
        signing_time: seconds since 1970 in a signed attribute, or None.
    """

    version: int
    key_id: bytes
    serial: bytes
    issuer: bytes
    digest: str
    algorithm: str
    algorithm_name: str
    value: bytes = field(repr=False)
    attributes: bytes | None = field(repr=False)
    message_digest: bytes | None
    signing_time: int | None

    @property
    def name(self) -> bytes:
        """The name of the signer's key: the key id, or serial number and issuer together."""
        return self.key_id if self.version == _BY_KEY_ID else self.serial + self.issuer

    @property
    def takes_data(self) -> bool:
        """The algorithm signs the message itself, not a digest of it (``algo_takes_data``)."""
        return self.algorithm in mldsa.KINDS


@dataclass(frozen=True, slots=True)
class ParsedMessage:
    """A message that a kernel can read.

    Attributes:
        version: 1 or 3.
        digests: the digests that the message announces, by name; ``""`` for an unknown one.
        content_type: ``"data"`` or ``"msIndirectData"``.
        has_content: the content is embedded.
        certificates: the embedded certificates.
        signer_infos: the signatures; at least one.
        has_standard_tags: no tag is another one than RFC 5652 has, though kernels take it.
        has_parameters: some algorithm has parameters other than NULL, which kernels overlook.
        size: bytes of the message; what stands behind them does not matter.
    """

    version: int
    digests: tuple[str, ...]
    content_type: str
    has_content: bool
    certificates: tuple[ParsedCertificate, ...]
    signer_infos: tuple[SignerInfo, ...]
    has_standard_tags: bool
    has_parameters: bool
    size: int


def parse(cms: bytes, crypto: KernelCrypto) -> ParsedMessage:
    """Read a message as a kernel does.

    Args:
        cms: the message.
        crypto: what the kernel can compute; embedded certificates are checked.

    Raises:
        RefusedError: the kernel refuses it.
    """
    found = _parse(cms, crypto)
    if isinstance(found, tuple):
        number, reason, hint = found
        raise RefusedError(number, reason, hint=hint)
    return found


@lru_cache(maxsize=128)
def _parse(cms: bytes, crypto: KernelCrypto) -> ParsedMessage | tuple[int, str, str]:
    reader = _Reader(crypto)
    try:
        has_standard_tags = ber.walk(grammar.PKCS7, cms, reader)
        return reader.message(ber.end_of(cms), has_standard_tags=has_standard_tags)
    except RefusedError as refused:
        return refused.errno, refused.reason, refused.hint


class _Reader:
    """Collects what ``pkcs7_parse_message`` keeps."""

    def __init__(self, crypto: KernelCrypto) -> None:
        self._crypto = crypto
        self._oid = ""
        self._version = 0
        self._digests: list[str] = []
        self._content_type = ""
        self._has_content = self._has_parameters = False
        self._read_certificates: list[ParsedCertificate] = []
        self._certificates: tuple[ParsedCertificate, ...] = ()
        self._infos: list[SignerInfo] = []
        # The names that were read last stay from one SignerInfo to the next.
        self._serial = self._issuer = self._key_id = b""
        self._expects_key_id = False
        self._start_info()

    def _start_info(self) -> None:
        self._digest = self._algorithm = self._algorithm_name = ""
        self._value = b""
        self._attributes: bytes | None = None
        self._message_digest: bytes | None = None
        self._signing_time: int | None = None
        self._seen: set[str] = set()

    def message(self, size: int, *, has_standard_tags: bool) -> ParsedMessage:
        """Return what was read (``pkcs7_check_authattrs``)."""
        if not self._infos:
            raise RefusedError(errno.EINVAL, "the message holds no signature")
        if len({info.attributes is None for info in self._infos}) > 1:
            raise RefusedError(
                errno.EINVAL, "some of the signatures have signed attributes, some none"
            )
        return ParsedMessage(
            version=self._version,
            digests=tuple(self._digests),
            content_type=self._content_type,
            has_content=self._has_content,
            certificates=self._certificates,
            signer_infos=tuple(self._infos),
            has_standard_tags=has_standard_tags,
            has_parameters=self._has_parameters,
            size=size,
        )

    # Actions of the grammar, each named after its element.

    def note_oid(self, item: ber.Item) -> None:
        self._oid = oids.name_of(item.value)
        if self._version and not self._content_type:
            self._digests.append(self._oid)

    def message_type(self, _item: ber.Item) -> None:
        """``pkcs7_check_content_type``."""
        if self._oid != "signedData":
            raise RefusedError(errno.EINVAL, "CMS message that is not SignedData")

    def version(self, item: ber.Item) -> None:
        """``pkcs7_note_signeddata_version``."""
        if item.size != 1 or item.value[0] not in _VERSIONS:
            raise RefusedError(errno.EINVAL, f"SignedData of version {_number(item)}, not 1 or 3")
        self._version = item.value[0]

    def content(self, _item: ber.Item) -> None:
        self._has_content = True

    def content_type(self, _item: ber.Item) -> None:
        """``pkcs7_note_content``."""
        if self._oid not in ("data", "msIndirectData"):
            raise RefusedError(errno.EINVAL, "content of another type than id-data")
        self._content_type = self._oid
        self._digests.pop()  # the type itself

    def certificate(self, item: ber.Item) -> None:
        """``pkcs7_extract_cert``: one of the certificates, or a piece of a revocation list."""
        if item.tag != grammar.SEQUENCE:
            raise RefusedError(errno.EBADMSG, "something else than a certificate among them")
        start = item.start - item.header
        size = item.header + item.size
        if item.data[start + 1] == _INDEFINITE:
            size += 2
        try:
            parsed = x509.parse(item.data[start : start + size], self._crypto)
        except RefusedError as refused:
            reason = f"embedded certificate: {refused.reason}"
            raise RefusedError(refused.errno, reason) from refused
        self._read_certificates.append(parsed)

    def certificate_list(self, _item: ber.Item) -> None:
        """``pkcs7_note_certificate_list``: what comes later, among revocation lists, is dropped."""
        self._certificates = tuple(self._read_certificates)

    def signer_version(self, item: ber.Item) -> None:
        """``pkcs7_note_signerinfo_version``."""
        if item.size != 1 or item.value[0] not in _VERSIONS:
            raise RefusedError(errno.EINVAL, f"SignerInfo of version {_number(item)}, not 1 or 3")
        version = item.value[0]
        if version != self._version:
            raise RefusedError(
                errno.EBADMSG,
                f"SignerInfo of version {version} in a SignedData of {self._version}",
            )
        self._expects_key_id = version == _BY_KEY_ID

    def issuer(self, item: ber.Item) -> None:
        self._issuer = item.value

    def serial(self, item: ber.Item) -> None:
        self._serial = item.value

    def key_id(self, item: ber.Item) -> None:
        self._key_id = item.value

    def digest_algorithm(self, _item: ber.Item) -> None:
        """``pkcs7_sig_note_digest_algo``."""
        if self._oid not in oids.DIGESTS and self._oid not in oids.OTHER_DIGESTS:
            raise RefusedError(errno.ENOPKG, "a digest that kernels do not know")
        self._digest = self._oid

    def signature_algorithm(self, _item: ber.Item) -> None:
        """``pkcs7_sig_note_pkey_algo``."""
        name, _, digest = self._oid.partition("-with-")
        if digest and name != "ecdsa":
            name = ""
        algorithm = "ecrdsa" if name in oids.GOST_KEYS else name
        if algorithm not in self._crypto.named:
            raise RefusedError(
                errno.ENOPKG,
                _unknown(algorithm),
                hint="sign with RSA PKCS#1 v1.5 or ECDSA",
            )
        self._algorithm, self._algorithm_name = algorithm, self._oid

    def parameters(self, item: ber.Item) -> None:
        if item.encoded != der.NULL:
            self._has_parameters = True

    def signed_attribute(self, item: ber.Item) -> None:
        """``pkcs7_sig_note_authenticated_attr``."""
        kind = self._oid
        if kind not in oids.ATTRIBUTES:
            return
        if kind in self._seen:
            raise RefusedError(errno.EKEYREJECTED, f"signed attribute {kind} with two values")
        self._seen.add(kind)
        if kind == "contentType":
            if oids.name_of(item.value) != self._content_type:
                raise RefusedError(
                    errno.EBADMSG, "the signed attributes are of another content type"
                )
        elif kind == "signingTime":
            self._signing_time = x509.decode_time(item)
        elif kind == "messageDigest":
            if item.tag != grammar.OCTET_STRING:
                raise RefusedError(errno.EBADMSG, "messageDigest that is no OCTET STRING")
            self._message_digest = item.value
        elif self._content_type != "msIndirectData":
            raise RefusedError(
                errno.EKEYREJECTED,
                f"signed attribute {kind}, which is for Authenticode only",
                hint="sign without it (openssl cms: -nosmimecap or -noattr)",
            )

    def signed_attributes(self, item: ber.Item) -> None:
        """``pkcs7_sig_note_set_of_authattrs``."""
        if not {"contentType", "messageDigest"} <= self._seen:
            raise RefusedError(
                errno.EBADMSG, "signed attributes without contentType or messageDigest"
            )
        # The tag is hashed as that of a SET, the length as it stands there.
        self._attributes = _SET + item.encoded[1:]

    def signature(self, item: ber.Item) -> None:
        self._value = item.value

    def signer_info(self, _item: ber.Item) -> None:
        """``pkcs7_note_signed_info``."""
        if self._content_type == "msIndirectData" and self._attributes is None:
            raise RefusedError(errno.EBADMSG, "Authenticode without signed attributes")
        self._infos.append(
            SignerInfo(
                version=self._version,
                key_id=self._key_id if self._expects_key_id else b"",
                serial=b"" if self._expects_key_id else self._serial,
                issuer=b"" if self._expects_key_id else self._issuer,
                digest=self._digest,
                algorithm=self._algorithm,
                algorithm_name=self._algorithm_name,
                value=self._value,
                attributes=self._attributes,
                message_digest=self._message_digest,
                signing_time=self._signing_time,
            )
        )
        self._start_info()


def _number(item: ber.Item) -> str:
    return str(int.from_bytes(item.value, "big")) if item.size <= 4 else "unknown"


def _unknown(algorithm: str) -> str:
    if algorithm in mldsa.KINDS:
        return "the kernel does not know signatures with ML-DSA"
    return "signature with an algorithm that kernels do not know"
