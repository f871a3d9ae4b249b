"""Where C members lie, as libbpf reckons it when it prints BTF: alignment, packing, padding.

The rules are those since libbpf 1.1, where they were rewritten.

Source: ``btf__align_of`` in tools/lib/bpf/btf.c; ``btf_is_struct_packed`` and
``btf_dump_emit_bit_padding`` in tools/lib/bpf/btf_dump.c.

Example:
    >>> list(paddings(8, 32, alignment=4, in_bitfield=False))
    []
    >>> list(paddings(32, 128, alignment=4, in_bitfield=False))
    ['long: 64']
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from bpfseal.btf.btf import POINTER_SIZE, Btf, BtfType
from bpfseal.btf.kinds import ENUMS, MODIFIERS, Kind
from bpfseal.errors import InputError

MAX_NESTING: Final = 32
"""Types within types; kernels resolve no more (MAX_RESOLVE_DEPTH in kernel/bpf/btf.c)."""

_PADS: Final = (("long", 64), ("int", 32), ("short", 16), ("char", 8))
_NUMBERS: Final = ENUMS | {Kind.INT, Kind.FLOAT}
_STRUCTS: Final = (Kind.STRUCT, Kind.UNION)


@dataclass(frozen=True, slots=True)
class Field:
    """A member of a STRUCT or UNION.

    Attributes:
        name: its name, ``""`` if it has none.
        type_id: its type.
        offset: where it begins, in bits.
        bits: the width of a bitfield, else 0.
    """

    name: str
    type_id: int
    offset: int
    bits: int


def fields_of(btf: Btf, base: BtfType) -> Iterator[Field]:
    """Yield the members of a STRUCT or UNION."""
    for member in btf.members(base.id):
        word = member.bit_offset
        if base.kind_flag:
            yield Field(member.name, member.type_id, word & 0xFFFFFF, word >> 24)
        else:
            yield Field(member.name, member.type_id, word, 0)


@dataclass(slots=True)
class Alignments:
    """The alignment of types in bytes. Each struct is looked at once.

    Attributes:
        btf: the types.
    """

    btf: Btf
    _known: dict[int, int] = field(default_factory=dict)

    def of(self, type_id: int, depth: int = 0) -> int:
        """Return the alignment of a type.

        Raises:
            InputError: it has none, or is nested too deeply.
        """
        for _ in range(MAX_NESTING):
            base = self.btf.type_by_id(type_id)
            if base.kind in _NUMBERS and base.third:
                return min(POINTER_SIZE, base.third)
            if base.kind is Kind.PTR:
                return POINTER_SIZE
            if base.kind in MODIFIERS:
                type_id = base.third
            elif base.kind is Kind.ARRAY:
                type_id = self.btf.extra_word(type_id)
            elif base.kind in _STRUCTS and depth < MAX_NESTING:
                if type_id not in self._known:
                    self._known[type_id] = self._of_struct(base, depth + 1)
                return self._known[type_id]
            else:
                break
        raise InputError(f"type {type_id} has no alignment", where=".BTF")

    def _of_struct(self, base: BtfType, depth: int) -> int:
        largest, is_natural = self._largest(base, depth)
        return largest if is_natural else 1

    def _largest(self, base: BtfType, depth: int) -> tuple[int, bool]:
        """Return the largest alignment of a member, and whether all lie where they should."""
        largest, is_natural = 1, True
        for each in fields_of(self.btf, base):
            alignment = self.of(each.type_id, depth)
            largest = max(largest, alignment)
            is_natural &= bool(each.bits) or each.offset % (8 * alignment) == 0
        return largest, is_natural and base.third % largest == 0

    def is_packed(self, base: BtfType) -> bool:
        """Whether a struct can only be what it is if it is packed."""
        return not self._largest(base, 0)[1]


def paddings(at: int, target: int, *, alignment: int, in_bitfield: bool) -> Iterator[str]:
    """Yield the unnamed bitfields in front of a member, without indentation and semicolon.

    Args:
        at: the bit behind the member before.
        target: the bit at which the member begins.
        alignment: the member's, in bytes.
        in_bitfield: this member and the one before are bitfields.
    """
    if at >= target:
        return
    word, bits, start = next(
        (word, bits, rounded)
        for word, bits in (*_PADS, ("char", 1))
        if (rounded := -(-at // bits) * bits) <= target
    )
    if bits == 1:  # less than a byte is left
        word, bits, start = "char", 8, at
    if start > at:
        is_marked = in_bitfield
        if start == target:
            is_marked |= -(-at // (8 * alignment)) * 8 * alignment != start
        else:
            is_marked |= target - start <= start - at
        if is_marked:
            yield f"{word}: {start - at if in_bitfield else 0}"
        at = start
    while target - at >= bits:
        yield f"{word}: {bits}"
        at += bits
    if at < target:
        rest = target - at
        smallest = next(name for name, size in reversed(_PADS) if size >= rest)
        yield f"{smallest}: {rest}"
