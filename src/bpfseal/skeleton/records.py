"""Structs and unions as records, bitfields and anonymous members included.

Example:
    >>> from bpfseal.btf.btf import Btf
    >>> from bpfseal.btf.builder import BtfBuilder
    >>> from bpfseal.skeleton.types import codec_of
    >>> builder = BtfBuilder()
    >>> u32 = builder.add_int("unsigned int", 4)
    >>> event = builder.add_struct("event", 8, [("pid", u32, 0), ("parent", u32, 32)])
    >>> codec = codec_of(Btf.from_bytes(builder.encode()), event)
    >>> codec.decode(bytes.fromhex("0700000001000000"))
    Record(pid=7, parent=1)
    >>> codec.encode({"pid": 9}).hex()
    '0900000000000000'
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bpfseal.bpf.insn import ByteOrder
from bpfseal.errors import UsageError
from bpfseal.skeleton.values import Codec, Value, integer


class Record(Mapping[str, Value]):
    """A struct or union as it was read: members by name or as attributes.

    Attributes are short for names: ``record.pid`` is ``record["pid"]``. Names that a mapping has of
    its own, like ``keys``, go by name only.
    """

    __slots__ = ("_members", "_raw")

    _members: dict[str, Value]
    _raw: bytes

    def __init__(self, members: Mapping[str, Value], raw: bytes) -> None:
        object.__setattr__(self, "_members", dict(members))
        object.__setattr__(self, "_raw", raw)

    def __getitem__(self, name: str) -> Value:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __getattr__(self, name: str) -> Value:
        try:
            return self._members[name]
        except KeyError:
            raise AttributeError(f"no member {name!r}; there are: {', '.join(self)}") from None

    def __setattr__(self, name: str, value: Value) -> None:
        raise AttributeError("a record is a copy of what was read: it cannot be changed")

    def __bytes__(self) -> bytes:
        return self._raw

    def __hash__(self) -> int:
        return hash(self._raw)

    def __repr__(self) -> str:
        return f"Record({', '.join(f'{name}={value!r}' for name, value in self.items())})"


@dataclass(frozen=True, slots=True)
class Slot:
    """A member of a struct: where it is, and which of the bits there are its own.

    Attributes:
        codec: its type.
        offset: its first byte, or the byte that holds a bitfield's first bit.
        bit: where a bitfield begins, counted from the first bit of the struct.
        bits: how many bits a bitfield has, 0 for other members.
        signed: whether a bitfield has a sign.
    """

    codec: Codec
    offset: int
    bit: int = 0
    bits: int = 0
    signed: bool = False


@dataclass(frozen=True, slots=True)
class StructCodec(Codec):
    """A struct or union, with the members of anonymous ones inside among its own."""

    size: int
    name: str
    slots: Mapping[str, Slot]
    byteorder: ByteOrder

    def read(self, data: bytes, offset: int) -> Record:
        """Return the members; those of a union are different views of the same bytes."""
        raw = data[offset : offset + self.size]
        members = {
            name: self._bits(raw, slot) if slot.bits else slot.codec.read(raw, slot.offset)
            for name, slot in self.slots.items()
        }
        return Record(members, raw)

    def write(self, value: Value) -> bytes:
        """Return the bytes; the last member given wins where members share bytes."""
        if isinstance(value, Record) and len(bytes(value)) == self.size:
            return bytes(value)
        if not isinstance(value, Mapping):
            raise UsageError(f"wanted a mapping for struct {self.name}, got {value!r}")
        unknown = [str(name) for name in value if name not in self.slots]
        if unknown:
            raise UsageError(
                f"struct {self.name} has no member {', '.join(unknown)}",
                hint=f"there are: {', '.join(self.slots)}",
            )
        out = bytearray(self.size)
        for name, item in value.items():
            slot = self.slots[name]
            if slot.bits:
                self._set_bits(out, slot, integer(item))
                continue
            try:
                out[slot.offset : slot.offset + slot.codec.size] = slot.codec.encode(item)
            except UsageError as error:
                error.where = f"{name}.{error.where}" if error.where else name
                raise
        return bytes(out)

    def _shift(self, slot: Slot, length: int) -> int:
        """Return by how much a bitfield's bits lie above the lowest of its bytes."""
        if self.byteorder == "little":
            return slot.bit % 8
        return 8 * length - slot.bit % 8 - slot.bits

    def _bits(self, raw: bytes, slot: Slot) -> int:
        length = (slot.bit % 8 + slot.bits + 7) // 8
        word = int.from_bytes(raw[slot.offset : slot.offset + length], self.byteorder)
        number = word >> self._shift(slot, length) & (1 << slot.bits) - 1
        return number - (1 << slot.bits) if slot.signed and number >> slot.bits - 1 else number

    def _set_bits(self, out: bytearray, slot: Slot, number: int) -> None:
        lowest = -(1 << slot.bits - 1) if slot.signed else 0
        if not lowest <= number < lowest + (1 << slot.bits):
            raise UsageError(f"{number} does not fit a bitfield of {slot.bits} bits")
        length = (slot.bit % 8 + slot.bits + 7) // 8
        place = slice(slot.offset, slot.offset + length)
        mask = (1 << slot.bits) - 1
        shift = self._shift(slot, length)
        word = int.from_bytes(out[place], self.byteorder)
        word = word & ~(mask << shift) | (number & mask) << shift
        out[place] = word.to_bytes(length, self.byteorder)
