"""What the kernel holds right now: programs, maps, BTFs and keys, to see what a load leaves behind.

It needs the standard library only: guests use it, too.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from bpfseal.bpf import attr
from bpfseal.bpf.uapi import Cmd
from bpfseal.bundle.model import SignedLoader
from bpfseal.errors import KernelError
from bpfseal.kernel.linux.syscalls import bpf
from bpfseal.kernel.load import load
from bpfseal.kernel.protocol import Kernel

_KINDS = {"map": Cmd.MAP_GET_NEXT_ID, "prog": Cmd.PROG_GET_NEXT_ID, "btf": Cmd.BTF_GET_NEXT_ID}
_KEYS = Path("/proc/keys")


def kernel_objects() -> set[str]:
    """Return a name for each program, map, BTF and certificate in the kernel."""
    found = {f"{kind} {number}" for kind, command in _KINDS.items() for number in _ids(command)}
    keys = [line.split() for line in _KEYS.read_text().splitlines()] if _KEYS.exists() else []
    return found | {f"key {fields[0]}" for fields in keys if fields[7].startswith("asymmetri")}


def _ids(command: Cmd) -> list[int]:
    found = [0]
    while True:
        layout = attr.GET_NEXT_ID
        packed = bytearray(layout.pack(start_id=found[-1]))
        try:
            bpf(command, packed)
        except KernelError:  # ENOENT: there is none behind it
            return found[1:]
        found.append(layout.unpack(bytes(packed))["next_id"])


def left_behind(before: set[str], seconds: float = 20) -> list[str]:
    """Return what the kernel has come to hold since `before`, and still holds after a while.

    Kernels free in the background, and other processes make objects of their own meanwhile.
    """
    end = time.monotonic() + seconds
    left = kernel_objects() - before
    while left and time.monotonic() < end:
        time.sleep(0.05)
        left &= kernel_objects()
    return sorted(left)


def load_and_close(kernel: Kernel, signed: SignedLoader) -> None:
    """Load, and close all fds that came up; what has no signature is loaded without one."""
    loaded = load(kernel, signed, unsigned=not signed.signatures)
    for fd in (*loaded.map_fds.values(), *loaded.prog_fds.values()):
        kernel.close(fd)


def open_fds() -> int:
    """Return how many fds this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class _Doomed:
    """A kernel whose process is killed right behind one of its calls."""

    def __init__(self, kernel: Kernel, call: int) -> None:
        self._kernel, self._left = kernel, call

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._kernel, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            result = found(*arguments, **options)
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call


def doomed(kernel: Kernel, call: int) -> Kernel:
    """Return the kernel, which kills this process behind the given call, counted from 1."""
    return cast("Kernel", _Doomed(kernel, call))


def killed_child(work: Callable[[], object], after: float | None = None) -> bool:
    """Do something in a child process, and tell whether it was killed.

    Args:
        work: what the child does.
        after: the seconds after which it is killed; ``None`` if that is its own affair.
    """
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])
