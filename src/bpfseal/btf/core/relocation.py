"""CO-RE records: what one of them asks for, and what can go wrong with it.

Source: ``struct bpf_core_relo`` and ``enum bpf_core_relo_kind`` (include/uapi/linux/bpf.h).

Example:
    >>> relocation = Relocation.from_record((8, 3, 17, 0), "0:1:2")
    >>> relocation.insn, relocation.kind.name
    (1, 'FIELD_BYTE_OFFSET')
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from errno import EINVAL
from typing import NamedTuple

from bpfseal.bpf.insn import INSN_SIZE
from bpfseal.errors import InputError


class RelocationKind(IntEnum):
    """``BPF_CORE_*``: what of a field, type or enumerator an insn holds."""

    FIELD_BYTE_OFFSET = 0
    FIELD_BYTE_SIZE = 1
    FIELD_EXISTS = 2
    FIELD_SIGNED = 3
    FIELD_LSHIFT_U64 = 4
    FIELD_RSHIFT_U64 = 5
    TYPE_ID_LOCAL = 6
    TYPE_ID_TARGET = 7
    TYPE_EXISTS = 8
    TYPE_SIZE = 9
    ENUMVAL_EXISTS = 10
    ENUMVAL_VALUE = 11
    TYPE_MATCHES = 12

    @property
    def is_field(self) -> bool:
        """It is about a field, which the access string leads to."""
        return self <= RelocationKind.FIELD_RSHIFT_U64

    @property
    def is_enumerator(self) -> bool:
        """It is about an enumerator, whose number the access string is."""
        return self in (RelocationKind.ENUMVAL_EXISTS, RelocationKind.ENUMVAL_VALUE)

    @property
    def is_type(self) -> bool:
        """It is about a whole type."""
        return not self.is_field and not self.is_enumerator

    @property
    def label(self) -> str:
        """The name that the kernel's log has for it."""
        return _LABELS[self]


_LABELS = (
    "byte_off",
    "byte_sz",
    "field_exists",
    "signed",
    "lshift_u64",
    "rshift_u64",
    "local_type_id",
    "target_type_id",
    "type_exists",
    "type_size",
    "enumval_exists",
    "enumval_value",
    "type_matches",
)


class Relocation(NamedTuple):
    """One record.

    Attributes:
        insn: the index of the insn that it changes.
        type_id: the root type in the BTF of the program.
        access: numbers of members and elements, ``0:1:2``.
        kind: what the insn holds; a plain number if no kernel knows it.
    """

    insn: int
    type_id: int
    access: str
    kind: RelocationKind | int

    @classmethod
    def from_record(cls, record: Sequence[int], access: str) -> Relocation:
        """Return a record whose access string has been looked up."""
        insn_offset, type_id, _access_offset, kind = record[:4]
        known = RelocationKind(kind) if kind in set(RelocationKind) else kind
        return cls(insn_offset // INSN_SIZE, type_id, access, known)


class RelocationError(InputError):
    """A record that cannot be applied, where a kernel refuses the program.

    Attributes:
        errno: the positive errno that the kernel gives.
    """

    def __init__(self, message: str, errno: int = EINVAL) -> None:
        super().__init__(message)
        self.errno = errno
