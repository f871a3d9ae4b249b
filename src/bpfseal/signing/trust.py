"""The certificates that a person trusts: out of files, bundles and dumps of a kernel's keyrings.

A file holds certificates in PEM, with any text around them, or in DER, one right after the other:
the form of a kernel's built-in list (``certs/signing_key.x509``, and what
``scripts/extract-sys-certs.pl`` cuts out of an image).

Example::

    trust = read_certificates(Path("keyring.der").read_bytes())
    [certificate.subject for certificate in trust.certificates]  # ["CN=Build time kernel key"]
    trust.warnings                                               # ()
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bpfseal.errors import InputError
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.certificate_file import MAX_CERTIFICATES, certificate_blocks


@dataclass(frozen=True, slots=True)
class TrustStore:
    """Trusted certificates, each of them once, in the order in which they were found.

    Attributes:
        certificates: the certificates.
        warnings: what was passed over and why, one line each.
    """

    certificates: tuple[Certificate, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, stores: Iterable[TrustStore]) -> TrustStore:
        """Return all together.

        Raises:
            InputError: they are more than `MAX_CERTIFICATES`.
        """
        certificates: dict[Certificate, None] = {}
        warnings: list[str] = []
        for store in stores:
            certificates.update(dict.fromkeys(store.certificates))
            warnings += store.warnings
            if len(certificates) > MAX_CERTIFICATES:
                raise InputError(f"more than {MAX_CERTIFICATES} certificates")
        return cls(tuple(certificates), tuple(warnings))

    def __add__(self, other: TrustStore) -> TrustStore:
        """Return both together.

        Raises:
            InputError: they are more than `MAX_CERTIFICATES`.
        """
        return TrustStore.of((self, other))

    def named(self, where: str) -> TrustStore:
        """Return the same with the warnings saying which file they are about."""
        return replace(self, warnings=tuple(f"{where}: {text}" for text in self.warnings))


def read_certificates(data: bytes) -> TrustStore:
    """Read the certificates of one file.

    If there are several, those that cannot be read are passed over with a warning, as a kernel
    does with its own list (``x509_load_certificate_list``, crypto/asymmetric_keys/x509_loader.c).

    Args:
        data: PEM, or DER with one certificate or several, one right after the other.

    Raises:
        InputError: no certificate that can be read.
    """
    return _read_blocks(certificate_blocks(data))


def _read_blocks(blocks: list[tuple[int, bytes]]) -> TrustStore:
    certificates: list[Certificate] = []
    warnings: list[str] = []
    for position, block in blocks:
        try:
            certificates.append(Certificate.from_pem_or_der(block))
        except InputError as error:
            if len(blocks) == 1:
                raise
            warnings.append(f"the certificate at byte {position} is passed over: {error.message}")
    if not certificates:
        raise InputError(f"none of {len(blocks)} certificates can be read")
    return TrustStore(tuple(dict.fromkeys(certificates)), tuple(warnings))
