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

import re
from dataclasses import dataclass, replace
from typing import Final

from bpfseal.errors import InputError
from bpfseal.signing.certificate import MAX_SIZE, Certificate

MAX_CERTIFICATES: Final = 4096
"""The most certificates of one trust store."""

_PEM = re.compile(
    rb"-----BEGIN (?:X509 )?CERTIFICATE-----.*?"
    rb"(?:-----END (?:X509 )?CERTIFICATE-----|\Z)",
    re.DOTALL,
)
_LISTING = re.compile(rb"^\s*[0-9a-f]+ .*\b(?:asymmetric?|keyring)\b", re.MULTILINE)
"""A line of ``keyctl show``, ``keyctl list`` or ``/proc/keys``."""

_SEQUENCE = 0x30


@dataclass(frozen=True, slots=True)
class TrustStore:
    """Trusted certificates, each of them once, in the order in which they were found.

    Attributes:
        certificates: the certificates.
        warnings: what was passed over and why, one line each.
    """

    certificates: tuple[Certificate, ...] = ()
    warnings: tuple[str, ...] = ()

    def __add__(self, other: TrustStore) -> TrustStore:
        """Return both together.

        Raises:
            InputError: they are more than `MAX_CERTIFICATES`.
        """
        both = tuple(dict.fromkeys((*self.certificates, *other.certificates)))
        if len(both) > MAX_CERTIFICATES:
            raise InputError(f"more than {MAX_CERTIFICATES} certificates")
        return TrustStore(both, (*self.warnings, *other.warnings))

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
    if len(data) > MAX_SIZE:
        raise InputError(f"certificate file of {len(data)} bytes, more than {MAX_SIZE}")
    if b"-----BEGIN " in data:
        blocks = [(match.start(), match.group()) for match in _PEM.finditer(data)]
        if not blocks:
            raise InputError("no certificate in the PEM file", hint="is it a private key?")
    elif data.isascii() and _LISTING.search(data):
        raise InputError(
            "a listing of keys, which holds no certificates",
            hint="give the certificates themselves: a kernel does not hand them out",
        )
    elif data[:1] == bytes([_SEQUENCE]):
        blocks = _split_der(data)
    else:
        raise InputError("no X.509 certificates in PEM or DER")
    if len(blocks) > MAX_CERTIFICATES:
        raise InputError(f"more than {MAX_CERTIFICATES} certificates")
    return _read_blocks(blocks)


def _read_blocks(blocks: list[tuple[int, bytes]]) -> TrustStore:
    certificates: list[Certificate] = []
    warnings: list[str] = []
    for position, block in blocks:
        try:
            certificates.append(_read_one(block))
        except InputError as error:
            if len(blocks) == 1:
                raise
            warnings.append(f"the certificate at byte {position} is passed over: {error.message}")
    if not certificates:
        raise InputError(f"none of {len(blocks)} certificates can be read")
    return TrustStore(tuple(dict.fromkeys(certificates)), tuple(warnings))


def _read_one(block: bytes) -> Certificate:
    certificate = Certificate.from_pem_or_der(block)
    if certificate.has_broken_self_signature:
        raise InputError(
            f"certificate {certificate.subject} is damaged: its own signature does not match",
            hint="a kernel does not take it into a keyring: -EKEYREJECTED",
        )
    return certificate


def _split_der(data: bytes) -> list[tuple[int, bytes]]:
    """Cut a file into its SEQUENCEs, each with its position.

    As a kernel does it, with lengths of one or two bytes (``x509_load_certificate_list``): shorter
    things are no certificates, longer ones do not exist.
    """
    blocks: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        header = data[at : at + 4]
        if header[:2] == b"\x30\x82":
            end = at + 4 + int.from_bytes(header[2:], "big")
        elif header[:2] == b"\x30\x81":
            end = at + 3 + int.from_bytes(header[2:3], "big")
        elif header[:1] == b"\x30" and len(header) > 1 and header[1] < 0x80:
            end = at + 2 + header[1]
        elif not data[at:].strip(b"\0\r\n"):  # padding, or a newline from an editor
            break
        else:
            raise InputError(f"byte {at} begins no certificate in DER")
        if end > len(data):
            raise InputError(f"the certificate at byte {at} is truncated")
        blocks.append((at, data[at:end]))
        at = end
    return blocks
