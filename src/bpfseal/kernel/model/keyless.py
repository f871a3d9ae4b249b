"""The elements of maps that have no keys, and of those whose elements the model has not.

Source: kernel/bpf/queue_stack_maps.c, ringbuf.c, bloom_filter.c.

Example:
    >>> queue = make_keyless(MapAttributes(MapType.QUEUE, 0, 4, 2))
    >>> queue.update(b"", b"next", UpdateFlag.ANY, no_fds)
    >>> queue.pop(b"")
    b'next'
"""

from __future__ import annotations

from errno import E2BIG, EINVAL, EOPNOTSUPP

from bpfseal.bpf.uapi import MapType
from bpfseal.kernel.model.element_rules import (
    Elements,
    Resolve,
    no_such_key,
    not_supported,
    require_known,
)
from bpfseal.kernel.model.map_facts import UpdateFlag
from bpfseal.kernel.model.map_rules import RULES, Contents, MapAttributes
from bpfseal.kernel.model.refusal import refusal

_QUEUE = "kernel/bpf/queue_stack_maps.c"
_BLOOM = "kernel/bpf/bloom_filter.c"


class _QueueElements:
    """A QUEUE or a STACK, which have no keys."""

    def __init__(self, attributes: MapAttributes) -> None:
        self._attributes = attributes
        self._values: list[bytes] = []

    @property
    def _front(self) -> int:
        return -1 if self._attributes.type == MapType.STACK else 0

    def lookup(self, _key: bytes) -> bytes | None:
        return self._values[self._front] if self._values else None

    def update(self, _key: bytes, value: bytes, flags: int, _resolve: Resolve) -> None:
        source = f"{_QUEUE} queue_stack_map_push_elem"
        require_known(flags)
        if flags == UpdateFlag.NOEXIST:
            raise refusal(EINVAL, source, "BPF_NOEXIST has no meaning here")
        if len(self._values) >= self._attributes.max_entries:
            if flags != UpdateFlag.EXIST:
                raise refusal(E2BIG, source, "the map is full")
            del self._values[0]
        self._values.append(value)

    def delete(self, _key: bytes) -> None:
        raise refusal(EINVAL, f"{_QUEUE} queue_stack_map_delete_elem", "there are no keys")

    def pop(self, _key: bytes) -> bytes | None:
        return self._values.pop(self._front) if self._values else None

    def next_key(self, _key: bytes | None) -> bytes | None:
        raise refusal(EINVAL, f"{_QUEUE} queue_stack_map_get_next_key", "there are no keys")

    def __len__(self) -> int:
        return len(self._values)

    def release(self) -> None:
        """Bytes refer to nothing."""


class _BloomElements:
    """A BLOOM_FILTER: values that can be asked for; here none is there by mistake."""

    def __init__(self) -> None:
        self._values: set[bytes] = set()

    def lookup(self, value: bytes) -> bytes | None:
        """Return the value that is asked for, ``None`` if it is not there."""
        return value if value in self._values else None

    def update(self, _key: bytes, value: bytes, flags: int, _resolve: Resolve) -> None:
        if flags != UpdateFlag.ANY:
            raise refusal(EINVAL, f"{_BLOOM} bloom_map_push_elem", "only BPF_ANY")
        self._values.add(value)

    def delete(self, _key: bytes) -> None:
        raise refusal(EOPNOTSUPP, f"{_BLOOM} bloom_map_delete_elem", "values stay")

    def pop(self, _key: bytes) -> bytes | None:
        raise not_supported("lookup_and_delete", "a BLOOM_FILTER")

    def next_key(self, _key: bytes | None) -> bytes | None:
        raise refusal(EOPNOTSUPP, f"{_BLOOM} bloom_map_get_next_key", "there are no keys")

    def __len__(self) -> int:
        return len(self._values)

    def release(self) -> None:
        """Bytes refer to nothing."""


class _OpaqueElements:
    """Elements that the model has none of: sockets, devices, stacks, records of a ring buffer."""

    def __init__(self, attributes: MapAttributes) -> None:
        self._type = MapType(attributes.type)
        self._is_ring = self._type in (MapType.RINGBUF, MapType.USER_RINGBUF)

    def lookup(self, _key: bytes) -> bytes | None:
        if self._is_ring:
            raise not_supported("lookup", self._type.name)
        return None

    def update(self, _key: bytes, _value: bytes, _flags: int, _resolve: Resolve) -> None:
        if self._is_ring:
            raise not_supported("update", self._type.name)
        source = f"kernel/bpf, map_update_elem of {self._type.name}"
        raise refusal(EINVAL, source, "the model has no such elements")

    def delete(self, _key: bytes) -> None:
        if self._is_ring:
            raise not_supported("delete", self._type.name)
        raise no_such_key()

    def pop(self, _key: bytes) -> bytes | None:
        if self._type is not MapType.STACK_TRACE:
            raise not_supported("lookup_and_delete", self._type.name)
        return None

    def next_key(self, _key: bytes | None) -> bytes | None:
        if self._is_ring:
            raise not_supported("get_next_key", self._type.name)
        return None

    def __len__(self) -> int:
        return 0

    def release(self) -> None:
        """There is nothing."""


def make_keyless(attributes: MapAttributes) -> Elements:
    """Return the elements of a new map of such a type."""
    match RULES[attributes.type].contents:
        case Contents.QUEUE:
            return _QueueElements(attributes)
        case Contents.BLOOM:
            return _BloomElements()
        case _:
            return _OpaqueElements(attributes)
