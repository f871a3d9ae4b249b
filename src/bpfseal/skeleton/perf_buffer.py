"""Read what programs write with ``bpf_perf_event_output`` (BPF_MAP_TYPE_PERF_EVENT_ARRAY).

Each CPU has a ring of its own, in pages shared with the kernel behind a page of positions. Records
of different CPUs come in no order.

Source: ``struct perf_event_mmap_page`` in include/uapi/linux/perf_event.h,
kernel/events/ring_buffer.c.

Example:
    >>> with PerfBuffer(skel.maps.events, "event") as events:  # doctest: +SKIP
    ...     for sample in events.read():
    ...         print(sample.cpu, sample.value)
"""

from __future__ import annotations

import errno
import mmap
import select
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final, NamedTuple

from bpfseal.bpf.uapi import MapType
from bpfseal.errors import InputError, KernelError, UsageError
from bpfseal.kernel.linux.memory import load_acquire, store_release
from bpfseal.kernel.protocol import MapKernel, PerfEvent
from bpfseal.skeleton.maps import Map
from bpfseal.skeleton.reader import Decode, Reader, decoder
from bpfseal.skeleton.values import Codec, Value

_TYPE_SOFTWARE: Final = 1
_COUNT_SW_BPF_OUTPUT: Final = 10
_SAMPLE_RAW: Final = 1 << 10
"""PERF_TYPE_SOFTWARE, PERF_COUNT_SW_BPF_OUTPUT, PERF_SAMPLE_RAW."""

_RECORD_LOST: Final = 2
_RECORD_SAMPLE: Final = 9
"""PERF_RECORD_LOST, PERF_RECORD_SAMPLE."""

_HEAD: Final = 1024 // 8
_TAIL: Final = _HEAD + 1
"""The words of `data_head` and `data_tail` in the first page."""

_HEADER: Final = struct.Struct("=IHH")
"""``struct perf_event_header``: type, misc, size."""

_SIZE: Final = struct.Struct("=I")
_LOST: Final = struct.Struct("=QQ")
"""The size in front of raw data; id and number of PERF_RECORD_LOST."""


class PerfSample(NamedTuple):
    """A record.

    Attributes:
        cpu: where the program ran.
        value: what it wrote; bytes come with padding up to 8 bytes.
    """

    cpu: int
    value: Value


class _Ring:
    """The ring of one CPU."""

    def __init__(self, kernel: MapKernel, cpu: int, pages: int, opened: ExitStack) -> None:
        event = PerfEvent(
            type=_TYPE_SOFTWARE,
            config=_COUNT_SW_BPF_OUTPUT,
            cpu=cpu,
            sample_type=_SAMPLE_RAW,
            sample_period=1,
            wakeup_events=1,
        )
        self.cpu = cpu
        self.fd = kernel.perf_event_open(event)
        opened.callback(kernel.close, self.fd)
        self._size = pages * mmap.PAGESIZE
        memory = kernel.map_memory(self.fd, 0, mmap.PAGESIZE + self._size, writable=True)
        opened.callback(memory.close)
        self._words = opened.enter_context(memory.view[: mmap.PAGESIZE].cast("Q"))
        self._data = opened.enter_context(memory.view[mmap.PAGESIZE :])
        kernel.perf_event_enable(self.fd)

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Yield type and body of each record, and give its room back."""
        tail = self._words[_TAIL]
        while tail < (head := load_acquire(self._words, _HEAD)):
            if head - tail > self._size:
                raise InputError(f"{head - tail} bytes in a ring of {self._size}")
            kind, _, size = _HEADER.unpack(self._bytes(tail, _HEADER.size))
            if not _HEADER.size <= size <= self._size:
                raise InputError(f"a record of {size} bytes in a ring of {self._size}")
            body = self._bytes(tail + _HEADER.size, size - _HEADER.size)
            tail += size
            store_release(self._words, _TAIL, tail)
            yield kind, body

    def _bytes(self, position: int, size: int) -> bytes:
        """Return bytes of the ring, which go on at its start."""
        start = position % self._size
        data = bytes(self._data[start : start + size])
        return data + bytes(self._data[: size - len(data)])


class PerfBuffer(Reader[PerfSample]):
    """The reader of a perf buffer, which it fills with an event for each CPU.

    `lost` counts the records that found no room.

    Args:
        source: the map.
        decode: what samples are: the name of a struct of the object, a codec or a function;
            ``None`` for bytes.
        pages: pages of each CPU's ring, a power of two.

    Raises:
        UsageError: a map of another type, or no such struct.
        KernelError: the kernel opens no such events.
    """

    def __init__(
        self, source: Map, decode: str | Codec | Decode | None = None, *, pages: int = 16
    ) -> None:
        if source.type is not MapType.PERF_EVENT_ARRAY:
            raise UsageError(f"map {source.name} is a {source.type.name}, not a PERF_EVENT_ARRAY")
        if pages < 1 or pages & pages - 1:
            raise UsageError(f"{pages} pages are no power of two")
        self._decode = decoder(source, decode)
        super().__init__(source)
        try:
            self._rings = list(self._open(source, pages))
        except BaseException:
            self.close()
            raise

    def _open(self, source: Map, pages: int) -> Iterator[_Ring]:
        kernel = source.kernel
        for cpu in range(min(kernel.possible_cpus, source.entry.max_entries)):
            try:
                ring = _Ring(kernel, cpu, pages, self._opened)
            except KernelError as error:
                if error.errno == errno.ENODEV:
                    continue  # the CPU is not running
                raise
            source[cpu] = ring.fd
            self._epoll.register(ring.fd, select.EPOLLIN)
            yield ring

    def _records(self) -> Iterator[PerfSample]:
        """Yield the samples that are there now, one CPU after the other."""
        for ring in self._rings:
            for kind, body in ring.records():
                if kind == _RECORD_SAMPLE:
                    yield PerfSample(ring.cpu, self._decode(_raw(body)))
                elif kind == _RECORD_LOST:
                    self.lost += _lost(body)


def _raw(body: bytes) -> bytes:
    """Return what a program wrote into a sample."""
    size = int.from_bytes(body[: _SIZE.size], sys.byteorder)
    raw = body[_SIZE.size : _SIZE.size + size]
    if len(body) < _SIZE.size or len(raw) < size:
        raise InputError(f"a sample of {len(body)} bytes that says that it has {size}")
    return raw


def _lost(body: bytes) -> int:
    """Return how many records found no room."""
    if len(body) < _LOST.size:
        raise InputError(f"a record about lost ones of {len(body)} bytes")
    count: int = _LOST.unpack_from(body)[1]
    return count
