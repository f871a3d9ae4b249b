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
from errno import EACCES, EBUSY, EINVAL, ENOMEM, EPERM
from typing import Final

from bpfseal.bpf.uapi import SHA256_SIZE, MapFlag, MapType, ProgType
from bpfseal.kernel.model.element_rules import Resolve, no_fds
from bpfseal.kernel.model.elements import HashElements, make_elements
from bpfseal.kernel.model.fds import KernelObject
from bpfseal.kernel.model.map_facts import MapFacts
from bpfseal.kernel.model.map_rules import PERCPU, RULES, Contents, MapAttributes
from bpfseal.kernel.model.memory import Memory, Region
from bpfseal.kernel.model.refusal import ENOTSUPP, refusal
from bpfseal.kernel.model.ring import RingBuffer
from bpfseal.kernel.model.work import Work

_EXCL_OFFSET: Final = SHA256_SIZE
"""Offset of ``excl`` in ``struct bpf_map``: right behind ``sha``."""

_STRUCT_SIZE: Final = 320


class ModelMap(KernelObject):
    """A map.

    Attributes:
        attributes: the attributes of its creation.
        frozen: user space can write no more.
        btf_id: the BTF of its key and value, 0 for none.
        writers: writable mappings of it that user space has.
        template: the inner map that gives a map of maps the shape of its elements.
        owner_type: the type of the programs in a PROG_ARRAY, once there is one.
        ring: the records of a ring buffer.
    """

    def __init__(
        self,
        attributes: MapAttributes,
        memory: Memory,
        *,
        work: Work | None = None,
        possible_cpus: int = 1,
        pops_stacks: bool = True,
        template: MapAttributes | None = None,
    ) -> None:
        super().__init__()
        self.attributes = attributes
        self.frozen = False
        self.btf_id = 0
        self.writers = 0
        self.template = template
        self.owner_type: ProgType | None = None
        self._memory = memory
        self._work = work or Work()
        self._pops_stacks = pops_stacks
        self._element_size = (attributes.value_size + 7) & ~7
        percpu = attributes.type in PERCPU
        self.transfer_size = self._element_size * possible_cpus if percpu else attributes.value_size
        self._is_plain_array = RULES[attributes.type].contents is Contents.ARRAY and not percpu
        self._area: bytearray | None = None
        self._elements = make_elements(
            attributes, self.transfer_size, self._values, self._check_element
        )
        self._struct = bytearray(_STRUCT_SIZE)
        self._struct[_EXCL_OFFSET] = attributes.excl_prog_hash is not None
        is_ring = attributes.type == MapType.RINGBUF
        self.ring = RingBuffer(attributes.max_entries) if is_ring else None
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
        return MapFacts(
            name=given.name,
            type=self.type,
            key_size=given.key_size,
            value_size=given.value_size,
            max_entries=given.max_entries,
            flags=given.flags,
            exclusive_to=given.excl_prog_hash,
            frozen=self.frozen,
            entry_count=len(self._elements),
        )

    def release(self) -> None:
        """Give back addresses, and the maps and programs that the map contains."""
        for region in self._regions.values():
            self._memory.unmap(region)
        self._elements.release()
        if self._area is not None:
            self._work.taken -= len(self._area)
            self._area = None

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
        """Whether a running program can look its elements up: in plain arrays and hashes it can."""
        return self._is_plain_array or self.type is MapType.HASH

    def element_address(self, key: bytes) -> int | None:
        """Return the address of an element for a running program, ``None`` for no such one."""
        if isinstance(self._elements, HashElements):
            return self._hash_element_address(self._elements, key)
        index = int.from_bytes(key, "little")
        if index >= self.attributes.max_entries:
            return None
        writable = not self.attributes.flags & MapFlag.RDONLY_PROG
        area = self._region("value", self._values(), writable=writable)
        return area.base + index * self._element_size

    def _hash_element_address(self, elements: HashElements, key: bytes) -> int | None:
        value = elements.value_of(key)
        if value is None:
            return None
        what, writable = f"element {key.hex()}", not self.attributes.flags & MapFlag.RDONLY_PROG
        known = self._regions.get(what)
        if known is not None and known.data is not value:  # it was replaced since
            self._memory.unmap(self._regions.pop(what))
        return self._region(what, value, writable=writable).base

    def update_by_program(self, key: bytes, value: bytes, flags: int) -> None:
        """Set one element for a running program.

        Raises:
            KernelError: what the update operation of the map type answers.
        """
        self._elements.update(key, value, flags, no_fds)

    def delete_by_program(self, key: bytes) -> None:
        """Delete one element for a running program.

        Raises:
            KernelError: what the type answers.
        """
        self._elements.delete(key)

    def _region(self, what: str, data: bytearray, *, writable: bool) -> Region:
        if what not in self._regions:
            name = f"{what} of map {self.name}"
            self._regions[what] = self._memory.map(name, data, writable=writable)
        return self._regions[what]

    def _values(self) -> bytearray:
        """Return the value area of an array: all elements, each rounded up to 8 bytes."""
        if self._area is None:
            size = self._element_size * self.attributes.max_entries
            if not self._work.take(size):
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
        """Return the value of a key, or ``None``.

        Raises:
            KernelError: EPERM for a map that user space may only write, ENOTSUPP for a type that
                cannot be read.
        """
        self._require_readable("kernel/bpf/syscall.c map_lookup_elem")
        return self._elements.lookup(key)

    def update(self, key: bytes, value: bytes, flags: int, resolve: Resolve = no_fds) -> None:
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
        self._elements.update(key, value, flags, resolve)

    def delete(self, key: bytes) -> None:
        """Delete one element (BPF_MAP_DELETE_ELEM).

        Raises:
            KernelError: EPERM as `update`, then what the type answers: EINVAL where elements
                stay, ENOENT.
        """
        self._require_writable("kernel/bpf/syscall.c map_delete_elem")
        self._elements.delete(key)

    def pop(self, key: bytes) -> bytes | None:
        """Return the value of a key and delete it (BPF_MAP_LOOKUP_AND_DELETE_ELEM).

        Raises:
            KernelError: EPERM as `update`, ENOTSUPP for a type without that operation.
        """
        source = "kernel/bpf/syscall.c map_lookup_and_delete_elem"
        self._require_readable(source)
        self._require_writable(source)
        if self.type is MapType.STACK_TRACE and not self._pops_stacks:
            raise refusal(ENOTSUPP, source, "this kernel does not delete what it looks up there")
        return self._elements.pop(key)

    def next_key(self, key: bytes | None) -> bytes | None:
        """Return the key behind one, or ``None`` (BPF_MAP_GET_NEXT_KEY).

        Raises:
            KernelError: EPERM as `lookup`, EINVAL, ENOTSUPP for a type without keys.
        """
        self._require_readable("kernel/bpf/syscall.c map_get_next_key")
        return self._elements.next_key(key)

    def _require_readable(self, source: str) -> None:
        if self.attributes.flags & MapFlag.WRONLY:
            raise refusal(EPERM, source, "the map is write-only for user space (BPF_F_WRONLY)")

    def _require_writable(self, source: str) -> None:
        if self.frozen:
            raise refusal(EPERM, source, "the map is frozen")
        if self.attributes.flags & MapFlag.RDONLY:
            raise refusal(EPERM, source, "the map is read-only for user space (BPF_F_RDONLY)")

    def _check_element(self, held: KernelObject) -> None:
        """Check what is put into a map of maps or programs."""
        if isinstance(held, ModelMap):
            self._require_shape(held)

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
