"""From BTF types to codecs.

A BTF comes out of a file, so what it says is bounded here: types that contain themselves are
refused, and a type whose values would fall into too many parts is carried as bytes.

Example:
    >>> types = Types(btf)  # doctest: +SKIP
    >>> types.named("event").decode(record)  # doctest: +SKIP
    Record(pid=811, comm='sh')
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import INT_BOOL, INT_SIGNED, Kind
from bpfseal.errors import InputError, UsageError
from bpfseal.skeleton.records import Slot, StructCodec
from bpfseal.skeleton.values import (
    ArrayCodec,
    BoolCodec,
    BytesCodec,
    Codec,
    EnumCodec,
    FloatCodec,
    IntCodec,
    RawCodec,
    TextCodec,
)

MAX_PARTS: Final = 1 << 16
"""The most parts that one value may fall into, unless it has as many bytes."""

_MAX_DEPTH: Final = 32
"""Types that are nested more deeply are refused, as in the kernel (MAX_RESOLVE_DEPTH)."""


def codec_of(btf: Btf, type_id: int) -> Codec:
    """Return the codec of a type; see `Types.codec`."""
    return Types(btf).codec(type_id)


class Types:
    """The codecs of one BTF, each made once."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._made: dict[int, tuple[Codec, int]] = {}
        self._open: set[int] = set()

    def codec(self, type_id: int) -> Codec:
        """Return the codec of a type.

        Raises:
            InputError: no such type, one without a size, one that contains itself, or members that
                lie outside of their struct.
        """
        return self._codec(type_id)[0]

    def named(self, name: str) -> Codec:
        """Return the codec of a struct, union, enum or typedef.

        Raises:
            UsageError: the BTF has no such type.
            InputError: see `codec`.
        """
        type_id = self._btf.find(
            name, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.TYPEDEF
        )
        if type_id is None:
            raise UsageError(f"the object's BTF has no type {name!r}")
        return self.codec(type_id)

    def _codec(self, type_id: int) -> tuple[Codec, int]:
        """Return the codec of a type, and into how many parts a value falls at most."""
        if type_id not in self._made:
            size = self._btf.resolve_size(self._btf.type_by_id(type_id).id)
            base = self._btf.skip_modifiers(type_id)
            if base.id in self._open or len(self._open) >= _MAX_DEPTH:
                raise InputError(f"type {base.id} is nested too deeply", where=".BTF")
            self._open.add(base.id)
            try:
                codec, parts = self._make(base.id, size)
            finally:
                self._open.discard(base.id)
            if parts > max(MAX_PARTS, size):
                codec, parts = RawCodec(size), 1
            self._made[type_id] = codec, parts
        return self._made[type_id]

    def _make(self, type_id: int, size: int) -> tuple[Codec, int]:
        btf = self._btf
        match btf.kind_of(type_id):
            case Kind.INT:
                return self._int(type_id, size), 1
            case Kind.PTR:
                return IntCodec(size, signed=False, byteorder=btf.byteorder), 1
            case Kind.FLOAT if size in (4, 8):
                sign = "<" if btf.byteorder == "little" else ">"
                return FloatCodec(size, sign + {4: "f", 8: "d"}[size]), 1
            case Kind.ENUM | Kind.ENUM64:
                return self._enum(type_id, size), 1
            case Kind.ARRAY:
                return self._array(type_id, size)
            case Kind.STRUCT | Kind.UNION:
                slots, parts = {}, 1
                for name, slot, cost in self._slots(type_id, size):
                    slots[name] = slot
                    parts += cost
                    if parts > max(MAX_PARTS, size):
                        return RawCodec(size), 1
                name = btf.type_by_id(type_id).name
                return StructCodec(size, name, slots, btf.byteorder), parts
            case _:
                return RawCodec(size), 1

    def _int(self, type_id: int, size: int) -> Codec:
        encoding = self._btf.extra_word(type_id) >> 24 & 0xF
        if encoding & INT_BOOL:
            return BoolCodec(size, self._btf.byteorder)
        return IntCodec(size, bool(encoding & INT_SIGNED), self._btf.byteorder)

    def _enum(self, type_id: int, size: int) -> Codec:
        base = self._btf.type_by_id(type_id)
        number = IntCodec(size, base.kind_flag, self._btf.byteorder)
        numbers: dict[str, int] = {}
        for name, *words in self._btf.entries(type_id):
            value = sum(word << 32 * place for place, word in enumerate(words))
            limit = 1 << 32 * len(words)
            is_negative = base.kind_flag and value >= limit // 2
            numbers[self._btf.string(name)] = value - limit if is_negative else value
        names = {value: name for name, value in reversed(numbers.items())}
        return EnumCodec(size, number, names, numbers)

    def _array(self, type_id: int, size: int) -> tuple[Codec, int]:
        btf = self._btf
        element_id, count = btf.extra_word(type_id), btf.extra_word(type_id, 2)
        element, parts = self._codec(element_id)
        if not element.size:
            return RawCodec(size), 1
        base = btf.skip_modifiers(element_id)
        if base.kind is Kind.INT and element.size == 1 and isinstance(element, IntCodec):
            return (TextCodec(size) if base.name == "char" else BytesCodec(size)), 1
        return ArrayCodec(size, element, count), max(parts * count, 1)

    def _slots(self, type_id: int, size: int) -> Iterator[tuple[str, Slot, int]]:
        """Yield the members of a struct: name, place and parts."""
        btf = self._btf
        has_bitfields = btf.type_by_id(type_id).kind_flag
        for member in btf.members(type_id):
            bits = member.bit_offset >> 24 if has_bitfields else 0
            bit = member.bit_offset & 0xFFFFFF if has_bitfields else member.bit_offset
            codec, parts = self._codec(member.type_id)
            end = bit + (bits or 8 * codec.size)
            if end > 8 * size or bits > 8 * codec.size or (not bits and bit % 8):
                raise InputError(f"member {member.name!r} lies outside", where=".BTF")
            if member.name:
                signed = isinstance(codec, IntCodec) and codec.signed
                yield member.name, Slot(codec, bit // 8, bit, bits, signed), parts
            elif isinstance(codec, StructCodec) and not bits:
                for name, slot in codec.slots.items():
                    place = replace(slot, offset=slot.offset + bit // 8, bit=slot.bit + bit)
                    yield name, place, parts
                    parts = 0  # they are counted all at once
