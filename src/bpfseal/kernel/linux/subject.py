"""The running kernel as the subject of scenarios.

Scenarios load SYSCALL programs and make maps and keys; nothing attaches to anything. They need
CAP_BPF and CAP_PERFMON.

Example:
    >>> subject = LinuxSubject()  # doctest: +SKIP
    >>> run_scenario(scenario, collection, subject, groups)  # doctest: +SKIP
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import Final

from bpfseal.errors import KernelError
from bpfseal.kernel.linux.syscalls import (
    KEYCTL_GET_KEYRING_ID,
    KEYCTL_JOIN_SESSION_KEYRING,
    KEYCTL_REVOKE,
    KEYCTL_UNLINK,
    Buffer,
    add_key,
    bpf,
    keyctl,
)

_KEYCTL_INVALIDATE: Final = 21
_KEYCTL_RESTRICT_KEYRING: Final = 29
"""Operations of keyctl(2) (include/uapi/linux/keyctl.h)."""

_KEYS: Final = Path("/proc/keys")
_COLLECTED_IN: Final = 10.0
"""Seconds that a collection of keys may take."""


class LinuxSubject:
    """The kernel that runs this process. It implements `bpfseal.kernel.subject.Subject`."""

    def __init__(self) -> None:
        self._buffers: dict[int, Buffer] = {}
        self._mappings: dict[int, mmap.mmap] = {}

    def bpf(self, command: int, attributes: bytearray) -> int:
        """Make a raw call to the BPF subsystem."""
        return bpf(command, attributes)

    def allocate(self, data: bytes) -> int:
        """Return the address of these bytes."""
        buffer = Buffer(data)
        self._buffers[buffer.address] = buffer
        return buffer.address

    def read_memory(self, address: int, size: int) -> bytes:
        """Return bytes at an address that `allocate` gave."""
        return self._buffers[address].data[:size]

    def mmap(self, fd: int, size: int, *, writable: bool) -> int:
        """Map a map's values and return their address."""
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        try:
            mapped = mmap.mmap(fd, size, mmap.MAP_SHARED, protection)
        except OSError as error:
            raise KernelError(error.errno or 0, error.strerror or "") from None
        self._mappings[id(mapped)] = mapped
        return id(mapped)

    def munmap(self, address: int) -> None:
        """Take a mapping away."""
        self._mappings.pop(address).close()

    def close(self, fd: int) -> None:
        """Close a fd."""
        os.close(fd)

    def join_session(self) -> int:
        """Start a new session keyring, which goes away with this process."""
        return keyctl(KEYCTL_JOIN_SESSION_KEYRING, 0)

    def keyring_serial(self, keyring: int) -> int:
        """Return a keyring's serial."""
        return keyctl(KEYCTL_GET_KEYRING_ID, keyring, 0)

    def add_key(self, keyring: int, description: str, payload: bytes) -> int:
        """Add an X.509 key to a keyring."""
        return add_key("asymmetric", description, payload, keyring)

    def revoke(self, serial: int) -> None:
        """Revoke a key or keyring."""
        keyctl(KEYCTL_REVOKE, serial)

    def invalidate(self, serial: int) -> None:
        """Invalidate a key or keyring, and wait until the kernel has collected it.

        That happens in the background (security/keys/gc.c); until then, the key counts as revoked.
        """
        keyctl(_KEYCTL_INVALIDATE, serial)
        end = time.monotonic() + _COLLECTED_IN
        while f"{serial:08x} " in _KEYS.read_text() and time.monotonic() < end:
            time.sleep(0.01)

    def unlink(self, serial: int, keyring: int) -> None:
        """Take a key out of a keyring."""
        keyctl(KEYCTL_UNLINK, serial, keyring)

    def restrict(self, keyring: int) -> None:
        """Let a keyring take no more keys."""
        keyctl(_KEYCTL_RESTRICT_KEYRING, keyring, 0, 0)
