"""Links: a program that is attached, as long as the link lives.

Example:
    >>> with skel.programs.on_exec.attach() as link:  # doctest: +SKIP
    ...     link.pin("/sys/fs/bpf/on_exec")
"""

from __future__ import annotations

import os
from typing import TextIO

from bpfseal.bpf.uapi import AttachType
from bpfseal.errors import KernelError, UsageError
from bpfseal.kernel.protocol import MapKernel
from bpfseal.skeleton.closing import Closing


class Link(Closing):
    """One attachment. Closing it detaches, unless it is pinned.

    Attributes:
        program: the program's name.
        attach_type: where it is attached (`AttachType`).
    """

    def __init__(self, kernel: MapKernel, fd: int, program: str, attach_type: int) -> None:
        self._kernel = kernel
        self._fd: int | None = fd
        self.program = program
        self.attach_type = attach_type

    @property
    def is_open(self) -> bool:
        """Whether this object still holds the link."""
        return self._fd is not None

    def fileno(self) -> int:
        """The fd of the link.

        Raises:
            UsageError: the link is closed.
        """
        if self._fd is None:
            raise UsageError(f"the link of {self.program} is closed")
        return self._fd

    def detach(self) -> None:
        """Detach the program now, even if the link is pinned, and close.

        Raises:
            KernelError: EOPNOTSUPP for kinds of links that end only when they are closed.
        """
        self._kernel.link_detach(self.fileno())
        self.close()

    def close(self) -> None:
        """Close the link; a second time does nothing."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            self._kernel.close(fd)

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Pin the link to a path in bpffs: it stays when this process ends.

        Raises:
            KernelError: EPERM outside of bpffs, EEXIST, ENOENT.
        """
        self._kernel.pin(self.fileno(), os.fspath(path))

    def open(self) -> TextIO:
        """Open the output of an iterator as a file; each file runs the iterator anew.

        Raises:
            UsageError: the program is no iterator.
            KernelError: the kernel refused.
        """
        if self.attach_type != AttachType.TRACE_ITER:
            raise UsageError(f"{self.program} is no iterator")
        fd = self._kernel.iter_create(self.fileno())
        return os.fdopen(fd, encoding="utf-8", errors="surrogateescape")

    def read(self) -> str:
        """Run an iterator to its end and return its output.

        Raises:
            UsageError: the program is no iterator.
            KernelError: the kernel refused, or the program ended the run with an error.
        """
        with self.open() as output:
            try:
                return output.read()
            except OSError as error:
                raise KernelError(error.errno or 0, error.strerror or "", step="read") from None

    def __repr__(self) -> str:
        state = "" if self.is_open else ", closed"
        return f"<link of {self.program}{state}>"
