"""A file descriptor of the kernel that knows whether it is still ours.

The number of a closed fd is given to the next file that is opened. So nothing keeps the number
itself: every operation asks the handle for it, and a closed one does not tell.

Example:
    >>> handle = Handle(kernel, 7, "map events")  # doctest: +SKIP
    >>> handle.close()  # doctest: +SKIP
    >>> handle.fd  # doctest: +SKIP
    Traceback (most recent call last):
    bpfseal.errors.UsageError: map events is closed
"""

from __future__ import annotations

from bpfseal.errors import UsageError
from bpfseal.kernel.load import close_quietly
from bpfseal.kernel.protocol import Kernel
from bpfseal.skeleton.closing import Closing


class Handle(Closing):
    """One fd, until it is closed.

    Args:
        kernel: whose fd it is.
        fd: the number; it belongs to the handle from now on.
        name: what it is, for error messages.
    """

    def __init__(self, kernel: Kernel, fd: int, name: str) -> None:
        self._kernel = kernel
        self._fd: int | None = fd
        self._name = name

    @property
    def is_open(self) -> bool:
        """Whether there is a fd."""
        return self._fd is not None

    @property
    def fd(self) -> int:
        """The number.

        Raises:
            UsageError: it is closed.
        """
        if self._fd is None:
            raise UsageError(
                f"{self._name} is closed", hint="the skeleton that it is of was closed"
            )
        return self._fd

    def close(self) -> None:
        """Close the fd; a second time does nothing."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            close_quietly(self._kernel, fd)
