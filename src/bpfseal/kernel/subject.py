"""What scenarios are run on: raw bpf(2) and keys, of a model or of a kernel.

`bpfseal.kernel.model.subject.ModelSubject` is one, `bpfseal.kernel.linux.subject.LinuxSubject` the
other.

Example:
    >>> subject.bpf(Cmd.MAP_FREEZE, bytearray(attr.MAP_FREEZE.pack(map_fd=99)))  # doctest: +SKIP
    Traceback (most recent call last):
    bpfseal.errors.KernelError: -EBADF: fd 99 is not open
"""

from __future__ import annotations

from typing import Protocol


class Subject(Protocol):
    """A kernel under test, and the process that tests it. A refusal is a `KernelError`."""

    def bpf(self, command: int, attributes: bytearray) -> int:
        """Make a raw call to the BPF subsystem; what it writes back is in `attributes`."""

    def allocate(self, data: bytes) -> int:
        """Return the address of these bytes, which stay where they are."""

    def read_memory(self, address: int, size: int) -> bytes:
        """Return bytes at an address that `allocate` or `mmap` gave."""

    def mmap(self, fd: int, size: int, *, writable: bool) -> int:
        """Map a map's values and return their address."""

    def munmap(self, address: int) -> None:
        """Take a mapping away."""

    def close(self, fd: int) -> None:
        """Close a fd."""

    def join_session(self) -> int:
        """Start a new session keyring and return its serial."""

    def keyring_serial(self, keyring: int) -> int:
        """Return a keyring's serial."""

    def add_key(self, keyring: int, description: str, payload: bytes) -> int:
        """Add an X.509 key to a keyring and return its serial."""

    def revoke(self, serial: int) -> None:
        """Revoke a key or keyring."""

    def invalidate(self, serial: int) -> None:
        """Invalidate a key or keyring."""

    def unlink(self, serial: int, keyring: int) -> None:
        """Take a key out of a keyring."""

    def restrict(self, keyring: int) -> None:
        """Let a keyring take no more keys."""
