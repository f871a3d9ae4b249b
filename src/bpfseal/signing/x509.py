"""X.509 certificates as kernels read them, with their errnos.

Follows ``x509_cert_parse`` (crypto/asymmetric_keys/x509_cert_parser.c), ``x509_get_sig_params`` and
``x509_check_for_self_signed`` (x509_public_key.c). A kernel that takes a certificate of its own
issuer has checked its signature; it looks at neither the validity period nor, for a key that
somebody adds to a keyring, keyUsage.

Example::

    certificate = parse(der, RELEASES["7.3"].crypto())
    certificate.names_key, certificate.key.algorithm
"""

from __future__ import annotations

import errno
import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from bpfseal.errors import CapabilityError
from bpfseal.release import KernelCrypto
from bpfseal.signing import ber, grammar, mldsa, oids, public_key
from bpfseal.signing.ber import RefusedError
from bpfseal.signing.public_key import NO_DIGEST, PublicKey, SignatureValue

_DAYS: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FEBRUARY: Final = 2
_EPOCH_YEAR: Final = 1970
_MIN_KEY_ID: Final = 3
_MIN_KEY_USAGE: Final = 4
_MIN_EC_PARAMETERS: Final = 3
_BYTE_BITS: Final = 8
_DIGITAL_SIGNATURE: Final = 0x80
_EMPTY_CONSTRAINTS: Final = b"\x30\0"
_IS_AUTHORITY: Final = b"\1\1\xff"


@dataclass(frozen=True, slots=True)
class ParsedCertificate:
    """A certificate that a kernel takes.

    Attributes:
        der: its bytes.
        names_key: serial number and issuer, one after the other: a key's first name (``id``).
        key_id: the subjectKeyIdentifier: its second name (``skid``), or None.
        authority: serial number and issuer of the key that issued it, or None (``auth_ids[0]``).
        authority_key_id: the authorityKeyIdentifier, or None (``auth_ids[1]``).
        serial: the contents of the serial number.
        issuer: the contents of the issuer's Name.
        subject: the contents of the subject's Name.
        key: the public key.
        signature: the signature; without a message where the kernel lacks the digest.
        not_before: begin of the validity period in seconds since 1970.
        not_after: its end.
        is_self_signed: its own key has signed it, which was verified.
        has_unsupported_signature: the kernel cannot verify its signature.
        has_key_usage: it has the extension keyUsage.
        has_digital_signature: and that says digitalSignature.
    """

    der: bytes = field(repr=False)
    names_key: bytes
    key_id: bytes | None
    authority: bytes | None
    authority_key_id: bytes | None
    serial: bytes
    issuer: bytes
    subject: bytes
    key: PublicKey
    signature: SignatureValue
    not_before: int
    not_after: int
    is_self_signed: bool
    has_unsupported_signature: bool
    has_key_usage: bool
    has_digital_signature: bool

    def is_named(self, name: bytes) -> bool:
        """Tell whether a name is one of the two that this certificate's key has.

        As a search in a keyring compares (``asymmetric_match_key_ids``).
        """
        return name in (self.names_key, self.key_id)


def parse(der: bytes, crypto: KernelCrypto) -> ParsedCertificate:
    """Read a certificate as a kernel does.

    Args:
        der: the certificate, in BER; bytes behind it do not matter.
        crypto: what the kernel can compute.

    Raises:
        RefusedError: the kernel refuses it.
    """
    found = _parse(der, crypto)
    if isinstance(found, tuple):
        raise RefusedError(*found)
    return found


@lru_cache(maxsize=512)
def _parse(der: bytes, crypto: KernelCrypto) -> ParsedCertificate | tuple[int, str]:
    try:
        return _Reader(crypto).read(der)
    except RefusedError as refused:
        return refused.errno, refused.reason


class _Reader:
    """Collects what ``x509_cert_parse`` keeps."""

    def __init__(self, crypto: KernelCrypto) -> None:
        self._crypto = crypto
        self._oid = self._signature_oid = ""
        self._serial = self._issuer = self._value = self._signed = b""
        self._subject: bytes | None = None
        self._parameters = b""
        self._key: PublicKey | None = None
        self._not_before = self._not_after = 0
        self._key_id: bytes | None = None
        self._authority_extension: bytes | None = None
        self._authority: bytes | None = None
        self._authority_key_id: bytes | None = None
        self._authority_issuer: bytes | None = None
        self._has_key_usage = self._has_digital_signature = False

    def read(self, der: bytes) -> ParsedCertificate:
        ber.walk(grammar.X509, der, self)
        if self._authority_extension is not None:
            ber.walk(grammar.AUTHORITY_KEY_ID, self._authority_extension, self)
        key, subject = self._key, self._subject
        if key is None or subject is None:  # the grammar has both
            raise RefusedError(errno.EBADMSG, "certificate without a key")
        signature, unsupported = self._signature()
        is_self_signed = False
        if self._says_self_signed(subject) and not unsupported:
            try:
                public_key.verify(key, signature, self._crypto.algorithms)
                is_self_signed = True
            except CapabilityError:
                # This installation is like a kernel that cannot check the signature.
                unsupported = True
            except RefusedError as refused:
                if refused.errno != errno.ENOPKG:
                    reason = f"its own signature does not match: {refused.reason}"
                    raise RefusedError(refused.errno, reason) from refused
                unsupported = True
        return ParsedCertificate(
            der=der,
            names_key=self._serial + self._issuer,
            key_id=self._key_id,
            authority=self._authority,
            authority_key_id=self._authority_key_id,
            serial=self._serial,
            issuer=self._issuer,
            subject=subject,
            key=key,
            signature=signature,
            not_before=self._not_before,
            not_after=self._not_after,
            is_self_signed=is_self_signed,
            has_unsupported_signature=unsupported,
            has_key_usage=self._has_key_usage,
            has_digital_signature=self._has_digital_signature,
        )

    def _signature(self) -> tuple[SignatureValue, bool]:
        """Return the signature, and whether the kernel lacks its digest."""
        algorithm, _, digest = self._signature_oid.partition("-with-")
        if algorithm in mldsa.KINDS:
            return SignatureValue(algorithm, NO_DIGEST, self._value, self._signed), False
        algorithm = "ecrdsa" if algorithm == "gost" else algorithm
        if not self._crypto.has_digest(digest):
            return SignatureValue(algorithm, digest, self._value, b""), True
        hashed = hashlib.new(digest.replace("sha3-", "sha3_"), self._signed).digest()
        return SignatureValue(algorithm, digest, self._value, hashed), False

    def _says_self_signed(self, subject: bytes) -> bool:
        """Compare issuer and subject, and what the authority's names say."""
        if subject != self._issuer:
            return False
        if self._authority is None and self._authority_key_id is None:
            return True
        by_key_id = self._key_id is not None and self._key_id == self._authority_key_id
        by_name = self._authority == self._serial + self._issuer
        if not by_key_id and not by_name:
            return False
        has_both = self._authority is not None and self._authority_key_id is not None
        if by_key_id != by_name and has_both:
            raise RefusedError(
                errno.EKEYREJECTED, "the names of the certificate's issuer contradict each other"
            )
        return True

    # Actions of the grammar, each named after its element.

    def note_oid(self, item: ber.Item) -> None:
        self._oid = oids.name_of(item.value)

    def to_be_signed(self, item: ber.Item) -> None:
        self._signed = item.encoded

    def serial(self, item: ber.Item) -> None:
        self._serial = item.value

    def signature_algorithm(self, _item: ber.Item) -> None:
        """``x509_note_sig_algo``."""
        algorithm = self._oid.partition("-with-")[0]
        if algorithm not in self._crypto.named and algorithm != "gost":
            raise RefusedError(errno.ENOPKG, "certificate signed in a way that kernels do not know")
        if "-with-" not in self._oid and algorithm not in mldsa.KINDS:
            raise RefusedError(errno.ENOPKG, "certificate signed in a way that kernels do not know")
        self._signature_oid = self._oid

    def signature(self, item: ber.Item) -> None:
        """``x509_note_signature``."""
        if self._oid != self._signature_oid:
            raise RefusedError(errno.EINVAL, "the certificate's two signature algorithms differ")
        self._value = _bits(item)

    def issuer(self, item: ber.Item) -> None:
        self._issuer = item.value

    def subject(self, item: ber.Item) -> None:
        self._subject = item.value

    def parameters(self, item: ber.Item) -> None:
        """``x509_note_params``: the AlgorithmIdentifier between subject and key counts."""
        if self._subject is not None and self._key is None:
            self._parameters = item.encoded

    def public_key(self, item: ber.Item) -> None:
        """``x509_extract_key_data``."""
        if self._oid == "rsa":
            algorithm = "rsa"
        elif self._oid in oids.GOST_KEYS:
            algorithm = "ecrdsa"
        elif self._oid == "ec":
            algorithm = f"ecdsa-nist-{self._curve()}"
        elif self._oid in mldsa.KINDS and self._oid in self._crypto.named:
            algorithm = self._oid
        else:
            raise RefusedError(errno.ENOPKG, "a key of a kind that kernels do not know")
        self._key = PublicKey(algorithm, _bits(item))

    def _curve(self) -> str:
        parameters = self._parameters
        if (
            len(parameters) < _MIN_EC_PARAMETERS
            or parameters[0] != grammar.OID
            or parameters[1] != len(parameters) - 2
        ):
            raise RefusedError(errno.EBADMSG, "EC key whose curve has no name")
        curve = oids.name_of(parameters[2:])
        if curve not in oids.CURVES:
            raise RefusedError(errno.ENOPKG, "EC key on a curve that kernels do not know")
        return curve

    def not_before(self, item: ber.Item) -> None:
        self._not_before = decode_time(item)

    def not_after(self, item: ber.Item) -> None:
        self._not_after = decode_time(item)

    def extension(self, item: ber.Item) -> None:
        """``x509_process_extension``."""
        value = item.value
        if self._oid == "subjectKeyIdentifier":
            if self._key_id is not None or len(value) < _MIN_KEY_ID:
                raise RefusedError(errno.EBADMSG, "bad or second subjectKeyIdentifier")
            if value[0] != grammar.OCTET_STRING or value[1] != len(value) - 2:
                raise RefusedError(errno.EBADMSG, "bad subjectKeyIdentifier")
            self._key_id = value[2:]
        elif self._oid == "keyUsage":
            is_bits = value[:1] == bytes([grammar.BIT_STRING])
            if not is_bits or len(value) < _MIN_KEY_USAGE or value[2] >= _BYTE_BITS:
                raise RefusedError(errno.EBADMSG, "bad keyUsage")
            self._has_key_usage = True
            self._has_digital_signature = bool(value[3] & _DIGITAL_SIGNATURE)
        elif self._oid == "authorityKeyIdentifier":
            self._authority_extension = value
        elif self._oid == "basicConstraints":
            is_sequence = value[:1] == bytes([grammar.SEQUENCE])
            if not is_sequence or len(value) < len(_EMPTY_CONSTRAINTS):
                raise RefusedError(errno.EBADMSG, "bad basicConstraints")
            if value[1] != len(value) - 2:
                raise RefusedError(errno.EBADMSG, "bad basicConstraints")
            if value != _EMPTY_CONSTRAINTS and not value[2:].startswith(_IS_AUTHORITY):
                raise RefusedError(errno.EBADMSG, "basicConstraints that is not in DER")

    def authority_key_id(self, item: ber.Item) -> None:
        self._authority_key_id = item.value

    def authority_name(self, item: ber.Item) -> None:
        self._authority_issuer = item.value

    def authority_serial(self, item: ber.Item) -> None:
        if self._authority_issuer is not None:
            self._authority = item.value + self._authority_issuer


def _bits(item: ber.Item) -> bytes:
    """Return the contents of a BIT STRING, which must be whole bytes."""
    if item.value[:1] != b"\0":
        raise RefusedError(errno.EBADMSG, "bit string that is not whole bytes")
    return item.value[1:]


def decode_time(item: ber.Item) -> int:
    """Return a time as seconds since 1970 (``x509_decode_time``).

    Raises:
        RefusedError: ``EBADMSG`` for another form than ``YYMMDDHHMMSSZ``, or for years outside of
            1950 to 2049 ``YYYYMMDDHHMMSSZ``, and for a time that does not exist. Midnight may be
            24:00, and a minute has 61 seconds.
    """
    value = item.value
    digits = {grammar.UTC_TIME: 12, grammar.GENERALIZED_TIME: 14}.get(item.tag, -1)
    is_decimal = value[:-1].isdigit() and value.isascii()
    if len(value) != digits + 1 or not is_decimal or value[-1:] != b"Z":
        raise RefusedError(errno.EBADMSG, "time in another form than kernels read")
    text = value[:-1].decode()
    year = int(text[:-10])
    if item.tag == grammar.UTC_TIME:
        year += 1900 if year >= 50 else 2000  # RFC 5280, section 4.1.2.5.1
    elif 1950 <= year <= 2049:  # RFC 5280, section 4.1.2.5
        raise RefusedError(errno.EBADMSG, "GeneralizedTime of a year before 2050")
    rest = text[-10:]
    month, day, hour, minute, second = (int(rest[at : at + 2]) for at in range(0, 10, 2))
    if year < _EPOCH_YEAR or not 1 <= month <= len(_DAYS):
        raise RefusedError(errno.EBADMSG, "time that does not exist")
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days = _DAYS[month - 1] + (is_leap and month == _FEBRUARY)
    if not 1 <= day <= days or hour > 24 or minute > 59 or second > 60:
        raise RefusedError(errno.EBADMSG, "time that does not exist")
    return _seconds(year, month, day, hour, minute, second)


def _seconds(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int:
    """``mktime64``: also for the hour 24 and the second 60."""
    years = year - 1
    days = years * 365 + years // 4 - years // 100 + years // 400
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days += sum(_DAYS[: month - 1]) + (is_leap and month > _FEBRUARY) + day
    return ((days - 719163) * 24 + hour) * 3600 + minute * 60 + second
