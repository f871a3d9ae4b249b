"""X.509 certificates, as a kernel's keyring sees them.

A certificate is what kernels take: `bpfseal.signing.x509` reads it by their rules, which are
neither wider nor narrower than a library's but others. A kernel names a key by the certificate's
serial number and issuer or by its subjectKeyIdentifier, uses the public key, and ignores the
validity period and most of the rest; `Certificate.problems` reports what a careful person would not
overlook.

Example::

    certificate = Certificate.from_pem_or_der(Path("signing_cert.pem").read_bytes())
    certificate.key_type, certificate.problems()  # ("rsa2048", ())
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bpfseal.errors import InputError, VerificationError
from bpfseal.release import ANY_KERNEL
from bpfseal.signing import mldsa, names, public_key, x509
from bpfseal.signing.ber import RefusedError
from bpfseal.signing.certificate_file import MAX_SIZE, certificate_blocks, der_of
from bpfseal.signing.pkcs7 import Payload
from bpfseal.signing.public_key import HASHES, NO_DIGEST, SignatureValue
from bpfseal.signing.x509 import ParsedCertificate

MIN_RSA_BITS = 2048
"""RSA keys below this are reported as weak."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Certificate:
    """An X.509 certificate that kernels take; two are equal when their bytes are.

    Attributes:
        der: the certificate's bytes.
        parsed: what kernels read in it.
    """

    der: bytes
    parsed: ParsedCertificate = field(compare=False, repr=False)

    @classmethod
    def from_der(cls, der: bytes) -> Certificate:
        """Read one certificate.

        Raises:
            InputError: not a certificate, or one that no kernel takes as a key.
        """
        if len(der) > MAX_SIZE:
            raise InputError(f"certificate of {len(der)} bytes, more than {MAX_SIZE}")
        try:
            return cls(der, x509.parse(der, ANY_KERNEL))
        except RefusedError as refused:
            raise InputError(
                f"not an X.509 certificate that kernels take: {refused.message}"
            ) from refused

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
        return tuple(cls.from_der(der_of(block)) for _, block in certificate_blocks(data))

    @property
    def subject(self) -> str:
        """The subject as text (RFC 4514), for example ``CN=loader signing``."""
        return names.text_of(self.parsed.subject)

    @property
    def subject_key_id(self) -> bytes | None:
        """The value of the subjectKeyIdentifier extension."""
        return self.parsed.key_id

    @property
    def key_type(self) -> str:
        """``"rsa2048"``, ``"p256"``, ``"mldsa65"``, ..."""
        return self.parsed.key.kind

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as hex digits."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def algorithm(self) -> str:
        """``"rsa"``, ``"ecdsa"``, ``"ecrdsa"``, ``"mldsa65"``, ...: what the key signs with."""
        return self.parsed.key.algorithm.partition("-")[0]

    @property
    def public_key_der(self) -> bytes:
        """The SubjectPublicKeyInfo, in DER whatever form the certificate has it in.

        Raises:
            InputError: a key that cannot be used.
        """
        key = self.parsed.key.loaded()
        if key is None:
            raise InputError("certificate with a public key that cannot be used")
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

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
        parsed = self.parsed
        found: list[str] = []
        if parsed.key_id is None:
            found.append("no subjectKeyIdentifier: signatures cannot name this key by it")
        if not parsed.has_key_usage:
            found.append("no keyUsage: it should say digitalSignature")
        elif not parsed.has_digital_signature:
            found.append("keyUsage lacks digitalSignature")
        key = parsed.key.loaded()
        if self.algorithm in mldsa.KINDS:
            found.append(f"key of type {self.key_type}: kernels up to 7.3 have no ML-DSA")
        elif self.algorithm not in ("rsa", "ecdsa"):
            found.append(f"key of a kind that kernels do not verify loaders with: {self.key_type}")
        elif key is None:
            found.append(f"a key that cannot be used: {self.key_type}")
        elif isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
            found.append(f"weak key: {self.key_type}, less than {MIN_RSA_BITS} bits")
        if at is not None:
            found += self._period_problems(at)
        return tuple(found)

    def _period_problems(self, at: datetime) -> list[str]:
        # A time that kernels read may lie in the year 9999, and one second after its end.
        seconds = (at - _EPOCH) / timedelta(seconds=1)
        if seconds < self.parsed.not_before:
            return [f"not valid before {_date(self.parsed.not_before)}"]
        if seconds > self.parsed.not_after:
            return [f"expired on {_date(self.parsed.not_after)}"]
        return []

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
            value = SignatureValue(algorithm, NO_DIGEST, signature, data)
        elif digest in HASHES:
            value = SignatureValue(algorithm, digest, signature, Payload(data).digest(digest))
        else:
            raise VerificationError(f"digest {digest} is not known")
        public_key.verify(self.parsed.key, value, ANY_KERNEL.algorithms)

    def verify_issued(self, child: Certificate) -> None:
        """Verify that this certificate's key signed the certificate `child`.

        Raises:
            VerificationError: it did not.
        """
        if child.parsed.has_unsupported_signature:
            raise VerificationError("certificate signed in an unknown way")
        public_key.verify(self.parsed.key, child.parsed.signature, ANY_KERNEL.algorithms)


def _date(seconds: int) -> str:
    try:
        return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%d}"
    except OverflowError:
        return "the end of the year 9999"
