r"""Maps as mappings.

Keys and values are what `bpfseal.skeleton.values` makes of the map's BTF, bytes where nothing
describes them; `raw` is the same map in bytes. A per-CPU map holds a tuple under each key, one
value for each possible CPU. Programs change maps at any time: ``dict(map.items())`` passes over a
key that goes away meanwhile, where ``dict(map)`` ends in a KeyError.

Example:
    >>> skel.maps.started[811]  # doctest: +SKIP
    1234567
    >>> skel.maps.packets[6]  # doctest: +SKIP
    (17, 0, 3, 1)
    >>> dict(skel.maps.started.raw)  # doctest: +SKIP
    {b'+\x03\x00\x00': b'\x87\xd6\x12\x00\x00\x00\x00\x00'}
"""

from __future__ import annotations

import errno
from abc import abstractmethod
from collections.abc import ItemsView, Iterator, MutableMapping, Sequence, ValuesView
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from bpfseal.bpf.insn import ByteOrder
from bpfseal.bpf.uapi import MapType
from bpfseal.errors import KernelError, UsageError
from bpfseal.kernel.protocol import MapKernel
from bpfseal.loader.model import MapEntry
from bpfseal.skeleton.handle import Handle
from bpfseal.skeleton.types import Types
from bpfseal.skeleton.values import Codec, IntCodec, RawCodec, Value

_T: Final = MapType

PER_CPU: Final = frozenset(
    {
        _T.PERCPU_HASH,
        _T.PERCPU_ARRAY,
        _T.LRU_PERCPU_HASH,
        _T.PERCPU_CGROUP_STORAGE,
    }
)
"""Types with a value for each CPU (``bpf_map_value_size`` in kernel/bpf/syscall.c)."""

INDEXED: Final = frozenset(
    {
        _T.ARRAY,
        _T.PERCPU_ARRAY,
        _T.PROG_ARRAY,
        _T.PERF_EVENT_ARRAY,
        _T.CGROUP_ARRAY,
        _T.ARRAY_OF_MAPS,
        _T.DEVMAP,
        _T.CPUMAP,
        _T.XSKMAP,
        _T.SOCKMAP,
        _T.REUSEPORT_SOCKARRAY,
    }
)
"""Types whose keys are the numbers from 0 to the size."""

SPARSE: Final = INDEXED - {_T.ARRAY, _T.PERCPU_ARRAY}
"""Those in which not every key has a value."""

QUEUES: Final = frozenset({_T.QUEUE, _T.STACK})
"""Types without keys, read and written at an end."""

WITHOUT_ELEMENTS: Final = frozenset({_T.RINGBUF, _T.USER_RINGBUF, _T.ARENA})
"""Types that are memory, not elements."""

_FDS: Final = frozenset(
    {
        _T.PROG_ARRAY,
        _T.PERF_EVENT_ARRAY,
        _T.CGROUP_ARRAY,
        _T.ARRAY_OF_MAPS,
        _T.HASH_OF_MAPS,
        _T.SOCKMAP,
        _T.SOCKHASH,
        _T.REUSEPORT_SOCKARRAY,
        _T.XSKMAP,
    }
)
"""Types whose values are given as fds and told as ids."""

_ABSENT: Final = (errno.ENOENT, errno.ENXIO)
"""What a key that is not there is told by: devmap and perf event arrays say ENXIO."""

K = TypeVar("K")
V = TypeVar("V")


class HasFd(Protocol):
    """What has a fd: a map, a program, a file."""

    def fileno(self) -> int:
        """The fd."""


@dataclass(frozen=True, slots=True)
class MapTypes:
    """What a map's BTF says.

    Attributes:
        key: the codec of keys.
        value: the codec of one value.
        types: all types of the object, or ``None`` without BTF.
    """

    key: Codec
    value: Codec
    types: Types | None


class Elements(MutableMapping[K, V]):
    """A mapping that somebody else changes, too: keys may go while it is gone through."""

    @abstractmethod
    def lookup(self, key: K) -> V | None:
        """Return a value, ``None`` if the key is not there."""

    def __getitem__(self, key: K) -> V:
        value = self.lookup(key)
        if value is None:
            raise KeyError(key)
        return value

    def items(self) -> ItemsView[K, V]:
        """Return a view of keys and values."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """Return a view of the values."""
        return _Values(self)


class _Items(ItemsView[K, V]):
    _mapping: Elements[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        for key in self._mapping:
            value = self._mapping.lookup(key)
            if value is not None:
                yield key, value


class _Values(ValuesView[V]):
    _mapping: Elements[object, V]

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in _Items(self._mapping))


class RawElements(Elements[bytes, bytes]):
    """The elements of a map in bytes; a per-CPU map's values stand one behind the other."""

    def __init__(self, kernel: MapKernel, handle: Handle, entry: MapEntry) -> None:
        self._kernel = kernel
        self._handle = handle
        self._entry = entry
        is_per_cpu = entry.type in PER_CPU
        self.stride = -(-entry.value_size // 8) * 8 if is_per_cpu else entry.value_size
        self.value_size = self.stride * (kernel.possible_cpus if is_per_cpu else 1)

    def lookup(self, key: bytes) -> bytes | None:
        """Return a value, ``None`` if the key is not there."""
        self._check(key)
        try:
            return self._kernel.map_lookup(self._handle.fd, key, self.value_size)
        except KernelError as error:
            if error.errno in _ABSENT:
                return None
            raise

    # One element with flags, as bpf(2) has it; that of MutableMapping sets many.
    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:  # type: ignore[override]
        """Set one element; unlike a dict's `update` it takes flags (`UpdateFlag`).

        Raises:
            UsageError: bytes of another size.
            KernelError: E2BIG for a full map, EEXIST and ENOENT as the flags want.
        """
        self._check(key)
        if len(value) != self.value_size:
            wanted = f"{self.value_size} bytes of value"
            raise UsageError(f"map {self._entry.ident} takes {wanted}, not {len(value)}")
        self._kernel.map_update(self._handle.fd, key, value, flags)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.update(key, value)

    def __delitem__(self, key: bytes) -> None:
        self._check(key)
        try:
            self._kernel.map_delete(self._handle.fd, key)
        except KernelError as error:
            if error.errno in _ABSENT:
                raise KeyError(key) from None
            raise

    def __iter__(self) -> Iterator[bytes]:
        """Yield the keys; the one that was yielded last may be deleted meanwhile.

        If somebody else deletes the key behind it, the kernel begins again at the first one.
        """
        size, is_sparse = self._entry.key_size, self._entry.type in SPARSE
        key = self._kernel.map_next_key(self._handle.fd, None, size)
        while key is not None:
            following = self._kernel.map_next_key(self._handle.fd, key, size)
            if not is_sparse or self.lookup(key) is not None:
                yield key
            key = following

    def __len__(self) -> int:
        is_full = self._entry.type in (MapType.ARRAY, MapType.PERCPU_ARRAY)
        return self._entry.max_entries if is_full else sum(1 for _ in self)

    def _check(self, key: bytes) -> None:
        entry = self._entry
        if len(key) != entry.key_size:
            wanted = f"{entry.key_size} bytes of key"
            raise UsageError(f"map {entry.ident} takes {wanted}, not {len(key)}")


class Map(Elements[Value, Value]):
    """One map of a skeleton.

    Attributes:
        name: its name in the skeleton.
        entry: its facts.
        raw: its elements in bytes.
        key: the codec of keys.
        value: the codec of values, those of one CPU in a per-CPU map.
    """

    def __init__(self, kernel: MapKernel, handle: Handle, entry: MapEntry, told: MapTypes) -> None:
        self.kernel = kernel
        self.entry = entry
        self.raw = RawElements(kernel, handle, entry)
        self._handle = handle
        self.key = told.key
        self.value = told.value
        self.types = told.types

    @property
    def name(self) -> str:
        """The name in the skeleton."""
        return self.entry.ident

    @property
    def type(self) -> MapType:
        """The map type."""
        return MapType(self.entry.type)

    @property
    def fd(self) -> int:
        """The fd, which belongs to the skeleton.

        Raises:
            UsageError: the skeleton is closed; so does everything below.
        """
        return self._handle.fd

    def fileno(self) -> int:
        """The fd, so that a map is taken wherever a file is."""
        return self.fd

    def __repr__(self) -> str:
        return f"<map {self.name}: {self.type.name}, {self.entry.max_entries} entries>"

    def lookup(self, key: Value) -> Value | None:
        """Return the value of a key, ``None`` if it is not there."""
        found = self._elements.lookup(self.key.encode(key))
        return None if found is None else self._decode(found)

    # As above: one element with flags.
    def update(self, key: Value, value: Value, flags: int = 0) -> None:  # type: ignore[override]
        """Set one element; unlike a dict's `update` it takes flags (`UpdateFlag`).

        Args:
            key: the key.
            value: the value; for a per-CPU map one for each possible CPU; for a map of maps,
                programs or sockets what has a fd, or its number.
            flags: 1 only if the key is not there, 2 only if it is.

        Raises:
            UsageError: they do not fit the map's types.
            KernelError: E2BIG for a full map, EEXIST and ENOENT as the flags want.
        """
        self._elements.update(self.key.encode(key), self._encode(value), flags)

    def __setitem__(self, key: Value, value: Value) -> None:
        self.update(key, value)

    def __delitem__(self, key: Value) -> None:
        try:
            del self._elements[self.key.encode(key)]
        except KeyError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[Value]:
        for key in self._elements:
            yield self.key.decode(key)

    def __len__(self) -> int:
        return len(self._elements)

    def push(self, value: Value, flags: int = 0) -> None:
        """Put a value into a queue, stack or bloom filter; with flag 2 the oldest one may go."""
        self.kernel.map_update(self.fd, b"", self.value.encode(value), flags)

    def take(self, *key: Value) -> Value:
        """Take the next value out of a queue or stack, or that of a key out of a hash map.

        It is one operation of the kernel: what a program added meanwhile is not lost.

        Raises:
            KeyError: the queue is empty, or the key is not there.
        """
        return self._end(*key, take=True)

    def peek(self) -> Value:
        """Return the next value of a queue or stack, which stays.

        Raises:
            KeyError: it is empty.
        """
        return self._end(take=False)

    def _end(self, *key: Value, take: bool) -> Value:
        read = self.kernel.map_lookup_and_delete if take else self.kernel.map_lookup
        if bool(key) == (self.type in QUEUES):
            raise UsageError(f"map {self.name} of type {self.type.name} takes no such call")
        raw = self.key.encode(*key) if key else b""
        found = read(self.fd, raw, self.raw.value_size)
        if found is None:
            raise KeyError(*key or (f"{self.name} is empty",))
        return self._decode(found)

    @property
    def _elements(self) -> RawElements:
        if self.type in WITHOUT_ELEMENTS:
            hint = "read it with RingBuffer" if self.type is MapType.RINGBUF else ""
            raise UsageError(f"map {self.name} of type {self.type.name} has no elements", hint=hint)
        if self.type in QUEUES:
            raise UsageError(
                f"map {self.name} of type {self.type.name} has no keys", hint="push, take and peek"
            )
        return self.raw

    def _decode(self, raw: bytes) -> Value:
        if self.type not in PER_CPU:
            return self.value.decode(raw)
        starts = range(0, len(raw), self.raw.stride)
        return tuple(self.value.decode(raw[at : at + self.value.size]) for at in starts)

    def _encode(self, value: Value) -> bytes:
        if self.type in _FDS and hasattr(value, "fileno"):
            value = value.fileno()
        if self.type not in PER_CPU:
            return self.value.encode(value)
        cpus = self.kernel.possible_cpus
        if not isinstance(value, Sequence) or len(value) != cpus:
            raise UsageError(f"map {self.name} takes a value for each of {cpus} CPUs")
        return b"".join(self.value.encode(one).ljust(self.raw.stride, b"\0") for one in value)


def plain_types(entry: MapEntry, byteorder: ByteOrder) -> tuple[Codec, Codec]:
    """Return the key and value of a map that no BTF describes: indices and fds are numbers."""
    number = IntCodec(4, signed=False, byteorder=byteorder)
    is_index = entry.type in INDEXED and entry.key_size == number.size
    is_fd = entry.type in _FDS and entry.value_size == number.size
    return (
        number if is_index else RawCodec(entry.key_size),
        number if is_fd else RawCodec(entry.value_size),
    )
