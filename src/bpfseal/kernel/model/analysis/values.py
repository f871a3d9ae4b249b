"""What registers and stack slots may hold: numbers, pointers of each kind, or nothing at all.

Example:
    >>> stack_pointer = Pointer(PointerKind.STACK, off=-8)
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from bpfseal.kernel.model.analysis import scalar
from bpfseal.kernel.model.analysis.scalar import Scalar
from bpfseal.kernel.model.maps import ModelMap


class PointerKind(Enum):
    """Kinds of pointers; the value is the kernel's word for it (``reg_type_str``)."""

    CTX = "ctx"
    STACK = "fp"
    MAP = "map_ptr"
    MAP_VALUE = "map_value"
    MAP_KEY = "map_key"
    FUNCTION = "func"
    BTF = "ptr_"
    MEMORY = "mem"
    RECORD = "ringbuf_mem"


class Pointer(NamedTuple):
    """A pointer.

    Attributes:
        kind: what it points to.
        off: the offset that is known.
        var: the rest of the offset, which is not known; ``None`` for none.
        map: the map that it is, or points into.
        frame: the call frame whose stack it points into.
        id: pointers with the same id that is not 0 are null together, or not.
        or_null: it may be null.
        size: bytes of read-only kernel memory, or of a record in a ring buffer.
        type_name: the struct that it points to.
        target: the first insn of the function that it points to.
        reference: the id of what must be given back, 0 for nothing.
    """

    kind: PointerKind
    off: int = 0
    var: Scalar | None = None
    map: ModelMap | None = None
    frame: int = 0
    id: int = 0
    or_null: bool = False
    size: int = 0
    type_name: str = ""
    target: int = 0
    reference: int = 0

    @property
    def word(self) -> str:
        """The kernel's word for the type."""
        return f"{self.kind.value}{self.type_name}{'_or_null' if self.or_null else ''}"

    @property
    def variable(self) -> Scalar:
        """The part of the offset that is not known, 0 if all of it is."""
        return self.var if self.var is not None else scalar.ZERO


Value = Scalar | Pointer | None
"""What a register holds; ``None`` if nothing was ever written to it."""

# The bytes of a stack slot (enum bpf_stack_slot_type), as the kernel's log shows them.
SPILLED: Final = "r"
MISC: Final = "m"
ZERO_BYTE: Final = "0"
INVALID: Final = "?"

SLOT_SIZE: Final = 8
"""Bytes of a stack slot, BPF_REG_SIZE."""


class Slot(NamedTuple):
    """Eight bytes of stack.

    Attributes:
        bytes: a kind for each byte, the one at the highest address first.
        spilled: the value whose low bytes are the `SPILLED` ones.
    """

    bytes: str
    spilled: Value = None

    @property
    def is_spill(self) -> bool:
        """Whether a value was spilled here (its first byte lies at the lowest address)."""
        return self.bytes[-1] == SPILLED

    @property
    def is_whole_pointer(self) -> bool:
        """Whether a pointer was spilled here."""
        return isinstance(self.spilled, Pointer)


EMPTY_SLOT: Final = Slot(INVALID * SLOT_SIZE)
"""A slot that was never written."""

MISC_SLOT: Final = Slot(MISC * SLOT_SIZE)
"""A slot with bytes of which nothing is known."""


def describe(value: Value) -> str:
    """Return the kernel's word for the type of a value."""
    if value is None:
        return "?"
    return "scalar" if isinstance(value, Scalar) else value.word
