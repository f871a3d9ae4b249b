"""X.509 certificates, as a kernel's keyring sees them.

A kernel names a key by the certificate's subjectKeyIdentifier or by its issuer and serial number
(``crypto/asymmetric_keys/x509_public_key.c``, ``x509_key_preparse``), uses the public key, and
ignores the validity period and most of the rest. `Certificate` holds exactly what is used;
`Certificate.problems` reports what a careful person would not overlook.

Example::

    certificate = Certificate.from_pem_or_der(Path("signing_cert.pem").read_bytes())
    certificate.key_type, certificate.problems()  # ("rsa2048", ())
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bpfseal.errors import InputError, VerificationError
from bpfseal.signing import mldsa, oids
from bpfseal.signing.certificate_file import MAX_SIZE

MIN_RSA_BITS = 2048
"""RSA keys below this are reported as weak."""

HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
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

_CURVES = {"secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}

_PARSE_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the parser raises for certificates that it does not accept."""


@dataclass(frozen=True, slots=True)
class KeyId:
    """How a certificate or a SignerInfo names a key: by key id, by issuer and serial, or not.

    Attributes:
        key_id: the subjectKeyIdentifier, or None.
        issuer: DER of the Name of the issuer, or None.
        serial: the serial number, or None.
    """

    key_id: bytes | None = None
    issuer: bytes | None = None
    serial: int | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """An X.509 certificate; two are equal when their bytes are.

    Attributes:
        der: the certificate's bytes.
        subject: the subject as text (RFC 4514), for example ``CN=loader signing``.
        issuer_der: DER of the issuer's Name.
        serial: the serial number.
        subject_key_id: the value of the subjectKeyIdentifier extension, or None.
        authority: how the certificate's authorityKeyIdentifier names the key that issued it.
        key_type: ``"rsa2048"``, ``"p256"``, ``"mldsa65"``, ...; the dotted OID of a key of another
            kind.
    """

    der: bytes
    subject: str = field(compare=False)
    issuer_der: bytes = field(compare=False, repr=False)
    serial: int = field(compare=False)
    subject_key_id: bytes | None = field(compare=False)
    authority: KeyId = field(compare=False, repr=False)
    key_type: str = field(compare=False)
    _parsed: x509.Certificate = field(compare=False, repr=False)

    @classmethod
    def from_der(cls, der: bytes) -> Certificate:
        """Read one certificate.

        Raises:
            InputError: not a certificate.
        """
        if len(der) > MAX_SIZE:
            raise InputError(f"certificate of {len(der)} bytes, more than {MAX_SIZE}")
        try:
            with warnings.catch_warnings():
                # A serial number that is not positive is worth a warning to its issuer, not here.
                warnings.simplefilter("ignore")
                return cls._from_parsed(x509.load_der_x509_certificate(der))
        except _PARSE_ERRORS as error:
            raise InputError("not an X.509 certificate in DER") from error

    @classmethod
    def from_pem_or_der(cls, data: bytes) -> Certificate:
        """Read the first certificate of a PEM file, or a DER file.

        Raises:
            InputError: no certificate.
        """
        return cls.all_from_pem_or_der(data)[0]

    @classmethod
    def all_from_pem_or_der(cls, data: bytes) -> tuple[Certificate, ...]:
        """Read all certificates of a PEM file, or the one of a DER file; at least one.

        Raises:
            InputError: no certificate, or one that cannot be read.
        """
        if b"-----BEGIN " not in data:
            return (cls.from_der(data),)
        if len(data) > MAX_SIZE:
            raise InputError(f"certificate file of {len(data)} bytes, more than {MAX_SIZE}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                parsed = x509.load_pem_x509_certificates(data)
                return tuple(cls._from_parsed(certificate) for certificate in parsed)
        except _PARSE_ERRORS as error:
            raise InputError("no X.509 certificate in the PEM file") from error

    @classmethod
    def _from_parsed(cls, parsed: x509.Certificate) -> Certificate:
        extensions = parsed.extensions
        return cls(
            der=parsed.public_bytes(Encoding.DER),
            subject=parsed.subject.rfc4514_string(),
            issuer_der=parsed.issuer.public_bytes(),
            serial=parsed.serial_number,
            subject_key_id=_subject_key_id(extensions),
            authority=_authority(extensions),
            key_type=_key_type(parsed),
            _parsed=parsed,
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as hex digits."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def algorithm(self) -> str:
        """``"rsa"``, ``"ecdsa"`` or ``"mldsa65"``, ...: what the key signs with; else its type."""
        key_type = self.key_type
        return "rsa" if key_type.startswith("rsa") else "ecdsa" if key_type[0] == "p" else key_type

    @property
    def public_key_der(self) -> bytes:
        """The SubjectPublicKeyInfo.

        Raises:
            InputError: a key of a kind that is not known here.
        """
        try:
            key = self._parsed.public_key()
        except _PARSE_ERRORS as error:
            raise InputError("certificate with a public key of an unknown kind") from error
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def is_self_issued(self) -> bool:
        """The issuer's name is the subject's, and the authority key id is the subject's too.

        What ``x509_check_for_self_signed`` looks at before it checks the signature.
        """
        if self._parsed.issuer != self._parsed.subject:
            return False
        return self.authority == KeyId() or self.is_named_by(self.authority)

    @property
    def has_broken_self_signature(self) -> bool:
        """It says that its own key signed it, and that is not so.

        Kernels do not take such a certificate into a keyring: -EKEYREJECTED
        (``x509_check_for_self_signed``). A signature of a kind that is not known here counts as
        good, as it does there.
        """
        if not self.is_self_issued:
            return False
        try:
            self._parsed.verify_directly_issued_by(self._parsed)
        except InvalidSignature:
            return True
        except _PARSE_ERRORS:
            return False
        return False

    def is_named_by(self, name: KeyId) -> bool:
        """Tell whether `name` means this certificate.

        As ``asymmetric_key_id_same`` compares: issuer and serial where they are given, else the
        subjectKeyIdentifier.
        """
        if name.issuer is not None:
            return (name.issuer, name.serial) == (self.issuer_der, self.serial)
        return name.key_id is not None and name.key_id == self.subject_key_id

    def require_subject_key_id(self) -> bytes:
        """Return the subjectKeyIdentifier, which a signature names its key by.

        Raises:
            InputError: the certificate has none.
        """
        if self.subject_key_id is None:
            raise InputError(
                f"certificate {self.subject} has no subjectKeyIdentifier",
                hint="make one with the extension, for example with bpfseal keygen",
            )
        return self.subject_key_id

    def problems(self, at: datetime | None = None) -> tuple[str, ...]:
        """Return what is wrong with this certificate for signing loaders, one line for each.

        Kernels overlook most of it: they read neither the validity period nor, for a key that
        someone adds to a keyring, keyUsage.

        Args:
            at: the time, with its time zone, to hold the validity period against; None leaves the
                period out.
        """
        found: list[str] = []
        if self.subject_key_id is None:
            found.append("no subjectKeyIdentifier: signatures cannot name this key by it")
        found += _key_usage_problems(self._parsed.extensions)
        if self.algorithm == "rsa" and int(self.key_type[3:]) < MIN_RSA_BITS:
            found.append(f"weak key: {self.key_type}, less than {MIN_RSA_BITS} bits")
        elif self.algorithm in mldsa.KINDS:
            found.append(f"key of type {self.key_type}: kernels up to 7.3 have no ML-DSA")
        elif self.algorithm not in ("rsa", "ecdsa"):
            found.append(f"key of a kind that kernels do not verify loaders with: {self.key_type}")
        if at is not None and at < self._parsed.not_valid_before_utc:
            found.append(f"not valid before {self._parsed.not_valid_before_utc:%Y-%m-%d}")
        if at is not None and at > self._parsed.not_valid_after_utc:
            found.append(f"expired on {self._parsed.not_valid_after_utc:%Y-%m-%d}")
        return tuple(found)

    def verify_signature(self, algorithm: str, digest: str, data: bytes, signature: bytes) -> None:
        """Verify a signature that this certificate's key made.

        Args:
            algorithm: ``"rsa"`` (PKCS#1 v1.5), ``"ecdsa"`` or one of `bpfseal.signing.mldsa.KINDS`.
            digest: a key of `HASHES`; ML-DSA has none and does not look at it.
            data: what was signed.
            signature: the signature value.

        Raises:
            VerificationError: it does not verify, or the key is not of that algorithm.
            CapabilityError: this installation has no ML-DSA.
        """
        if algorithm in mldsa.KINDS:
            mldsa.require()
        elif digest not in HASHES:
            raise VerificationError(f"digest {digest} is not known")
        try:
            key = self._parsed.public_key()
            if algorithm == "rsa" and isinstance(key, rsa.RSAPublicKey):
                key.verify(signature, data, padding.PKCS1v15(), HASHES[digest]())
            elif algorithm == "ecdsa" and isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(signature, data, ec.ECDSA(HASHES[digest]()))
            elif not mldsa.verify(key, algorithm, signature, data):
                raise VerificationError(f"{algorithm} signature, but the key is {self.key_type}")
        except InvalidSignature as error:
            raise VerificationError("the signature does not match what it should cover") from error
        except _PARSE_ERRORS as error:
            raise VerificationError(f"a key or digest that cannot be used: {error}") from error

    def verify_issued(self, child: Certificate) -> None:
        """Verify that this certificate's key signed the certificate `child`.

        Raises:
            VerificationError: it did not.
        """
        parsed = child._parsed
        try:
            digest = parsed.signature_hash_algorithm
        except _PARSE_ERRORS as error:
            raise VerificationError("certificate signed in an unknown way") from error
        name = digest.name if digest else "none"
        self.verify_signature(self.algorithm, name, parsed.tbs_certificate_bytes, parsed.signature)


def _key_type(parsed: x509.Certificate) -> str:
    oid = parsed.public_key_algorithm_oid.dotted_string
    if oid in oids.MLDSA.values():
        return oids.algorithm_name(oid)
    try:
        key = parsed.public_key()
    except _PARSE_ERRORS:
        return oid
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa{key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _CURVES.get(key.curve.name, key.curve.name)
    return oid


def _subject_key_id(extensions: x509.Extensions) -> bytes | None:
    try:
        return extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return None


def _authority(extensions: x509.Extensions) -> KeyId:
    try:
        value = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        return KeyId()
    issuers = value.authority_cert_issuer or []
    names = [name.value for name in issuers if isinstance(name, x509.DirectoryName)]
    return KeyId(
        key_id=value.key_identifier,
        issuer=names[0].public_bytes() if names else None,
        serial=value.authority_cert_serial_number if names else None,
    )


def _key_usage_problems(extensions: x509.Extensions) -> list[str]:
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return ["no keyUsage: it should say digitalSignature"]
    return [] if usage.digital_signature else ["keyUsage lacks digitalSignature"]
