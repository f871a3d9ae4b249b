"""What the elements of all map types have in common.

Source: the ``map_ops`` of each type (include/linux/bpf.h).

Example:
    >>> require_known(3)
    Traceback (most recent call last):
    bpfseal.errors.KernelError: -EINVAL: unknown flags 0x3
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EBADF, EINVAL, ENOENT
from typing import Protocol

from bpfseal.errors import KernelError
from bpfseal.kernel.model.fds import KernelObject
from bpfseal.kernel.model.map_facts import UpdateFlag
from bpfseal.kernel.model.refusal import ENOTSUPP, refusal

Resolve = Callable[[int], KernelObject]
"""Returns what a fd refers to; raises `KernelError`."""


def no_fds(fd: int) -> KernelObject:
    """Resolve no fd at all.

    Raises:
        KernelError: EBADF.
    """
    raise refusal(EBADF, "fs/file.c fdget", f"fd {fd} is not open")


class Elements(Protocol):
    """What a map holds. Every operation raises `KernelError` as the type's own does."""

    def lookup(self, key: bytes, /) -> bytes | None:
        """Return the value of a key, ``None`` for no such key."""

    def update(self, key: bytes, value: bytes, flags: int, resolve: Resolve, /) -> None:
        """Set one element; `resolve` is for values that are fds."""

    def delete(self, key: bytes, /) -> None:
        """Delete one element."""

    def pop(self, key: bytes, /) -> bytes | None:
        """Return the value of a key and delete it, ``None`` for no such key."""

    def next_key(self, key: bytes | None, /) -> bytes | None:
        """Return the key behind `key`, the first for ``None``; ``None`` behind the last."""

    def __len__(self) -> int:
        """The number of elements."""

    def release(self) -> None:
        """Let go of what the elements refer to."""


def require_known(flags: int) -> None:
    """Refuse flags of an update that no map knows.

    Raises:
        KernelError: EINVAL.
    """
    if flags not in set(UpdateFlag):
        raise refusal(EINVAL, "kernel/bpf, map_update_elem", f"unknown flags {flags:#x}")


def not_supported(operation: str, what: str) -> KernelError:
    """Return the answer of a type that lacks an operation."""
    return refusal(ENOTSUPP, "kernel/bpf, map_ops", f"{what} has no {operation}")


def no_such_key() -> KernelError:
    """Return the answer to the deletion of what is not there."""
    return refusal(ENOENT, "kernel/bpf/syscall.c map_delete_elem", "no such key")
