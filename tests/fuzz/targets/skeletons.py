"""What programs and files give to a skeleton: records in rings, values, symbol tables."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import tempfile
from collections.abc import Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, cast

from bpfseal.bpf.uapi import MapType
from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import INT_BOOL
from bpfseal.errors import BpfsealError
from bpfseal.kernel.protocol import MapKernel, PerfEvent
from bpfseal.loader.model import MapEntry
from bpfseal.skeleton.elf_symbols import function_offsets
from bpfseal.skeleton.handle import Handle
from bpfseal.skeleton.maps import Map, MapTypes, plain_types
from bpfseal.skeleton.perf_buffer import PerfBuffer
from bpfseal.skeleton.ring_buffer import RingBuffer
from bpfseal.skeleton.types import Types
from support.btf_writer import BtfWriter
from support.files import EXAMPLE
from support.programs import program_elf

from ..mutators import BYTES, ELF, by_part, join, split
from .base import Target

_RING_SIZE = 2 * mmap.PAGESIZE
_MOST = 4096
"""Records that are taken out of a ring: a program that goes on writing keeps a reader busy."""


@cache
def _event_btf() -> bytes:
    """A struct with everything that codecs are made for."""
    btf = BtfWriter()
    u32, char = btf.add_int("unsigned int", 4), btf.add_int("char", 1)
    s64, flag = btf.add_int("long", 8, signed=True), btf.add_encoded_int("_Bool", 1, INT_BOOL)
    enum = btf.add_enum("kind", {"A": 0, "B": 7}, 4)
    comm, numbers = btf.add_array(char, 16, u32), btf.add_array(u32, 3, u32)
    inner = btf.add_struct("inner", 8, [("x", u32, 0), ("y", u32, 32)])
    members = [
        *[("pid", u32, 0), ("kind", enum, 32), ("time", s64, 64), ("comm", comm, 128)],
        *[("numbers", numbers, 256), ("ok", flag, 352), ("inner", inner, 384)],
    ]
    btf.add_struct("event", 56, members)
    return btf.encode()


def _values() -> Sequence[bytes]:
    return (join(_event_btf(), bytes(range(56))), join(_event_btf(), b"\xff" * 56))


def _value(data: bytes) -> object:
    """Decode a value by a BTF and encode it again."""
    raw, value = split(data, 2)
    codec = Types(Btf.from_bytes(raw)).named("event")
    decoded = codec.decode(value[: codec.size].ljust(min(codec.size, 1 << 20), b"\0"))
    repr(decoded)
    return codec.encode(decoded)


class _Memory:
    """A piece of memory as a kernel shares it."""

    def __init__(self, pages: bytearray) -> None:
        self.view = memoryview(pages)

    def close(self) -> None:
        """Views of it may be alive; nothing is given back."""


class _Rings:
    """The calls that readers of rings make, with memory that a program has written to."""

    possible_cpus = 1

    def __init__(self, memory: bytes) -> None:
        self._memory = memory

    def map_memory(self, _fd: int, offset: int, size: int, *, writable: bool) -> _Memory:
        """Return zeros for the consumer's page of a ring buffer, else what was written."""
        is_consumer = writable and size == mmap.PAGESIZE and not offset
        return _Memory(bytearray(size if is_consumer else self._memory.ljust(size, b"\0")[:size]))

    def perf_event_open(self, _request: PerfEvent) -> int:
        """Return a fd that can be waited for."""
        return os.eventfd(0)

    def perf_event_enable(self, fd: int) -> None:
        """Nothing has to be done."""

    def map_update(self, fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
        """Take the ring's fd."""

    def close(self, fd: int) -> None:
        """Close a ring's fd."""
        os.close(fd)


def _ring_map(kind: MapType, memory: bytes) -> tuple[Map, int]:
    fd = os.eventfd(0)
    types = Types(Btf.from_bytes(_event_btf()))
    size = _RING_SIZE if kind is MapType.RINGBUF else 1
    entry = MapEntry("events", "events", kind, 4, 4, size)
    kernel = cast("MapKernel", _Rings(memory))
    handle = Handle(kernel, fd, "map events")
    return Map(kernel, handle, entry, MapTypes(*plain_types(entry, "little"), types)), fd


def _ring(data: bytes) -> object:
    return _drain(RingBuffer, MapType.RINGBUF, data)


def _perf(data: bytes) -> object:
    return _drain(PerfBuffer, MapType.PERF_EVENT_ARRAY, data)


def _drain(reader: Any, kind: MapType, data: bytes) -> object:
    with contextlib.suppress(BpfsealError):
        records_of(reader, kind, data, None)
    return records_of(reader, kind, data, "event")


def records_of(reader: Any, kind: MapType, data: bytes, decode: str | None) -> list[Any]:
    """Return the records that a reader finds in memory: a page of positions, then the data."""
    source, fd = _ring_map(kind, data)
    arguments = {"pages": 2} if reader is PerfBuffer else {}
    try:
        with reader(source, decode, **arguments) as ring:
            return list(islice(ring.read(), _MOST))
    finally:
        os.close(fd)


def _ring_seeds() -> Sequence[bytes]:
    """A producer's page and records: one that is whole, one discarded, one still written."""
    event = bytes(range(56))
    records = [struct.pack("<II", 56, 0) + event, struct.pack("<II", 56 | 1 << 30, 0) + event]
    body = b"".join(records) * 3
    page = struct.pack("<Q", len(body)).ljust(mmap.PAGESIZE, b"\0")
    busy = struct.pack("<II", 56 | 1 << 31, 0)
    return (page + body, struct.pack("<Q", 192).ljust(mmap.PAGESIZE, b"\0") + body + busy)


def _perf_seeds() -> Sequence[bytes]:
    """The page of positions and records: samples, and one that tells of lost ones."""
    sample = struct.pack("<IHHI", 9, 0, 8 + 4 + 60, 60) + bytes(range(60))
    lost = struct.pack("<IHHQQ", 2, 0, 24, 1, 5)
    body = sample * 2 + lost + sample
    page = bytearray(mmap.PAGESIZE)
    struct.pack_into("<QQ", page, 1024, len(body), 0)
    return (bytes(page) + body,)


@cache
def _programs() -> Sequence[bytes]:
    """A small program's file with a symbol table, and an object."""
    return (program_elf(["main", "helper", "_start"]), EXAMPLE.read_bytes())


def _elf_symbols(data: bytes) -> object:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return function_offsets(Path(file.name), "*")


TARGETS = (
    Target("struct-value", _values, _value, by_part(BYTES, BYTES)),
    Target("ring-buffer", _ring_seeds, _ring),
    Target("perf-buffer", _perf_seeds, _perf),
    Target("elf-symbols", _programs, _elf_symbols, ELF),
)
