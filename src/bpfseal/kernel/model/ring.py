"""Ring buffers: records that programs write one after the other.

The model has nobody who reads them, so a ring is full once it was filled.

Source: kernel/bpf/ringbuf.c.

Example:
    >>> ring = RingBuffer(4096)
    >>> ring.take(8), ring.used
    (True, 16)
"""

from __future__ import annotations

from typing import Final

HEADER_SIZE: Final = 8
"""Bytes in front of each record, BPF_RINGBUF_HDR_SZ (include/uapi/linux/bpf.h)."""

_ALIGNMENT: Final = 8


class RingBuffer:
    """A ring buffer.

    Attributes:
        size: bytes that it has for records and their headers.
        used: bytes of these that are taken.
        records: what was submitted, in order.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self.records: list[bytes] = []

    def take(self, size: int) -> bool:
        """Take room for a record (``__bpf_ringbuf_reserve``), and return whether there was some."""
        needed = -(-(size + HEADER_SIZE) // _ALIGNMENT) * _ALIGNMENT
        if needed > self.size - self.used:
            return False
        self.used += needed
        return True
