"""What a load needs of a kernel.

`load()` is written once against `Kernel`. The model (`bpfseal.kernel.model`) and, later, a real
kernel give the same answers to the same calls: a value, or a `KernelError` with the errno.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class MapCreate:
    """BPF_MAP_CREATE. `excl_prog_hash` is ``None`` for a map that any program may use."""

    type: int
    name: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    excl_prog_hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class ProgLoad:
    """BPF_PROG_LOAD. `signature` is ``None`` for an unsigned load; `btf_fd` 0 is no BTF."""

    type: int
    name: str
    insns: bytes
    license: str
    flags: int = 0
    fd_array: tuple[int, ...] = ()
    fd_array_cnt: int = 0
    btf_fd: int = 0
    signature: bytes | None = None
    keyring_id: int = 0
    log_level: int = 0


class RunResult(NamedTuple):
    """What BPF_PROG_RUN gave back.

    Attributes:
        retval: the signed 32-bit return value.
        ctx: the context after the run.
        rule: the check behind a negative `retval` and its source, where the kernel tells (the
            model does).
    """

    retval: int
    ctx: bytes
    rule: str = ""


class Kernel(Protocol):
    """The operations of a load. Every one raises `KernelError` when the kernel refuses."""

    @property
    def description(self) -> str:
        """One line that names the kernel, for example ``model of the kfunc series``."""

    def map_create(self, request: MapCreate) -> int:
        """Create a map and return its fd."""

    def map_update(self, fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set one element."""

    def map_freeze(self, fd: int) -> None:
        """Make the map read-only for user space for ever."""

    def map_hash(self, fd: int) -> bytes:
        """Ask for the SHA-256 of the map's contents (BPF_OBJ_GET_INFO_BY_FD with `hash`)."""

    def btf_load(self, data: bytes) -> int:
        """Load a BTF and return its fd."""

    def prog_load(self, request: ProgLoad) -> int:
        """Load a program and return its fd."""

    def prog_run(self, fd: int, ctx: bytes) -> RunResult:
        """Run a SYSCALL program once with this context."""

    def close(self, fd: int) -> None:
        """Close an fd."""
