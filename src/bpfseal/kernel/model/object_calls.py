"""The calls of a skeleton object on the model: elements of maps, links, pins.

A part of `bpfseal.kernel.model.kernel.ModelKernel`. A load makes neither links nor pins, so that
their modules are imported where they are needed. What the model has none of is a
`CapabilityError`: packets, perf events, ring buffers, iterators.

Example:
    >>> kernel.map_next_key(fd, None, 4)
    b'key1'
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EFAULT, EINVAL
from typing import NoReturn, TypeVar

from bpfseal.errors import CapabilityError
from bpfseal.kernel.model.map_rules import PAGE_SIZE
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.memory import Region
from bpfseal.kernel.model.program import ModelProgram
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.state import USER, KernelState
from bpfseal.kernel.protocol import LinkCreate, PerfEvent, TestResult

T = TypeVar("T")


class ModelMemory:
    """A mapping of a map's values. It implements `bpfseal.kernel.protocol.MappedMemory`."""

    def __init__(self, target: ModelMap, mapped: Region, offset: int, size: int) -> None:
        self._target = target
        self._region = mapped
        self._view = memoryview(mapped.data)[offset : offset + size]
        if not mapped.writable:
            self._view = self._view.toreadonly()
        self._is_open = True

    @property
    def view(self) -> memoryview:
        """The bytes, live, as far as the values of the map reach."""
        return self._view

    def close(self) -> None:
        """Take the mapping away; a second time does nothing."""
        if self._is_open:
            self._is_open = False
            self._view.release()
            self._target.munmap(self._region)


class ObjectCalls:
    """The calls of `bpfseal.kernel.protocol.MapKernel` that come after a load."""

    _state: KernelState

    @property
    def possible_cpus(self) -> int:
        """How many values a per-CPU map has under each key."""
        return self._state.profile.possible_cpus

    def _record(self, name: str, about: str, call: Callable[[], T]) -> T:
        return self._state.record(USER, name, about, call)

    def _map(self, fd: int) -> ModelMap:
        return self._state.fds.get_as(fd, ModelMap)

    def map_lookup(self, fd: int, key: bytes, size: int) -> bytes | None:
        """Return the first `size` bytes of the value of a key, or ``None``.

        Raises:
            KernelError: EBADF, EINVAL for no map, EPERM, ENOTSUPP.
        """
        return self._read("map_lookup", fd, size, lambda used: used.lookup(_key(used, key)))

    def map_lookup_and_delete(self, fd: int, key: bytes, size: int) -> bytes | None:
        """Return the first `size` bytes of the value of a key and delete it, or ``None``.

        Raises:
            KernelError: EBADF, EINVAL for no map, EPERM, ENOTSUPP.
        """
        name = "map_lookup_and_delete"
        return self._read(name, fd, size, lambda used: used.pop(_key(used, key)))

    def map_next_key(self, fd: int, key: bytes | None, size: int) -> bytes | None:
        """Return the key behind `key`, or ``None`` behind the last one.

        Raises:
            KernelError: EBADF, EINVAL, EPERM, ENOTSUPP.
        """

        def call(used: ModelMap) -> bytes | None:
            return used.next_key(_key(used, key) if key is not None else None)

        return self._read("map_next_key", fd, size, call)

    def _read(
        self, name: str, fd: int, size: int, read: Callable[[ModelMap], bytes | None]
    ) -> bytes | None:
        found = self._record(name, f"fd {fd}", lambda: read(self._map(fd)))
        return found if found is None else found[:size]

    def map_delete(self, fd: int, key: bytes) -> None:
        """Delete one element.

        Raises:
            KernelError: EBADF, EINVAL, ENOENT, EPERM, ENOTSUPP.
        """

        def call() -> None:
            target = self._map(fd)
            target.delete(_key(target, key))

        self._record("map_delete", f"fd {fd}", call)

    def map_memory(self, fd: int, offset: int, size: int, *, writable: bool) -> ModelMemory:
        """Map the values of an array.

        Raises:
            KernelError: EBADF, EINVAL for no map or more than there is, ENOTSUPP, EPERM, EACCES.
        """

        def call() -> ModelMemory:
            target = self._map(fd)
            mapped = target.mmap(writable=writable)
            room = -(-len(mapped.data) // PAGE_SIZE) * PAGE_SIZE
            if offset % PAGE_SIZE or offset + size > room:
                target.munmap(mapped)
                source = "kernel/bpf/arraymap.c array_map_mmap"
                raise refusal(EINVAL, source, f"{size} bytes from {offset} of {room}")
            return ModelMemory(target, mapped, offset, size)

        return self._record("mmap", f"fd {fd}", call)

    def link_create(self, request: LinkCreate) -> int:
        """Make a link, which attaches nothing, and return its fd.

        Raises:
            KernelError: EBADF, EINVAL.
        """
        from bpfseal.kernel.model.links import create_link

        def call() -> int:
            target_btf_id = request.numbers.get("target_btf_id", 0)
            fd, attach_type = request.prog_fd, request.attach_type
            return create_link(self._state, fd, attach_type, request.target, target_btf_id)

        return self._record("link_create", f"fd {request.prog_fd}", call)

    def raw_tracepoint_open(self, prog_fd: int, name: str) -> int:
        """Make a link to a raw tracepoint, or with ``""`` to what was fixed at load time.

        Raises:
            KernelError: EBADF, EINVAL, ENOENT.
        """
        from bpfseal.kernel.model.links import NAMED_TRACEPOINTS, open_raw_tracepoint

        def call() -> int:
            program = self._state.fds.get_as(prog_fd, ModelProgram)
            is_named = bool(name) or program.type in NAMED_TRACEPOINTS
            return open_raw_tracepoint(self._state, program, name if is_named else None)

        return self._record("raw_tracepoint_open", f"fd {prog_fd}", call)

    def link_detach(self, fd: int) -> None:
        """Detach a link while it is still open.

        Raises:
            KernelError: EBADF, EINVAL.
        """
        from bpfseal.kernel.model.links import detach_link

        self._record("link_detach", f"fd {fd}", lambda: detach_link(self._state, fd))

    def pin(self, fd: int, path: str) -> None:
        """Pin a map, program or link to a path.

        Raises:
            KernelError: EBADF, EINVAL, EEXIST, EPERM.
        """
        from bpfseal.kernel.model.pins import pin

        self._record("obj_pin", path, lambda: pin(self._state, fd, path))

    def open_pinned(self, path: str) -> int:
        """Return a fd of what is pinned at a path.

        Raises:
            KernelError: ENOENT.
        """
        from bpfseal.kernel.model.pins import open_pinned

        return self._record("obj_get", path, lambda: open_pinned(self._state, path))

    def prog_test_run(
        self,
        fd: int,
        data: bytes,  # noqa: ARG002 (no such program runs)
        ctx: bytes = b"",  # noqa: ARG002 (no such program runs)
        repeat: int = 1,  # noqa: ARG002 (no such program runs)
    ) -> TestResult:
        """Refuse: the model runs SYSCALL programs only.

        Raises:
            KernelError: EBADF, EINVAL for no program.
            CapabilityError: for every program.
        """
        program = self._state.fds.get_as(fd, ModelProgram)
        _lacks(f"test runs of {program.type.name} programs")

    def iter_create(self, link_fd: int) -> int:  # noqa: ARG002 (none of them works)
        """Refuse: the model attaches nothing that could be iterated over.

        Raises:
            CapabilityError: always.
        """
        _lacks("iterators")

    def perf_event_open(self, request: PerfEvent) -> int:  # noqa: ARG002 (none of them works)
        """Refuse: the model has no perf events.

        Raises:
            CapabilityError: always.
        """
        _lacks("perf events")

    def perf_event_enable(self, fd: int) -> None:  # noqa: ARG002 (none of them works)
        """Refuse: the model has no perf events.

        Raises:
            CapabilityError: always.
        """
        _lacks("perf events")


def _key(target: ModelMap, key: bytes) -> bytes:
    """Return as many bytes of a key as the map reads.

    Raises:
        KernelError: EFAULT.
    """
    size = target.attributes.key_size
    if len(key) < size:
        source = "kernel/bpf/syscall.c __bpf_copy_key"
        raise refusal(EFAULT, source, f"{target.label} reads {size} bytes of a key")
    return key[:size]


def _lacks(what: str) -> NoReturn:
    raise CapabilityError(f"the kernel model has no {what}")
