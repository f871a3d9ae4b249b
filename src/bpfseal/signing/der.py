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
_CONSTRUCTED: Final = 0x20
_LONG_TAG: Final = 0x1F
_INTEGER, _NULL_TAG, _OID = 0x02, 0x05, 0x06
_SIGN: Final = 0x80
_CONSTRUCTED_TYPES: Final = frozenset({0x08, 0x0B, 0x10, 0x11})
"""EXTERNAL, EMBEDDED PDV, SEQUENCE and SET."""


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


def is_canonical(data: bytes) -> bool:
    """Tell whether bytes are one element in DER, as far as that shows without knowing its type.

    Lengths are definite and the shortest (X.690, section 10.1), universal types are constructed or
    primitive as they must be (section 10.2), tags have one byte, integers and object identifiers
    are the shortest (sections 8.3.2 and 8.19.2).
    """
    pending = [(0, len(data))]
    is_first = True
    while pending:
        at, end = pending.pop()
        while at < end:
            header = _header(data, at, end)
            if header is None:
                return False
            start, size = header
            if not _is_canonical_element(data[at], data, start, size):
                return False
            if data[at] & _CONSTRUCTED:
                pending.append((start, start + size))
            at = start + size
            if is_first and at != end:
                return False
            is_first = False
    return not is_first


def _header(data: bytes, at: int, end: int) -> tuple[int, int] | None:
    """Return where the contents of an element begin and their size, or None for another form."""
    if end - at < 2 or data[at] & _LONG_TAG == _LONG_TAG:
        return None
    size, start = data[at + 1], at + 2
    if size >= _LONG:
        count = size - _LONG
        size = int.from_bytes(data[start : start + count], "big")
        start += count
        if not count or size < max(_LONG, 1 << 8 * (count - 1)):
            return None
    return (start, size) if start + size <= end else None


def _is_canonical_element(tag: int, data: bytes, start: int, size: int) -> bool:
    if tag >> 6 == 0:
        must_be_constructed = tag & _LONG_TAG in _CONSTRUCTED_TYPES
        if must_be_constructed != bool(tag & _CONSTRUCTED):
            return False
    if tag == _INTEGER:
        first = int.from_bytes(data[start : start + min(size, 2)], "big")
        is_padded = size > 1 and (first < _SIGN or first >= 0x10000 - _SIGN)
        return size > 0 and not is_padded
    if tag == _OID:
        contents = data[start : start + size]
        starts = [0, *(at + 1 for at, byte in enumerate(contents[:-1]) if not byte & _LONG)]
        return size > 0 and not contents[-1] & _LONG and all(contents[at] != _LONG for at in starts)
    return tag != _NULL_TAG or size == 0
