"""Read a BPF ring buffer (BPF_MAP_TYPE_RINGBUF).

The map is three parts of memory: a page with the position that the consumer has read up to, a page
with the position that the producers have written up to, and the data, mapped twice in a row so that
no record is ever broken. Each record has 8 bytes of header; its length carries the bits that say
"still being written" and "discarded".

Source: kernel/bpf/ringbuf.c, ``ringbuf_process_ring`` in tools/lib/bpf/ringbuf.c.

Example:
    >>> with RingBuffer(skel.maps.events, "event") as events:  # doctest: +SKIP
    ...     events.poll(print, timeout=0.1)
    Record(pid=811, parent=1, lifetime_ns=12345, comm='sh')
    1
"""

from __future__ import annotations

import mmap
import select
from collections.abc import Iterator
from typing import Final

from bpfseal.bpf.uapi import MapType
from bpfseal.errors import InputError, UsageError
from bpfseal.kernel.linux.memory import load_acquire, store_release
from bpfseal.skeleton.maps import Map
from bpfseal.skeleton.reader import Decode, Reader, decoder
from bpfseal.skeleton.values import Codec, Value

_BUSY: Final = 1 << 31
_DISCARD: Final = 1 << 30
"""BPF_RINGBUF_BUSY_BIT and BPF_RINGBUF_DISCARD_BIT."""

_HEADER_SIZE: Final = 8
"""BPF_RINGBUF_HDR_SZ."""


class RingBuffer(Reader[Value]):
    """The reader of a ring buffer. There is one position: two readers share the records.

    Args:
        source: the map.
        decode: what records are: the name of a struct of the object, a codec or a function;
            ``None`` for bytes.

    Raises:
        UsageError: a map of another type, or no such struct.
        KernelError: the map cannot be mapped into memory.
    """

    def __init__(self, source: Map, decode: str | Codec | Decode | None = None) -> None:
        if source.type is not MapType.RINGBUF:
            raise UsageError(f"map {source.name} is a {source.type.name}, not a RINGBUF")
        self._decode = decoder(source, decode)
        super().__init__(source)
        try:
            self._map(source)
        except BaseException:
            self.close()
            raise

    def _map(self, source: Map) -> None:
        page, size = mmap.PAGESIZE, source.entry.max_entries
        memory = source.kernel.map_memory
        opened = self._opened
        consumer = memory(source.fd, 0, page, writable=True)
        opened.callback(consumer.close)
        producer = memory(source.fd, page, page + 2 * size, writable=False)
        opened.callback(producer.close)
        self._size = size
        self._consumer = opened.enter_context(consumer.view.cast("Q"))
        self._producer = opened.enter_context(producer.view[:8].cast("Q"))
        self._data = opened.enter_context(producer.view[page:])
        self._lengths = opened.enter_context(self._data.cast("I"))
        self._epoll.register(source.fd, select.EPOLLIN)

    def _records(self) -> Iterator[Value]:
        """Yield the records that are complete now."""
        position = self._consumer[0]
        while position < (end := load_acquire(self._producer, 0)):
            if end - position > self._size:
                raise InputError(f"{end - position} bytes in a ring buffer of {self._size}")
            start = position & self._size - 1
            length = load_acquire(self._lengths, start // 4)
            if length & _BUSY:
                return
            size = length & ~_DISCARD
            if size > self._size - _HEADER_SIZE:
                raise InputError(f"a record of {size} bytes in a ring buffer of {self._size}")
            begin = start + _HEADER_SIZE
            data = b"" if length & _DISCARD else bytes(self._data[begin : begin + size])
            position += (_HEADER_SIZE + size + 7) & ~7
            store_release(self._consumer, 0, position)
            if not length & _DISCARD:
                yield self._decode(data)
