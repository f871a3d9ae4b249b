"""The 64-bit address space of the kernel model: bounded regions that cannot reach each other.

Every region sits at the start of a 4 GiB slot of its own and is smaller than half of it, so no
displacement of less than 2 GiB, forward or backward, leads from one region into another.

Example:
    >>> memory = Memory()
    >>> value = memory.map("value", bytearray(8))
    >>> memory.store(value.base + 4, 4, 7)
    >>> bytes(value.data).hex()
    '0000000007000000'
    >>> memory.load(value.base + 8, 4)
    Traceback (most recent call last):
    bpfseal.kernel.model.memory.MemoryFault: read of 4 bytes at value+8, behind the end of 8
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass
from struct import Struct
from typing import Final, Literal

from bpfseal.errors import BpfsealError

KERNEL_BASE: Final = 0xFFFF_8000_0000_0000
"""The lowest kernel address, as on x86-64."""

USER_END: Final = 0x0000_8000_0000_0000
"""The first address above user space, as on x86-64."""

SLOT_BITS: Final = 32
"""Bits of an address within a slot; the others are the number of the slot."""

SLOT_SIZE: Final = 1 << SLOT_BITS
"""Bytes of address space that each region has to itself."""

IN_SLOT: Final = SLOT_SIZE - 1
"""Mask of the bits of an address within a slot."""

MAX_REGION_SIZE: Final = SLOT_SIZE // 2 - 1
"""Bytes of the largest region."""

_GUARD_SIZE: Final = 1 << 16
"""An address this close below a region is described as lying before its start."""

_U64: Final = (1 << 64) - 1
_LAYOUTS: Final = {1: Struct("<B"), 2: Struct("<H"), 4: Struct("<I"), 8: Struct("<Q")}

LOADS: Final = {size: layout.unpack_from for size, layout in _LAYOUTS.items()}
"""By size: reads a number (the first of a tuple) at an offset of some bytes."""

STORES: Final = {size: layout.pack_into for size, layout in _LAYOUTS.items()}
"""By size: writes a number of that size at an offset of some bytes."""

Access = Literal["read", "write"]


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A run of mapped bytes.

    Attributes:
        name: what the region is, for messages: ``stack``, ``ctx``, the name of a map.
        base: the address of the first byte.
        data: the bytes, shared with the region's owner.
        writable: whether a program may store here.
        user: whether this is memory of user space.
    """

    name: str
    base: int
    data: bytearray
    writable: bool
    user: bool


class MemoryFault(BpfsealError):  # noqa: N818 (a fault is what it is called)
    """An access to bytes that are not mapped, or a write to a read-only region.

    Attributes:
        address: the first byte of the access.
        size: bytes of the access.
        access: ``"read"`` or ``"write"``.
        region: the region that the access hits or just misses, or ``None``.
    """

    exit_status = 1

    def __init__(self, address: int, size: int, access: Access, region: Region | None) -> None:
        super().__init__(f"{access} of {size} bytes at {_describe(address, size, region)}")
        self.address = address
        self.size = size
        self.access = access
        self.region = region


def _describe(address: int, size: int, region: Region | None) -> str:
    if region is None:
        return f"{address:#x}, where nothing is mapped"
    offset = address - region.base
    place = f"{region.name}{offset:+d}"
    if offset < 0:
        return f"{place}, before the start"
    if offset + size > len(region.data):
        return f"{place}, behind the end of {len(region.data)}"
    return f"{place}, which is read-only"


class _Slots:
    """The free slots of one half of the address space.

    A freed slot is used again only after all that were never used, and the one that was freed
    first comes first: a pointer to a region that is gone faults for as long as possible.
    """

    def __init__(self, first: int, end: int) -> None:
        self._fresh = iter(range(first, end, SLOT_SIZE))
        self._freed: deque[int] = deque()

    def take(self) -> int:
        base = next(self._fresh, None)
        if base is not None:
            return base
        if not self._freed:
            raise BpfsealError("the model's address space is full")
        return self._freed.popleft()

    def give_back(self, base: int) -> None:
        self._freed.append(base)


class Memory:
    """An address space: regions by address, with loads and stores in little-endian order.

    Attributes:
        readable: the bytes of every region, by the number of its slot.
        writable: those of the regions that a program may store to.
    """

    def __init__(self) -> None:
        self._regions: dict[int, Region] = {}
        self.readable: dict[int, bytearray] = {}
        self.writable: dict[int, bytearray] = {}
        # The first user slot holds the null pointer; the last kernel slot holds the error pointers
        # (include/linux/err.h). Neither is ever mapped.
        self._slots = {
            False: _Slots(KERNEL_BASE, (1 << 64) - SLOT_SIZE),
            True: _Slots(SLOT_SIZE, USER_END),
        }

    def map(
        self, name: str, data: bytearray, *, writable: bool = True, user: bool = False
    ) -> Region:
        """Give `data` an address. The region shares the bytes; it does not copy them.

        Raises:
            BpfsealError: if `data` is larger than `MAX_REGION_SIZE` or no slot is free.
        """
        if len(data) > MAX_REGION_SIZE:
            raise BpfsealError(f"{name}: {len(data)} bytes are too many for one region")
        region = Region(name, self._slots[user].take(), data, writable, user)
        slot = region.base >> SLOT_BITS
        self._regions[slot] = region
        self.readable[slot] = data
        if writable:
            self.writable[slot] = data
        return region

    def unmap(self, region: Region) -> None:
        """Take a mapped region out of the address space; its bytes stay with their owner."""
        slot = region.base >> SLOT_BITS
        del self._regions[slot], self.readable[slot]
        self.writable.pop(slot, None)
        self._slots[region.user].give_back(region.base)

    def region_at(self, address: int) -> Region | None:
        """Return the region that the byte at `address` lies in."""
        region = self._regions.get(address >> SLOT_BITS)
        return region if region and address - region.base < len(region.data) else None

    def read(self, address: int, size: int) -> bytes:
        """Return `size` bytes. Zero bytes can be read anywhere.

        Raises:
            MemoryFault: if not all of them lie in one region.
        """
        if size == 0:
            return b""
        region, offset = self._find(address, size, "read")
        return bytes(region.data[offset : offset + size])

    def write(self, address: int, data: bytes) -> None:
        """Set the bytes at `address`. Zero bytes can be written anywhere.

        Raises:
            MemoryFault: if not all of them lie in one writable region.
        """
        if data:
            region, offset = self._find(address, len(data), "write")
            region.data[offset : offset + len(data)] = data

    def load(self, address: int, size: int) -> int:
        """Return the unsigned number in the `size` bytes at `address`, which wraps at 64 bits.

        Raises:
            MemoryFault: as `read`.
        """
        try:
            number: int = LOADS[size](self.readable[address >> SLOT_BITS], address & IN_SLOT)[0]
        except (KeyError, struct.error):  # an odd size, or a fault
            return int.from_bytes(self.read(address & _U64, size), "little")
        return number

    def store(self, address: int, size: int, value: int) -> None:
        """Set the `size` bytes at `address`, which wraps at 64 bits, to the low bytes of `value`.

        Raises:
            MemoryFault: as `write`.
        """
        low = value & ((1 << 8 * size) - 1)
        try:
            STORES[size](self.writable[address >> SLOT_BITS], address & IN_SLOT, low)
        except (KeyError, struct.error):  # an odd size, or a fault
            self.write(address & _U64, low.to_bytes(size, "little"))

    def cstring(self, address: int, limit: int) -> bytes:
        """Return the bytes up to the first zero byte, or `limit` bytes if none of them is zero.

        Raises:
            MemoryFault: if the region ends before either.
        """
        if limit <= 0:
            return b""
        region, offset = self._find(address, 1, "read")
        end = region.data.find(0, offset, offset + limit)
        return self.read(address, limit if end < 0 else end - offset)

    def _find(self, address: int, size: int, access: Access) -> tuple[Region, int]:
        region = self._regions.get(address >> SLOT_BITS)
        offset = address & IN_SLOT
        if region is None or not 0 <= size <= len(region.data) - offset:
            near = self._regions.get((address + _GUARD_SIZE) >> SLOT_BITS)
            raise MemoryFault(address, size, access, near)
        if access == "write" and not region.writable:
            raise MemoryFault(address, size, access, region)
        return region, offset
