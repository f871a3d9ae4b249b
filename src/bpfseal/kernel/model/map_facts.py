"""What is told of a map, and the flags of an update.

Example:
    >>> kernel.map(fd).frozen
    True
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from bpfseal.bpf.uapi import MapType


class UpdateFlag(IntEnum):
    """Flags of BPF_MAP_UPDATE_ELEM."""

    ANY = 0
    NOEXIST = 1
    EXIST = 2


@dataclass(frozen=True, slots=True)
class MapFacts:
    """A snapshot of a map.

    Attributes:
        name: the name given at creation.
        type: the map type.
        key_size: bytes of a key.
        value_size: bytes of a value.
        max_entries: the number of entries.
        flags: the flags of its creation.
        exclusive_to: the digest of the one program that may use it, or ``None``.
        frozen: user space can write no more.
        entry_count: elements in a hash; for arrays `max_entries`.
    """

    name: str
    type: MapType
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    exclusive_to: bytes | None
    frozen: bool
    entry_count: int
