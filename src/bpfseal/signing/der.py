"""Write DER (X.690).

Example:
    >>> sequence(oid("1.2.840.113549.1.7.1"), integer(3)).hex()
    '300e06092a864886f70d010701020103'
"""

from __future__ import annotations

from typing import Final

from bpfseal.signing import oids

NULL: Final = b"\x05\0"

_LONG: Final = 0x80


def element(tag: int, *contents: bytes) -> bytes:
    """Return an element with the shortest length (section 10.1).

    Args:
        tag: class, constructed bit and number in one byte.
        contents: the contents, in pieces.
    """
    size = sum(map(len, contents))
    if size < _LONG:
        return b"".join((bytes([tag, size]), *contents))
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return b"".join((bytes([tag, _LONG | len(length)]), length, *contents))


def sequence(*elements: bytes) -> bytes:
    """Return a SEQUENCE."""
    return element(0x30, *elements)


def set_of(*elements: bytes) -> bytes:
    """Return a SET OF, with its elements in ascending order (section 11.6)."""
    return element(0x31, *sorted(elements))


def explicit(number: int, *elements: bytes) -> bytes:
    """Return elements under an explicit context tag, or those of an implicitly tagged container."""
    return element(0xA0 | number, *elements)


def integer(value: int) -> bytes:
    """Return an INTEGER (section 8.3)."""
    size = value.bit_length() // 8 + 1
    return element(0x02, value.to_bytes(size, "big", signed=True))


def octets(value: bytes) -> bytes:
    """Return an OCTET STRING."""
    return element(0x04, value)


def oid(dotted: str) -> bytes:
    """Return an OBJECT IDENTIFIER."""
    return element(0x06, oids.encode(dotted))
