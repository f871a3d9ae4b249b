"""The elements of maps, as the operations of each map type see them.

Source: the ``map_ops`` of kernel/bpf/arraymap.c, hashtab.c and map_in_map.c. Where kernels keep
elements in the order of a hash, here it is that of their first update.

Example:
    >>> elements = make_elements(MapAttributes(MapType.HASH, 4, 8, 2), 8, area, check)
    >>> elements.update(b"key1", bytes(8), UpdateFlag.ANY, no_fds)
    >>> elements.next_key(None)
    b'key1'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from errno import E2BIG, EEXIST, EINVAL, ENOENT

from bpfseal.kernel.model.element_rules import (
    Elements,
    Resolve,
    no_such_key,
    not_supported,
    require_known,
)
from bpfseal.kernel.model.fds import KernelObject
from bpfseal.kernel.model.keyless import make_keyless
from bpfseal.kernel.model.map_facts import UpdateFlag
from bpfseal.kernel.model.map_rules import PERCPU, RULES, Contents, MapAttributes
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.trie import make_trie

_ARRAY = "kernel/bpf/arraymap.c"
_HASH = "kernel/bpf/hashtab.c htab_map_update_elem"


def _index_key(key: bytes | None, entries: int) -> bytes | None:
    """Return the index behind one (``bpf_array_get_next_key``)."""
    index = entries if key is None else int.from_bytes(key, "little")
    if index == entries - 1:
        return None
    return (0 if index >= entries else index + 1).to_bytes(4, "little")


class _Array:
    """What all maps with an index for a key have in common."""

    def __init__(self, attributes: MapAttributes) -> None:
        self.entries = attributes.max_entries

    def index_of(self, key: bytes) -> int:
        """Return the index.

        Raises:
            KernelError: E2BIG.
        """
        index = int.from_bytes(key, "little")
        if index >= self.entries:
            raise refusal(E2BIG, _ARRAY, f"index {index} of {self.entries} entries")
        return index

    def next_key(self, key: bytes | None) -> bytes | None:
        """Return the next index."""
        return _index_key(key, self.entries)


class _ValueArray(_Array):
    """An array whose elements are all there from the beginning."""

    def check_update(self, key: bytes, flags: int) -> int:
        require_known(flags)
        index = self.index_of(key)
        if flags == UpdateFlag.NOEXIST:
            raise refusal(EEXIST, _ARRAY, "all elements exist already")
        return index

    def delete(self, _key: bytes) -> None:
        raise refusal(EINVAL, f"{_ARRAY} array_map_delete_elem", "the elements of an array stay")

    def pop(self, _key: bytes) -> bytes | None:
        raise not_supported("lookup_and_delete", "an array")

    def __len__(self) -> int:
        return self.entries

    def release(self) -> None:
        """Bytes refer to nothing."""


class _ArrayElements(_ValueArray):
    """An ARRAY: one area of values, each rounded up to 8 bytes."""

    def __init__(self, attributes: MapAttributes, area: Callable[[], bytearray]) -> None:
        super().__init__(attributes)
        self._size = attributes.value_size
        self._stride = (attributes.value_size + 7) & ~7
        self._area = area

    def lookup(self, key: bytes) -> bytes | None:
        index = int.from_bytes(key, "little")
        if index >= self.entries:
            return None
        start = index * self._stride
        return bytes(self._area()[start : start + self._size])

    def update(self, key: bytes, value: bytes, flags: int, _resolve: Resolve) -> None:
        start = self.check_update(key, flags) * self._stride
        self._area()[start : start + len(value)] = value


class _CpuArrayElements(_ValueArray):
    """A PERCPU_ARRAY: values of all CPUs under each index, zero until they are set."""

    def __init__(self, attributes: MapAttributes, transfer_size: int) -> None:
        super().__init__(attributes)
        self._zero = bytes(transfer_size)
        self._values: dict[int, bytes] = {}

    def lookup(self, key: bytes) -> bytes | None:
        index = int.from_bytes(key, "little")
        return self._values.get(index, self._zero) if index < self.entries else None

    def update(self, key: bytes, value: bytes, flags: int, _resolve: Resolve) -> None:
        self._values[self.check_update(key, flags)] = value


def _require_room(
    contents: Contents,
    attributes: MapAttributes,
    key: bytes,
    flags: int,
    known: Mapping[bytes, object],
) -> bool:
    """Check the flags of an update of a hash; return whether an old element must give way."""
    require_known(flags)
    if key in known:
        if flags == UpdateFlag.NOEXIST:
            raise refusal(EEXIST, _HASH, "BPF_NOEXIST for a key that exists")
        return False
    if flags == UpdateFlag.EXIST:
        raise refusal(ENOENT, _HASH, "BPF_EXIST for a key that does not exist")
    if len(known) < attributes.max_entries:
        return False
    if contents is not Contents.LRU:
        raise refusal(E2BIG, _HASH, "the map is full")
    return True


def _behind(key: bytes | None, known: Mapping[bytes, object]) -> bytes | None:
    """Return the key behind one; behind one that is not there comes the first."""
    keys = list(known)
    at = keys.index(key) + 1 if key is not None and key in known else 0
    return keys[at] if at < len(keys) else None


class HashElements:
    """A HASH, of one value or of one for each CPU, or an LRU hash."""

    def __init__(self, attributes: MapAttributes) -> None:
        self._attributes = attributes
        self._contents = RULES[attributes.type].contents
        self._values: dict[bytes, bytearray] = {}

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of a key, ``None`` for no such key."""
        found = self._values.get(key)
        return None if found is None else bytes(found)

    def value_of(self, key: bytes) -> bytearray | None:
        """Return the bytes of a value as they are kept, for a program to write to."""
        return self._values.get(key)

    def update(self, key: bytes, value: bytes, flags: int, _resolve: Resolve) -> None:
        """Set one element."""
        if _require_room(self._contents, self._attributes, key, flags, self._values):
            self._values.pop(next(iter(self._values)))
        self._values[key] = bytearray(value)

    def delete(self, key: bytes) -> None:
        """Delete one element."""
        if self._values.pop(key, None) is None:
            raise no_such_key()

    def pop(self, key: bytes) -> bytes | None:
        """Return the value of a key and delete it, ``None`` for no such key."""
        found = self._values.pop(key, None)
        return None if found is None else bytes(found)

    def next_key(self, key: bytes | None) -> bytes | None:
        """Return the key behind `key`, the first for ``None``; ``None`` behind the last."""
        return _behind(key, self._values)

    def __len__(self) -> int:
        return len(self._values)

    def release(self) -> None:
        """Bytes refer to nothing."""


class _ObjectElements(_Array):
    """Maps or programs: written as fds, read as ids.

    Args:
        attributes: those of the map.
        check: checks an object before it is put in.
    """

    def __init__(self, attributes: MapAttributes, check: Callable[[KernelObject], None]) -> None:
        super().__init__(attributes)
        self._attributes = attributes
        self._contents = RULES[attributes.type].contents
        self._is_hash = self._contents is Contents.MAP_HASH
        self._check = check
        self._held: dict[bytes, KernelObject] = {}

    def lookup(self, key: bytes) -> bytes | None:
        if self._contents is Contents.FD_ARRAY:
            raise not_supported("lookup", "an array of such fds")
        held = self._held.get(key)
        return held.id.to_bytes(4, "little") if held is not None else None

    def update(self, key: bytes, value: bytes, flags: int, resolve: Resolve) -> None:
        if not self._is_hash:
            if flags != UpdateFlag.ANY:
                source = f"{_ARRAY} bpf_fd_array_map_update_elem"
                raise refusal(EINVAL, source, "only BPF_ANY for an array of fds")
            self.index_of(key)
        held = resolve(int.from_bytes(value, "little"))
        self._check(held)
        if self._is_hash:
            _require_room(self._contents, self._attributes, key, flags, self._held)
        held.hold()
        if key in self._held:
            self._held[key].drop()
        self._held[key] = held

    def delete(self, key: bytes) -> None:
        if not self._is_hash:
            self.index_of(key)
        if key not in self._held:
            raise no_such_key()
        self._held.pop(key).drop()

    def pop(self, _key: bytes) -> bytes | None:
        raise not_supported("lookup_and_delete", "a map of objects")

    def next_key(self, key: bytes | None) -> bytes | None:
        return _behind(key, self._held) if self._is_hash else super().next_key(key)

    def __len__(self) -> int:
        return len(self._held)

    def release(self) -> None:
        for held in self._held.values():
            held.drop()


def make_elements(
    attributes: MapAttributes,
    transfer_size: int,
    area: Callable[[], bytearray],
    check: Callable[[KernelObject], None],
) -> Elements:
    """Return the elements of a new map.

    Args:
        attributes: those of the map.
        transfer_size: bytes of a value as user space reads and writes it.
        area: the values of a plain array.
        check: checks what is put into a map of maps or programs.
    """
    match RULES[attributes.type].contents:
        case Contents.ARRAY if attributes.type in PERCPU:
            return _CpuArrayElements(attributes, transfer_size)
        case Contents.ARRAY:
            return _ArrayElements(attributes, area)
        case Contents.HASH | Contents.LRU:
            return HashElements(attributes)
        case Contents.TRIE:
            return make_trie(attributes)
        case Contents.MAP_ARRAY | Contents.PROG_ARRAY | Contents.MAP_HASH | Contents.FD_ARRAY:
            return _ObjectElements(attributes, check)
        case _:
            return make_keyless(attributes)
