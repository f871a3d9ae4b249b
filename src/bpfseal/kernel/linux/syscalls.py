"""System calls that Python lacks, through ctypes: the one place that makes raw system calls.

Only the standard library is needed, so this runs in an initramfs. Errors are `KernelError` with the
errno.

Example:
    >>> bpf(Cmd.MAP_FREEZE, bytearray(attr.MAP_FREEZE.pack(map_fd=fd)))  # doctest: +SKIP
    0
"""

from __future__ import annotations

import ctypes
import os
import platform
from errno import EAGAIN, EINTR, errorcode
from typing import Final, NamedTuple

from bpfseal.errors import CapabilityError, KernelError
from bpfseal.signals import undisturbed

KEYCTL_GET_KEYRING_ID: Final = 0
KEYCTL_JOIN_SESSION_KEYRING: Final = 1
KEYCTL_REVOKE: Final = 3
KEYCTL_UNLINK: Final = 9
"""Operations of keyctl(2) (include/uapi/linux/keyctl.h)."""


class _Numbers(NamedTuple):
    """Numbers of the system calls on one architecture."""

    bpf: int
    add_key: int
    keyctl: int
    perf_event_open: int


_GENERIC: Final = _Numbers(bpf=280, add_key=217, keyctl=219, perf_event_open=241)
_NUMBERS: Final = {
    "x86_64": _Numbers(bpf=321, add_key=248, keyctl=250, perf_event_open=298),
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
    "loongarch64": _GENERIC,
    "s390x": _Numbers(bpf=351, add_key=278, keyctl=280, perf_event_open=331),
    "ppc64le": _Numbers(bpf=361, add_key=269, keyctl=271, perf_event_open=319),
}
"""By machine: arch/*/kernel/syscalls/syscall*.tbl and include/uapi/asm-generic/unistd.h."""

_PERF_FLAG_FD_CLOEXEC: Final = 8

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Buffer:
    """Bytes at an address that stays valid as long as the object lives."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._array = (ctypes.c_char * max(len(data), 1)).from_buffer_copy(bytes(data) or b"\0")
        self._size = len(data)

    @property
    def address(self) -> int:
        """Where the bytes are."""
        return ctypes.addressof(self._array)

    @property
    def pointer(self) -> int:
        """The address, or NULL for no bytes: some calls refuse a pointer to nothing."""
        return self.address if self._size else 0

    @property
    def data(self) -> bytes:
        """The bytes as they are now."""
        return self._array.raw[: self._size]


def _numbers() -> _Numbers:
    machine = platform.machine()
    try:
        return _NUMBERS[machine]
    except KeyError:
        raise CapabilityError(f"no system call numbers for {machine} are known") from None


def _syscall(number: int, *arguments: object) -> int:
    """Make a system call; again, if a signal disturbed it.

    The verifier gives up with EAGAIN when a signal is pending (kernel/bpf/verifier.c do_check), a
    test run with EINTR (net/bpf/test_run.c bpf_test_timer_continue).

    Raises:
        KernelError: it answered with an errno.
    """

    def call() -> tuple[int, int]:
        ctypes.set_errno(0)
        result = int(_libc.syscall(ctypes.c_long(number), *arguments))
        return result, ctypes.get_errno() if result < 0 else 0

    result, errno = undisturbed(call, lambda answer: answer[1] in (EAGAIN, EINTR))
    if result < 0:
        raise KernelError(errno, os.strerror(errno) if errno in errorcode else "")
    return result


def bpf(command: int, attr: bytearray) -> int:
    """Make a call to the BPF subsystem and return its result.

    Args:
        command: a `bpfseal.bpf.uapi.Cmd`.
        attr: the attribute; the kernel may write into it. Its length is the size passed.

    Raises:
        KernelError: the kernel refused.
        CapabilityError: the machine is not known.
    """
    array = (ctypes.c_char * len(attr)).from_buffer(attr)
    return _syscall(_numbers().bpf, ctypes.c_int(command), array, ctypes.c_uint(len(attr)))


def add_key(kind: str, description: str, payload: bytes, keyring: int) -> int:
    """Add a key to a keyring and return its serial number.

    Raises:
        KernelError: the kernel refused.
    """
    return _syscall(
        _numbers().add_key,
        ctypes.c_char_p(kind.encode()),
        ctypes.c_char_p(description.encode()),
        ctypes.c_char_p(payload),
        ctypes.c_size_t(len(payload)),
        ctypes.c_int(keyring),
    )


def keyctl(operation: int, *arguments: int) -> int:
    """Make a call to the key management with number arguments and return its result.

    Raises:
        KernelError: the kernel refused.
    """
    return _syscall(
        _numbers().keyctl, ctypes.c_int(operation), *(ctypes.c_long(a) for a in arguments)
    )


def perf_event_open(attributes: Buffer, pid: int, cpu: int) -> int:
    """Open a perf event and return its fd.

    Args:
        attributes: a ``struct perf_event_attr``.
        pid: the process, or -1 for all on a CPU.
        cpu: the CPU, or -1 for all of a process.

    Raises:
        KernelError: the kernel refused.
    """
    return _syscall(
        _numbers().perf_event_open,
        ctypes.c_void_p(attributes.address),
        ctypes.c_int(pid),
        ctypes.c_int(cpu),
        ctypes.c_int(-1),
        ctypes.c_ulong(_PERF_FLAG_FD_CLOEXEC),
    )
