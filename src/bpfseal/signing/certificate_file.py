"""Files of X.509 certificates, cut into single ones; with the standard library alone.

Example:
    >>> [len(der_of(block)) for _, block in certificate_blocks(cert_pem)]
    [793]
"""

from __future__ import annotations

import base64
import binascii
import re
from itertools import islice
from typing import Final

from bpfseal.errors import InputError

MAX_SIZE: Final = 1 << 20
"""Bytes of the largest file of certificates that is looked at."""

MAX_CERTIFICATES: Final = 4096
"""The most certificates of one file or trust store."""

_PEM = re.compile(
    rb"-----BEGIN (?:X509 )?CERTIFICATE-----.*?"
    rb"(?:-----END (?:X509 )?CERTIFICATE-----|\Z)",
    re.DOTALL,
)
_LISTING = re.compile(rb"^[ \t]*[0-9a-f]+ .*\b(?:asymmetric?|keyring)\b", re.MULTILINE)
"""A line of ``keyctl show``, ``keyctl list`` or ``/proc/keys``."""

_SEQUENCE = 0x30


def certificate_blocks(data: bytes) -> list[tuple[int, bytes]]:
    """Cut a file into its certificates, each with its position.

    Args:
        data: PEM, or DER with one certificate or several, one right after the other.

    Raises:
        InputError: no certificates, or too many.
    """
    if len(data) > MAX_SIZE:
        raise InputError(f"certificate file of {len(data)} bytes, more than {MAX_SIZE}")
    if b"-----BEGIN " in data:
        matches = islice(_PEM.finditer(data), MAX_CERTIFICATES + 1)
        blocks = [(match.start(), match.group()) for match in matches]
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
    return blocks


def der_of(block: bytes) -> bytes:
    """Return the DER of a certificate in PEM or DER.

    Raises:
        InputError: not base64 between the lines of PEM.
    """
    if not block.startswith(b"-----BEGIN "):
        return block
    try:
        return base64.b64decode(b"".join(block.splitlines()[1:-1]), validate=True)
    except binascii.Error as error:
        raise InputError(f"the certificate is not in base64: {error}") from None


def _split_der(data: bytes) -> list[tuple[int, bytes]]:
    """Cut a file into its SEQUENCEs, each with its position.

    As a kernel does it, with lengths of one or two bytes (``x509_load_certificate_list``): shorter
    things are no certificates, longer ones do not exist.
    """
    blocks: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data) and len(blocks) <= MAX_CERTIFICATES:
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
