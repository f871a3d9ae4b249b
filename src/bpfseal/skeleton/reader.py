"""What ring buffers and perf buffers have in common: wait for records, hand them out.

Example:
    >>> with RingBuffer(skel.maps.events, "event") as events:  # doctest: +SKIP
    ...     for event in events:  # waits, and goes on until somebody breaks out
    ...         print(event.pid, event.comm)
    >>> async for event in events: ...  # doctest: +SKIP
"""

from __future__ import annotations

import select
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Generic, TypeVar

from bpfseal.errors import InputError, UsageError
from bpfseal.skeleton.closing import Closing
from bpfseal.skeleton.maps import Map
from bpfseal.skeleton.values import Codec, Value

T = TypeVar("T")

Decode = Callable[[bytes], Value]
"""Makes a value of the bytes of a record."""


class Reader(Closing, Generic[T]):
    """Records that programs send, in the order in which they come.

    Attributes:
        lost: records that had no room, where the kernel tells (a perf buffer does).
    """

    def __init__(self, source: Map) -> None:
        self.lost = 0
        self._source = source
        self._is_open = True
        self._waiting: set[Callable[[], object]] = set()
        self._opened = ExitStack()
        self._epoll = self._opened.enter_context(select.epoll())

    @abstractmethod
    def _records(self) -> Iterator[T]:
        """Yield the records that are there now, without waiting."""

    def _require_open(self) -> None:
        """Refuse to touch memory and fds that were given back."""
        if not self._is_open:
            raise UsageError(f"the reader of map {self._source.name} is closed")
        _ = self._source.fd

    def read(self) -> Iterator[T]:
        """Yield the records that are there now, without waiting.

        Raises:
            InputError: what is there is no record.
            UsageError: the reader or the skeleton is closed; all the others raise that, too.
        """
        self._require_open()
        return self._while_open()

    def _while_open(self) -> Iterator[T]:
        self._require_open()
        for record in self._records():
            yield record
            self._require_open()

    def fileno(self) -> int:
        """A fd that is readable when there are records."""
        self._require_open()
        return self._epoll.fileno()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for records; return whether there are any.

        Args:
            timeout: seconds, or ``None`` for as long as it takes.
        """
        self._require_open()
        return bool(self._epoll.poll(timeout))

    def poll(self, callback: Callable[[T], object], timeout: float | None = None) -> int:
        """Wait for records, call `callback` with each, and return how many there were.

        A record that a program is still writing holds up those behind it; the wait goes on for it.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not self.wait(left):
                return 0
            count = 0
            for record in self.read():
                callback(record)
                count += 1
            if count or left == 0:
                return count

    def __iter__(self) -> Iterator[T]:
        """Yield records for ever, waiting for more."""
        while True:
            self.wait()
            yield from self.read()

    async def __aiter__(self) -> AsyncIterator[T]:
        """Yield records for ever; other tasks run meanwhile."""
        import asyncio  # it takes 50 ms, which those who do not wait this way need not pay

        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        number = self.fileno()

        def leave() -> None:  # before the number is given to another file
            loop.remove_reader(number)
            ready.set()

        loop.add_reader(number, ready.set)
        self._waiting.add(leave)
        try:
            while True:
                await ready.wait()
                ready.clear()
                for record in self.read():
                    yield record
        finally:
            if leave in self._waiting:
                self._waiting.remove(leave)
                leave()

    def close(self) -> None:
        """Give back memory and fds; a second time does nothing."""
        self._is_open = False
        while self._waiting:
            self._waiting.pop()()
        self._opened.close()


def decoder(source: Map, wanted: str | Codec | Decode | None) -> Decode:
    """Return what makes a value of a record.

    Args:
        source: the map that the records come through.
        wanted: the name of a type of the object, a codec, a function, or ``None`` for bytes.

    Raises:
        UsageError: the object has no such type.
    """
    if isinstance(wanted, str):
        if source.types is None:
            raise UsageError(f"the object has no BTF to know {wanted!r} from")
        wanted = source.types.named(wanted)
    if not isinstance(wanted, Codec):
        return wanted or bytes
    codec = wanted

    def decode(data: bytes) -> Value:
        if len(data) < codec.size:
            raise InputError(f"a record of {len(data)} bytes for a type of {codec.size}")
        return codec.read(data, 0)

    return decode
