"""Records in memory that a program has written to: what is no record is refused, and ends."""

from __future__ import annotations

import mmap
import struct
from typing import Any

import pytest

from bpfseal.bpf.uapi import MapType
from bpfseal.errors import InputError
from bpfseal.skeleton.perf_buffer import PerfBuffer
from bpfseal.skeleton.ring_buffer import RingBuffer
from fuzz.targets.skeletons import records_of

SAMPLE, LOST = 9, 2
HEADER = struct.Struct("<IHH")


def perf(body: bytes, head: int = 0) -> list[Any]:
    page = bytearray(mmap.PAGESIZE)
    struct.pack_into("<QQ", page, 1024, head or len(body), 0)
    return records_of(PerfBuffer, MapType.PERF_EVENT_ARRAY, bytes(page) + body, None)


def record(kind: int, body: bytes) -> bytes:
    return HEADER.pack(kind, 0, HEADER.size + len(body)) + body


def test_a_sample_comes_with_its_padding() -> None:
    (sample,) = perf(record(SAMPLE, struct.pack("<I", 12) + b"twelve bytes"))
    assert sample == (0, b"twelve bytes")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (record(SAMPLE, b""), "a sample of 0 bytes"),
        (record(SAMPLE, struct.pack("<II", 5, 0)), "says that it has 5"),
        (record(LOST, bytes(8)), "about lost ones of 8 bytes"),
        (HEADER.pack(SAMPLE, 0, 0), "a record of 0 bytes"),
    ],
)
def test_what_is_no_perf_record_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        perf(body)


def test_positions_further_apart_than_the_ring_is_large_are_refused() -> None:
    with pytest.raises(InputError, match="bytes in a ring of"):
        perf(bytes(8), head=1 << 63)
    page = struct.pack("<Q", 1 << 63).ljust(mmap.PAGESIZE, b"\0")
    with pytest.raises(InputError, match="bytes in a ring buffer of"):
        records_of(RingBuffer, MapType.RINGBUF, page, None)
