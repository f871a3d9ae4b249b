"""What scenarios are run on: raw bpf(2) and keys, on the model or on a kernel.

Example:
    >>> subject = ModelSubject(ModelKernel(profile=PROFILES["7.3"]))
    >>> subject.bpf(Cmd.MAP_FREEZE, bytearray(attr.MAP_FREEZE.pack(map_fd=99)))
    Traceback (most recent call last):
    bpfseal.errors.KernelError: -EBADF: fd 99 is not open
"""

from __future__ import annotations

from errno import EINVAL
from typing import Protocol

from bpfseal.bpf.uapi import KeyringId
from bpfseal.errors import KernelError
from bpfseal.kernel.model.kernel import ModelKernel
from bpfseal.kernel.model.keyring import SYSTEM

_FIRST_SPECIAL = -8
"""KEY_SPEC_REQUESTOR_KEYRING, the last of the special ids."""


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


class ModelSubject:
    """The kernel model as the subject of scenarios."""

    def __init__(self, kernel: ModelKernel) -> None:
        self.kernel = kernel

    def bpf(self, command: int, attributes: bytearray) -> int:
        """Make a raw call to the BPF subsystem."""
        return self.kernel.sys_bpf(command, attributes)

    def allocate(self, data: bytes) -> int:
        """Return the address of these bytes."""
        return self.kernel.allocate(data)

    def read_memory(self, address: int, size: int) -> bytes:
        """Return bytes at an address."""
        return self.kernel.read_memory(address, size)

    def mmap(self, fd: int, size: int, *, writable: bool) -> int:  # noqa: ARG002 (all of it is mapped)
        """Map a map's values."""
        return self.kernel.mmap(fd, writable=writable)

    def munmap(self, address: int) -> None:
        """Take a mapping away."""
        self.kernel.munmap(address)

    def close(self, fd: int) -> None:
        """Close a fd."""
        self.kernel.close(fd)

    def join_session(self) -> int:
        """Start a new session keyring."""
        return self.kernel.keyrings.join_session()

    def keyring_serial(self, keyring: int) -> int:
        """Return a keyring's serial."""
        return self.kernel.keyrings.serial(_user_id(keyring))

    def add_key(self, keyring: int, description: str, payload: bytes) -> int:
        """Add an X.509 key to a keyring."""
        return self.kernel.keyrings.add_key(_user_id(keyring), payload, description)

    def revoke(self, serial: int) -> None:
        """Revoke a key or keyring."""
        self.kernel.keyrings.revoke(serial)

    def invalidate(self, serial: int) -> None:
        """Invalidate a key or keyring."""
        self.kernel.keyrings.invalidate(serial)

    def unlink(self, serial: int, keyring: int) -> None:
        """Take a key out of a keyring."""
        self.kernel.keyrings.unlink(serial, keyring)

    def restrict(self, keyring: int) -> None:
        """Let a keyring take no more keys."""
        self.kernel.keyrings.restrict(_user_id(keyring))


def _user_id(keyring: int) -> int:
    """Return an id that add_key(2) and keyctl(2) know: those of system keyrings they do not.

    Raises:
        KernelError: EINVAL.
    """
    if keyring in SYSTEM or (keyring < _FIRST_SPECIAL and keyring != KeyringId.BPF):
        raise KernelError(EINVAL, f"{keyring} names no keyring of a user")
    return keyring
