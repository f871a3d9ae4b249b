r"""Arrays of 32-bit words, four bytes each, to and from bytes of either byte order.

Example:
    >>> to_bytes(from_bytes(b"\1\0\0\0", "little"), "big")
    b'\x00\x00\x00\x01'
"""

from __future__ import annotations

import sys
from array import array

from bpfseal.bpf.insn import ByteOrder


def from_bytes(data: bytes, byteorder: ByteOrder) -> array[int]:
    """Return the words; the number of bytes is a multiple of 4."""
    words = array("I", data)
    if sys.byteorder != byteorder:
        words.byteswap()
    return words


def to_bytes(words: array[int], byteorder: ByteOrder) -> bytes:
    """Return the bytes of words."""
    if sys.byteorder != byteorder:
        words = words[:]
        words.byteswap()
    return words.tobytes()
