"""Maps of the kernel model: their contents, and who may change them.

Example:
    >>> table = ModelMap(MapAttributes(MapType.ARRAY, 4, 5, 1), Memory())
    >>> table.update(bytes(4), b"hello", 0)
    >>> table.lookup(bytes(4))
    b'hello'
    >>> table.compute_hash() == hashlib.sha256(b"hello" + bytes(3)).digest()
    True
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from errno import E2BIG, EACCES, EBUSY, EEXIST, EINVAL, ENOENT, ENOMEM, ENOSPC, EPERM
from typing import Final

from bpfseal.bpf.uapi import SHA256_SIZE, MapFlag, MapType, ProgType
from bpfseal.kernel.model.fds import KernelObject
from bpfseal.kernel.model.map_facts import MapFacts, UpdateFlag
from bpfseal.kernel.model.map_rules import PERCPU, RULES, Contents, MapAttributes
from bpfseal.kernel.model.memory import Memory, Region
from bpfseal.kernel.model.refusal import ENOTSUPP, refusal

MAX_ARRAY_BYTES: Final = 1 << 28
"""The largest value area that the model keeps; a larger one is ENOMEM when it is first used."""

Resolve = Callable[[int], KernelObject]
"""Returns what a fd refers to; raises `KernelError`."""

_EXCL_OFFSET: Final = SHA256_SIZE
"""Offset of ``excl`` in ``struct bpf_map``: right behind ``sha``."""

_STRUCT_SIZE: Final = 64


class ModelMap(KernelObject):
    """A map.

    Attributes:
        attributes: the attributes of its creation.
        frozen: user space can write no more.
        writers: writable mappings of it that user space has.
        template: the inner map that gives a map of maps the shape of its elements.
        owner_type: the type of the programs in a PROG_ARRAY, once there is one.
    """

    def __init__(
        self,
        attributes: MapAttributes,
        memory: Memory,
        *,
        possible_cpus: int = 1,
        template: MapAttributes | None = None,
    ) -> None:
        super().__init__()
        self.attributes = attributes
        self.frozen = False
        self.writers = 0
        self.template = template
        self.owner_type: ProgType | None = None
        self._memory = memory
        self._contents = RULES[attributes.type].contents
        self._element_size = (attributes.value_size + 7) & ~7
        percpu = attributes.type in PERCPU
        self.transfer_size = self._element_size * possible_cpus if percpu else attributes.value_size
        self._is_plain_array = self._contents is Contents.ARRAY and not percpu
        self._area: bytearray | None = None
        self._elements: dict[bytes, bytes] = {}
        self._queue: list[bytes] = []
        self._held: dict[bytes, KernelObject] = {}
        self._struct = bytearray(_STRUCT_SIZE)
        self._struct[_EXCL_OFFSET] = attributes.excl_prog_hash is not None
        self._regions: dict[str, Region] = {}

    @property
    def name(self) -> str:
        """The name given at creation."""
        return self.attributes.name

    @property
    def type(self) -> MapType:
        """The map type."""
        return MapType(self.attributes.type)

    @property
    def label(self) -> str:
        """``map`` and its name."""
        return f"map {self.name}"

    @property
    def facts(self) -> MapFacts:
        """A snapshot of the map."""
        given = self.attributes
        is_array = self._contents is Contents.ARRAY
        return MapFacts(
            name=given.name,
            type=self.type,
            key_size=given.key_size,
            value_size=given.value_size,
            max_entries=given.max_entries,
            flags=given.flags,
            exclusive_to=given.excl_prog_hash,
            frozen=self.frozen,
            entry_count=given.max_entries
            if is_array
            else len(self._elements) + len(self._held) + len(self._queue),
        )

    def release(self) -> None:
        """Give back addresses, and the maps and programs that the map contains."""
        for region in self._regions.values():
            self._memory.unmap(region)
        for held in self._held.values():
            held.drop()

    # What programs see of a map.

    def struct_address(self) -> int:
        """Return the address of the map's ``struct bpf_map``: ``sha``, then ``excl``."""
        return self._region("struct", self._struct, writable=False).base

    def is_at(self, address: int) -> bool:
        """Whether the map's struct has this address."""
        region = self._regions.get("struct")
        return self.alive and region is not None and region.base == address

    def value_address(self, offset: int) -> int:
        """Return an address in the one value of an array.

        Raises:
            KernelError: EINVAL for a type without direct access to values or for an offset
                behind the value, ENOTSUPP (524) for an array of more than one entry.
        """
        source = "kernel/bpf/arraymap.c array_map_direct_value_addr"
        if not self._is_plain_array:
            message = "no direct value access support for this map type"
            raise refusal(EINVAL, source, self.type.name, log=message)
        value_size = self.attributes.value_size
        message = f"invalid access to map value pointer, value_size={value_size} off={offset}"
        if self.attributes.max_entries != 1:
            raise refusal(ENOTSUPP, source, "max_entries must be 1", log=message)
        if offset >= value_size:
            raise refusal(EINVAL, source, "the offset lies behind the value", log=message)
        writable = not self.attributes.flags & MapFlag.RDONLY_PROG
        return self._region("value", self._values(), writable=writable).base + offset

    @property
    def is_open_to_programs(self) -> bool:
        """Whether a running program can look its elements up: in plain arrays it can."""
        return self._is_plain_array

    def element_address(self, key: bytes) -> int | None:
        """Return the address of an element for a running program, ``None`` for no such one."""
        index = int.from_bytes(key, "little")
        if index >= self.attributes.max_entries:
            return None
        writable = not self.attributes.flags & MapFlag.RDONLY_PROG
        area = self._region("value", self._values(), writable=writable)
        return area.base + index * self._element_size

    def _region(self, what: str, data: bytearray, *, writable: bool) -> Region:
        if what not in self._regions:
            name = f"{what} of map {self.name}"
            self._regions[what] = self._memory.map(name, data, writable=writable)
        return self._regions[what]

    def _values(self) -> bytearray:
        """Return the value area of an array: all elements, each rounded up to 8 bytes."""
        if self._area is None:
            size = self._element_size * self.attributes.max_entries
            if size > MAX_ARRAY_BYTES:
                source = "kernel/bpf/arraymap.c array_map_alloc"
                raise refusal(ENOMEM, source, f"{size} bytes are too many for the model")
            self._area = bytearray(size)
        return self._area

    # What user space does with a map.

    def freeze(self) -> None:
        """Make the map read-only for user space.

        Raises:
            KernelError: EPERM if user space cannot write it already, EBUSY while it has a writable
                mapping.
        """
        source = "kernel/bpf/syscall.c map_freeze"
        self._require_writable(source)
        if self.writers:
            raise refusal(EBUSY, source, "user space has a writable mapping of the map")
        self.frozen = True

    def mmap(self, *, writable: bool) -> Region:
        """Map the values into user space; `munmap` takes the mapping away.

        Raises:
            KernelError: ENOTSUPP for a map without BPF_F_MMAPABLE, EPERM for a writable mapping of
                a frozen map, EACCES for one of a map that programs may only read.
        """
        source = "kernel/bpf/syscall.c bpf_map_mmap"
        given = self.attributes
        if not self._is_plain_array or not given.flags & MapFlag.MMAPABLE:
            raise refusal(ENOTSUPP, source, "the map is not made with BPF_F_MMAPABLE")
        if writable and self.frozen:
            raise refusal(EPERM, source, "the map is frozen")
        if writable and given.flags & MapFlag.RDONLY_PROG:
            raise refusal(EACCES, source, "programs rely on its contents (BPF_F_RDONLY_PROG)")
        name = f"mapping of map {self.name}"
        region = self._memory.map(name, self._values(), writable=writable, user=True)
        self.writers += writable
        self.hold()
        return region

    def munmap(self, region: Region) -> None:
        """Take a mapping away that `mmap` made."""
        self._memory.unmap(region)
        self.writers -= region.writable
        self.drop()

    @property
    def has_hash(self) -> bool:
        """Whether the type has a hash operation (``map_get_hash``): plain arrays have."""
        return self._is_plain_array

    def compute_hash(self) -> bytes:
        """Return SHA-256 of the contents, and set ``sha`` in the map's struct.

        Source: kernel/bpf/arraymap.c array_map_get_hash.
        """
        digest = hashlib.sha256(self._values()).digest()
        self._struct[:SHA256_SIZE] = digest
        return digest

    def user_hash(self) -> bytes:
        """Return the hash that user space asked for.

        Raises:
            KernelError: EINVAL for a type without a hash, EPERM while the map is not frozen.
        """
        source = "kernel/bpf/syscall.c bpf_map_get_info_by_fd"
        if not self.has_hash:
            raise refusal(EINVAL, source, f"{self.type.name} maps have no hash")
        if not self.frozen:
            raise refusal(EPERM, source, "the map must be frozen")
        return self.compute_hash()

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of a key, or ``None``."""
        if self._is_plain_array:
            index = int.from_bytes(key, "little")
            if index >= self.attributes.max_entries:
                return None
            start = index * self._element_size
            return bytes(self._values()[start : start + self.attributes.value_size])
        return self._elements.get(key)

    def update(self, key: bytes, value: bytes, flags: int, resolve: Resolve | None = None) -> None:
        """Set one element (BPF_MAP_UPDATE_ELEM).

        Args:
            key: `key_size` bytes.
            value: `transfer_size` bytes.
            flags: an `UpdateFlag`.
            resolve: finds what the fd in `value` refers to, for a map of maps or programs.

        Raises:
            KernelError: EPERM if the map is frozen or read-only for user space, otherwise what
                the update operation of the map type answers.
        """
        self._require_writable("kernel/bpf/syscall.c map_update_elem")
        if flags not in set(UpdateFlag):
            raise refusal(EINVAL, "kernel/bpf, map_update_elem", f"unknown flags {flags:#x}")
        match self._contents:
            case Contents.ARRAY:
                self._update_array(key, value, flags)
            case Contents.HASH | Contents.TRIE | Contents.LRU:
                self._require_room(key, flags, self._elements)
                self._elements[key] = value
            case Contents.QUEUE:
                self._push(value, flags)
            case Contents.MAP_ARRAY | Contents.PROG_ARRAY | Contents.MAP_HASH:
                self._hold(key, value, flags, resolve)
            case Contents.OPAQUE:
                source = f"kernel/bpf, map_update_elem of {self.type.name}"
                raise refusal(EINVAL, source, "the model has no such elements")

    def delete(self, key: bytes) -> None:
        """Delete one element (BPF_MAP_DELETE_ELEM).

        Raises:
            KernelError: EPERM as `update`, EINVAL for a type whose elements stay, ENOENT.
        """
        source = "kernel/bpf/syscall.c map_delete_elem"
        self._require_writable(source)
        if self._contents in (Contents.ARRAY, Contents.QUEUE, Contents.OPAQUE):
            raise refusal(EINVAL, source, f"the elements of {self.type.name} maps stay")
        if key in self._held:
            self._held.pop(key).drop()
        elif self._elements.pop(key, None) is None:
            raise refusal(ENOENT, source, "no such key")

    def _require_writable(self, source: str) -> None:
        if self.frozen:
            raise refusal(EPERM, source, "the map is frozen")
        if self.attributes.flags & MapFlag.RDONLY:
            raise refusal(EPERM, source, "the map is read-only for user space (BPF_F_RDONLY)")

    def _update_array(self, key: bytes, value: bytes, flags: int) -> None:
        index = self._index(key)
        if flags == UpdateFlag.NOEXIST:
            raise refusal(EEXIST, "kernel/bpf/arraymap.c", "all elements exist already")
        if self._is_plain_array:
            start = index * self._element_size
            self._values()[start : start + len(value)] = value
        else:
            self._elements[key] = value

    def _index(self, key: bytes) -> int:
        index = int.from_bytes(key, "little")
        if index >= self.attributes.max_entries:
            limit = self.attributes.max_entries
            raise refusal(E2BIG, "kernel/bpf/arraymap.c", f"index {index} of {limit} entries")
        return index

    def _require_room(
        self, key: bytes, flags: int, elements: dict[bytes, bytes] | dict[bytes, KernelObject]
    ) -> None:
        """Check the flags of an update, and that a new element has room in a hash."""
        source = "kernel/bpf/hashtab.c htab_map_update_elem"
        if self._contents is Contents.TRIE:
            source = "kernel/bpf/lpm_trie.c trie_update_elem"
            if int.from_bytes(key[:4], "little") > 8 * (self.attributes.key_size - 4):
                raise refusal(EINVAL, source, "the prefix is longer than the key")
        if key in elements:
            if flags == UpdateFlag.NOEXIST:
                raise refusal(EEXIST, source, "BPF_NOEXIST for a key that exists")
            return
        if flags == UpdateFlag.EXIST:
            raise refusal(ENOENT, source, "BPF_EXIST for a key that does not exist")
        if len(elements) >= self.attributes.max_entries:
            if self._contents is not Contents.LRU:
                number = ENOSPC if self._contents is Contents.TRIE else E2BIG
                raise refusal(number, source, "the map is full")
            elements.pop(next(iter(elements)))

    def _push(self, value: bytes, flags: int) -> None:
        source = "kernel/bpf/queue_stack_maps.c queue_stack_map_push_elem"
        if flags == UpdateFlag.NOEXIST:
            raise refusal(EINVAL, source, "BPF_NOEXIST has no meaning here")
        if len(self._queue) >= self.attributes.max_entries:
            if flags != UpdateFlag.EXIST:
                raise refusal(E2BIG, source, "the map is full")
            del self._queue[0]
        self._queue.append(value)

    def _hold(self, key: bytes, value: bytes, flags: int, resolve: Resolve | None) -> None:
        """Put a map or program in, and keep it alive."""
        if self._contents is not Contents.MAP_HASH:
            if flags != UpdateFlag.ANY:
                source = "kernel/bpf/arraymap.c bpf_fd_array_map_update_elem"
                raise refusal(EINVAL, source, "only BPF_ANY for an array of fds")
            self._index(key)
        if resolve is None:
            raise refusal(EINVAL, "kernel/bpf/syscall.c", "no fds here")
        held = resolve(int.from_bytes(value, "little"))
        if isinstance(held, ModelMap):
            self._require_shape(held)
        if self._contents is Contents.MAP_HASH:
            self._require_room(key, flags, self._held)
        held.hold()
        if key in self._held:
            self._held[key].drop()
        self._held[key] = held

    def _require_shape(self, inner: ModelMap) -> None:
        """Check that an inner map is like the one given at creation.

        Source: kernel/bpf/map_in_map.c bpf_map_meta_equal; arrays must also agree in
        `max_entries` (kernel/bpf/arraymap.c array_map_meta_equal).
        """
        wanted = self.template
        if wanted is None:
            return
        given = inner.attributes
        same = (given.type, given.key_size, given.value_size, given.flags) == (
            wanted.type,
            wanted.key_size,
            wanted.value_size,
            wanted.flags,
        )
        is_array = given.type == MapType.ARRAY
        if not same or (is_array and given.max_entries != wanted.max_entries):
            source = "kernel/bpf/map_in_map.c bpf_map_meta_equal"
            raise refusal(EINVAL, source, f"{inner.label} is unlike the inner map of {self.name}")
