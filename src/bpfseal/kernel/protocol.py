"""What a load, and then a skeleton object, needs of a kernel.

`load()` is written once against `Kernel`, the skeleton object (`bpfseal.skeleton`) against
`MapKernel`. The model (`bpfseal.kernel.model`) and the running kernel (`bpfseal.kernel.linux`) give
the same answers to the same calls: a value, or a `KernelError` with the errno.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol


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


class MapInfo(NamedTuple):
    """What the kernel says of a map (``struct bpf_map_info``)."""

    type: int
    key_size: int
    value_size: int
    max_entries: int


class ProgInfo(NamedTuple):
    """What the kernel says of a program (``struct bpf_prog_info``)."""

    type: int


NO_POINTERS: Final[Mapping[int, bytes]] = MappingProxyType({})


class Kernel(Protocol):
    """The operations of a load. Every one raises `KernelError` when the kernel refuses."""

    @property
    def description(self) -> str:
        """One line that names the kernel, for example ``model of the kfunc series``."""

    def accepted_scheme(self) -> str | None:
        """The strongest scheme of signed loaders that the kernel takes, by its features.

        ``None`` if it takes none, or its features do not tell.
        """

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

    def prog_run(
        self, fd: int, ctx: bytes, pointers: Mapping[int, bytes] = NO_POINTERS
    ) -> RunResult:
        """Run a SYSCALL program once with this context.

        `pointers` are bytes of user memory, by the offset in the context where their address goes.
        """

    def map_info(self, fd: int) -> MapInfo:
        """Return the facts of a map (BPF_OBJ_GET_INFO_BY_FD)."""

    def prog_info(self, fd: int) -> ProgInfo:
        """Return the facts of a program (BPF_OBJ_GET_INFO_BY_FD)."""

    def close(self, fd: int) -> None:
        """Close an fd."""


@dataclass(frozen=True, slots=True)
class LinkCreate:
    """BPF_LINK_CREATE.

    The fields of the union that differ from kind to kind of link are given by name, in the layout
    that the kind has (`bpfseal.bpf.attr`, ``LINK_CREATE_*``).

    Attributes:
        prog_fd: the program.
        attach_type: a `bpfseal.bpf.uapi.AttachType`.
        target: a fd or the index of a network interface, as the attach type wants.
        flags: flags of the kind of link.
        kind: the name of a layout in `bpfseal.bpf.attr.LINK_KINDS`, or ``""`` for none.
        numbers: numeric fields of that layout, without those of `data` and `texts`.
        data: fields that point to bytes.
        texts: fields that point to an array of strings.
    """

    prog_fd: int
    attach_type: int
    target: int = 0
    flags: int = 0
    kind: str = ""
    numbers: Mapping[str, int] = field(default_factory=dict)
    data: Mapping[str, bytes] = field(default_factory=dict)
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PerfEvent:
    """perf_event_open(2) of the events that programs attach to or write to.

    Attributes:
        type: ``perf_event_attr.type``: a PERF_TYPE_*, or the number of a dynamic source
            (``/sys/bus/event_source/devices/kprobe/type``).
        config: which event of the type.
        config1: for probes the function or file; bytes are passed as a pointer to a C string.
        config2: for probes the offset.
        cpu: the CPU, or -1 for all of a process.
        pid: the process, or -1 for all on a CPU.
        sample_type: PERF_SAMPLE_*.
        sample_period: events from one sample to the next, or a frequency with `is_frequency`.
        wakeup_events: samples from one wake-up of a reader to the next.
        is_frequency: `sample_period` is in samples per second.
    """

    type: int
    config: int
    config1: bytes | int = 0
    config2: int = 0
    cpu: int = 0
    pid: int = -1
    sample_type: int = 0
    sample_period: int = 0
    wakeup_events: int = 0
    is_frequency: bool = False


class TestResult(NamedTuple):
    """What BPF_PROG_TEST_RUN gave back.

    Attributes:
        retval: the return value, unsigned 32 bit: an XDP action, the bytes that a filter keeps.
        data: the packet after the run.
        ctx: the context after the run.
        duration: the mean time of a run, in nanoseconds.
    """

    retval: int
    data: bytes
    ctx: bytes
    duration: int


class MappedMemory(Protocol):
    """A part of a map or perf event in the memory of this process."""

    @property
    def view(self) -> memoryview:
        """The bytes, live: what a program writes is seen, what is written reaches the program."""

    def close(self) -> None:
        """Take the mapping away; `view` is not valid any more. A second time does nothing."""


class MapKernel(Kernel, Protocol):
    """The operations of a skeleton object: what comes after the load.

    All raise `KernelError` when the kernel refuses, and `CapabilityError` where a kernel (the
    model) has no such operation at all.
    """

    @property
    def possible_cpus(self) -> int:
        """How many values a per-CPU map has under each key."""

    def map_lookup(self, fd: int, key: bytes, size: int) -> bytes | None:
        """Return the value of a key, ``None`` for ENOENT.

        Args:
            fd: the map.
            key: the key; ``b""`` looks at the next element of a queue, stack or bloom filter.
            size: bytes that the kernel writes: the value's, or for a per-CPU map the value's
                rounded up to 8 times `possible_cpus`.
        """

    def map_lookup_and_delete(self, fd: int, key: bytes, size: int) -> bytes | None:
        """Return the value of a key and delete it, ``None`` for ENOENT; ``b""`` pops a queue."""

    def map_delete(self, fd: int, key: bytes) -> None:
        """Delete one element."""

    def map_next_key(self, fd: int, key: bytes | None, size: int) -> bytes | None:
        """Return the key of `size` bytes behind `key`, the first for ``None``.

        ``None`` comes back behind the last one (ENOENT).
        """

    def map_memory(self, fd: int, offset: int, size: int, *, writable: bool) -> MappedMemory:
        """Map a map or a perf event into memory: `size` bytes from `offset`, in whole pages."""

    def prog_test_run(self, fd: int, data: bytes, ctx: bytes = b"", repeat: int = 1) -> TestResult:
        """Run a networking or raw tracepoint program on a packet and a context."""

    def link_create(self, request: LinkCreate) -> int:
        """Attach a program and return the link's fd."""

    def raw_tracepoint_open(self, prog_fd: int, name: str) -> int:
        """Attach to a raw tracepoint, or with ``""`` to what was fixed at load time."""

    def link_detach(self, fd: int) -> None:
        """Detach a link while it is still open."""

    def iter_create(self, link_fd: int) -> int:
        """Return a fd from which the output of an iterator is read."""

    def perf_event_open(self, request: PerfEvent) -> int:
        """Open a perf event and return its fd."""

    def perf_event_enable(self, fd: int) -> None:
        """Let a perf event count (PERF_EVENT_IOC_ENABLE)."""

    def pin(self, fd: int, path: str) -> None:
        """Pin a map, program or link to a path in bpffs (BPF_OBJ_PIN)."""

    def open_pinned(self, path: str) -> int:
        """Return a fd of what is pinned at a path (BPF_OBJ_GET)."""
