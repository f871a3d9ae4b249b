"""What an insn must hold for a path: an offset, a size, an id, a value.

Source: tools/lib/bpf/relo_core.c ``bpf_core_calc_relo`` and the functions for fields, types and
enumerators that it calls. Values are those of a little-endian machine.

Example:
    >>> decide(local, target).new
    1256
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import E2BIG, EINVAL
from typing import NamedTuple

from bpfseal.btf.btf import MAX_RESOLVE_DEPTH, POINTER_SIZE
from bpfseal.btf.core.relocation import RelocationError, RelocationKind
from bpfseal.btf.core.spec import Spec, Types
from bpfseal.btf.kinds import ENUMS, INT_SIGNED, Kind

_U64 = (1 << 64) - 1


class Value(NamedTuple):
    """What one path comes to.

    Attributes:
        number: what the insn holds, 64 bits.
        size: bytes that a load or store of the field moves, 0 where that does not matter.
        type_id: the type of what is moved.
        is_certain: the compiler must have come to the same number for its own type.
    """

    number: int
    size: int = 0
    type_id: int = 0
    is_certain: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with an insn.

    Attributes:
        original: what it must hold now, unless `validate` is false.
        new: what it shall hold.
        validate: the compiler's number must be the original one.
        poison: there is nothing that it could hold: it becomes one that no verifier accepts.
        original_size: bytes that a load or store moves now, 0 where that does not matter.
        new_size: bytes that it shall move.
        resizable: a load or store may move another number of bytes without changing the value.
    """

    original: int = 0
    new: int = 0
    validate: bool = True
    poison: bool = False
    original_size: int = 0
    new_size: int = 0
    resizable: bool = True


def decide(local: Spec, target: Spec | None) -> Decision:
    """Return what to do with an insn.

    Args:
        local: the path in the program's types.
        target: the same in the kernel's types, ``None`` if there is no such thing.

    Raises:
        RelocationError: what makes a kernel refuse the program.
    """
    mine, theirs = _value(local, local), _value(local, target)
    if mine is None or theirs is None:
        return Decision(poison=True)
    return Decision(
        original=mine.number & _U64,
        new=theirs.number & _U64,
        validate=mine.is_certain,
        original_size=mine.size,
        new_size=theirs.size,
        resizable=mine.size == theirs.size
        or (target is not None and _is_resizable(local.types, mine, target.types, theirs)),
    )


def _value(local: Spec, spec: Spec | None) -> Value | None:
    """Return what a path comes to, ``None`` for what cannot be said of something missing."""
    kind = local.kind
    if kind.is_type:
        return _type_value(spec) if spec is not None else Value(0)
    if kind in (RelocationKind.FIELD_EXISTS, RelocationKind.ENUMVAL_EXISTS):
        return Value(int(spec is not None))
    if spec is None:
        return None
    if kind.is_enumerator:
        type_id, index, _name = spec.accessors[0]
        return Value(spec.types.enumerators(type_id)[index][1])
    return _field_value(spec)


def _type_value(spec: Spec) -> Value:
    if spec.kind is RelocationKind.TYPE_ID_TARGET:
        return Value(spec.root, is_certain=False)
    if spec.kind is RelocationKind.TYPE_SIZE:
        return Value(spec.types.size(spec.root))
    return Value(1)


def _field_value(spec: Spec) -> Value:
    types, kind = spec.types, spec.kind
    holder, index, name = spec.accessors[-1]
    if name is None:
        return _element_value(spec, holder)
    field = types.resolve(types.members(holder)[index].type_id)
    bit_size = types.bit_size(holder, index)
    is_bitfield = bit_size > 0
    if is_bitfield:
        byte_size, byte_offset = _bitfield_word(spec.bits, bit_size, field.third)
    else:
        byte_size, byte_offset = types.size(field.id), spec.bits // 8
        bit_size = byte_size * 8
    match kind:
        case RelocationKind.FIELD_BYTE_OFFSET if is_bitfield:
            return Value(byte_offset, is_certain=False)
        case RelocationKind.FIELD_BYTE_OFFSET:
            return Value(byte_offset, _moved_size(types, field.id), field.id)
        case RelocationKind.FIELD_BYTE_SIZE:
            return Value(byte_size, is_certain=not is_bitfield)
        case RelocationKind.FIELD_SIGNED:
            is_signed = (field.kind in ENUMS and field.kind_flag) or (
                field.kind is Kind.INT and bool(types.int_encoding(field.id) & INT_SIGNED)
            )
            return Value(int(is_signed))
        case RelocationKind.FIELD_LSHIFT_U64:
            shift = 64 - (spec.bits + bit_size - byte_offset * 8)
            return Value(shift & 0xFFFFFFFF, is_certain=not is_bitfield)
        case _:
            return Value((64 - bit_size) & 0xFFFFFFFF)


def _bitfield_word(bits: int, bit_size: int, type_size: int) -> tuple[int, int]:
    """Return size and offset of the smallest aligned word that holds a bitfield."""
    size = type_size
    if not size:
        raise RelocationError("a bitfield of a type without size")
    offset = bits // 8 // size * size
    while bits + bit_size - offset * 8 > size * 8:
        if size >= POINTER_SIZE:
            raise RelocationError("a bitfield that no 64-bit load reads", E2BIG)
        size *= 2
        offset = bits // 8 // size * size
    return size, offset


def _element_value(spec: Spec, type_id: int) -> Value:
    if spec.kind is RelocationKind.FIELD_BYTE_OFFSET:
        return Value(spec.bits // 8, _moved_size(spec.types, type_id), type_id)
    if spec.kind is RelocationKind.FIELD_BYTE_SIZE:
        return Value(spec.types.size(type_id))
    raise RelocationError(f"{spec.kind.label} of an array element", EINVAL)


def _moved_size(types: Types, type_id: int) -> int:
    """Return the bytes that a load of a field moves: of an array, those of one element."""
    current = types.resolve(type_id)
    for _ in range(MAX_RESOLVE_DEPTH):
        if current.kind is not Kind.ARRAY:
            return types.size(current.id)
        current = types.resolve(types.array(current.id)[0])
    raise RelocationError("arrays of arrays without end")


def _is_resizable(local: Types, mine: Value, target: Types, theirs: Value) -> bool:
    """Whether a value keeps its meaning when a load widens or narrows it with zeros."""
    original, new = local[mine.type_id], target[theirs.type_id]
    if original.kind is Kind.PTR and new.kind is Kind.PTR:
        return True
    return (
        original.kind is Kind.INT
        and new.kind is Kind.INT
        and local.int_encoding(original.id) != INT_SIGNED
        and target.int_encoding(new.id) != INT_SIGNED
    )
