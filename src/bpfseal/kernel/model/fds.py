"""The table of file descriptors of the process that loads, and what they refer to.

A map, a program or a BTF lives as long as somebody refers to it: a fd, a program that uses it, a
map that contains it.

Example:
    >>> table = FdTable()
    >>> table.install(OpenFile("log"))
    3
    >>> table.listing()[3]
    'file log'
"""

from __future__ import annotations

from errno import EBADF, EINVAL
from typing import TypeVar

from bpfseal.kernel.model.refusal import refusal


class KernelObject:
    """Something that fds refer to.

    Attributes:
        id: the number that the kernel tells of it, in a count of its kind; 0 for none.
    """

    def __init__(self) -> None:
        self.id = 0
        self._references = 0

    def hold(self) -> None:
        """Count one reference more."""
        self._references += 1

    def drop(self) -> None:
        """Count one reference less; the last one releases the object."""
        self._references -= 1
        if not self._references:
            self.release()

    @property
    def alive(self) -> bool:
        """Whether anything refers to the object."""
        return self._references > 0

    @property
    def label(self) -> str:
        """What the object is, for people: ``map __loader.map``."""
        return type(self).__name__

    def release(self) -> None:
        """Give back what the object holds."""


class OpenFile(KernelObject):
    """A file of the caller that has nothing to do with BPF."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    @property
    def label(self) -> str:
        """``file`` and its name."""
        return f"file {self.name}"


Wanted = TypeVar("Wanted", bound=KernelObject)


class FdTable:
    """Open fds: 0 to 2 are the caller's standard streams, new ones take the lowest free number."""

    def __init__(self) -> None:
        self._open: dict[int, KernelObject] = {}
        for name in ("stdin", "stdout", "stderr"):
            self.install(OpenFile(name))

    def install(self, item: KernelObject, at: int | None = None) -> int:
        """Give `item` a fd, the lowest free one or `at` (as dup2 does), and return it."""
        fd = at if at is not None else next(n for n in range(2**31) if n not in self._open)
        if fd in self._open:
            self.close(fd)
        item.hold()
        self._open[fd] = item
        return fd

    def get(self, fd: int) -> KernelObject:
        """Return what an fd refers to.

        Raises:
            KernelError: EBADF.
        """
        if fd not in self._open:
            raise refusal(EBADF, "fs/file.c fdget", f"fd {fd} is not open")
        return self._open[fd]

    def find(self, fd: int) -> KernelObject | None:
        """Return what an fd refers to, or ``None`` if it is closed."""
        return self._open.get(fd)

    def get_as(self, fd: int, wanted: type[Wanted]) -> Wanted:
        """Return what an fd refers to if it is of the kind that is wanted.

        Raises:
            KernelError: EBADF for a closed fd, EINVAL for one of another kind.
        """
        item = self.get(fd)
        if not isinstance(item, wanted):
            source = "kernel/bpf/syscall.c __bpf_map_get, __bpf_prog_get; kernel/bpf/btf.c"
            raise refusal(EINVAL, source, f"fd {fd} is of another kind: {item.label}")
        return item

    def close(self, fd: int) -> None:
        """Close an fd.

        Raises:
            KernelError: EBADF.
        """
        item = self.get(fd)
        del self._open[fd]
        item.drop()

    def listing(self) -> dict[int, str]:
        """Return what each open fd refers to."""
        return {fd: item.label for fd, item in sorted(self._open.items())}
