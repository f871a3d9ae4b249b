"""Maps and perf events in the memory of this process.

Example:
    >>> memory = LinuxMemory(map_fd, 0, 4096, writable=True)  # doctest: +SKIP
    >>> load_acquire(memory.view.cast("Q"), 0)  # doctest: +SKIP
    7
"""

from __future__ import annotations

import mmap
import platform
import threading
from typing import Final

from bpfseal.errors import KernelError

_IN_ORDER: Final = platform.machine() in ("x86_64", "s390x")
"""Machines on which loads keep their order, and stores too."""

_fence: Final = threading.Lock()


class LinuxMemory:
    """A shared mapping. It implements `bpfseal.kernel.protocol.MappedMemory`.

    Args:
        fd: a map or a perf event; the mapping outlives it.
        offset: where to begin, in whole pages.
        size: bytes; the mapping takes whole pages, `view` shows this many.
        writable: whether `view` can be written.

    Raises:
        KernelError: the kernel refused.
    """

    def __init__(self, fd: int, offset: int, size: int, *, writable: bool) -> None:
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            self._pages = mmap.mmap(fd, pages, mmap.MAP_SHARED, protection, offset=offset)
        except OSError as error:
            raise KernelError(error.errno or 0, error.strerror or "", step="mmap") from None
        self._whole = memoryview(self._pages)
        self._view = self._whole[:size]

    @property
    def view(self) -> memoryview:
        """The bytes, live."""
        return self._view

    def close(self) -> None:
        """Take the mapping away; views that were made of `view` must have been released."""
        self._view.release()
        self._whole.release()
        self._pages.close()


def load_acquire(words: memoryview, index: int) -> int:
    """Load a word that somebody else writes; later loads see what was written before it.

    `words` must have a native format, such as ``memoryview.cast("Q")`` gives: CPython reads its
    items with one load of their size. ``struct`` with ``"<Q"`` puts the number together byte by
    byte and may see half of a write.

    x86-64 keeps the order of loads. On other machines taking a lock twice does: what lies before
    the first release is done before the second acquisition, and that before what follows.
    """
    value: int = words[index]
    if not _IN_ORDER:
        _order()
    return value


def store_release(words: memoryview, index: int, value: int) -> None:
    """Store a word for somebody else, after everything that was loaded and stored before it."""
    if not _IN_ORDER:
        _order()
    words[index] = value


def _order() -> None:
    with _fence:
        pass
    with _fence:
        pass
