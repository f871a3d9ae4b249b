"""Values of C types as Python values, by the BTF that describes them.

| C | Python |
|---|---|
| integers, pointers | `int`; `_Bool` is `bool` |
| enums | `EnumValue`, an `int` with a name |
| `float`, `double` | `float` |
| `char x[N]` | `str` up to the first zero byte; bytes that are no UTF-8 are kept as surrogates |
| arrays of unsigned bytes | `bytes` |
| other arrays | `tuple` |
| structs, unions | `Record` (`bpfseal.skeleton.records`): members as attributes or by name |

`Codec.encode` takes what `Codec.decode` gives, mappings for structs (members left out are zero),
names for enums, and bytes of the right size for everything.

Example:
    >>> IntCodec(2, signed=False, byteorder="little").decode(bytes([7, 0]))
    7
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from bpfseal.bpf.insn import ByteOrder
from bpfseal.errors import UsageError

Value = Any
"""What a codec decodes to; see the table above."""


class EnumValue(int):
    """A value of an enum.

    Attributes:
        name: the enumerator, or ``""`` for a number that has none.
    """

    name: str

    def __new__(cls, number: int, name: str) -> Self:
        """Return the number with a name."""
        value = super().__new__(cls, number)
        value.name = name
        return value

    def __repr__(self) -> str:
        return f"<{self.name or '?'}: {int(self)}>"


class Codec(ABC):
    """How the values of one type are read and written.

    Attributes:
        size: bytes of a value.
    """

    size: int

    @abstractmethod
    def read(self, data: bytes, offset: int) -> Value:
        """Return the value that begins at an offset; all its bytes are there."""

    @abstractmethod
    def write(self, value: Value) -> bytes:
        """Return the bytes of a value.

        Raises:
            UsageError: it does not fit the type.
        """

    def decode(self, data: bytes) -> Value:
        """Return the value of exactly `size` bytes.

        Raises:
            UsageError: there are more bytes, or fewer.
        """
        if len(data) != self.size:
            raise UsageError(f"{len(data)} bytes for a value of {self.size}")
        return self.read(data, 0)

    def encode(self, value: Value) -> bytes:
        """Return the bytes of a value; bytes of the right size stand for themselves.

        Raises:
            UsageError: it does not fit the type.
        """
        if isinstance(value, (bytes, bytearray, memoryview)) and len(value) == self.size:
            return bytes(value)
        return self.write(value)


@dataclass(frozen=True, slots=True)
class RawCodec(Codec):
    """A type that is carried as bytes: nothing describes it."""

    size: int

    def read(self, data: bytes, offset: int) -> bytes:
        """Return the bytes."""
        return data[offset : offset + self.size]

    def write(self, value: Value) -> bytes:
        """Refuse: bytes of the right size never come here."""
        got = f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)
        raise UsageError(f"wanted {self.size} bytes, got {got}")


@dataclass(frozen=True, slots=True)
class IntCodec(Codec):
    """An integer or pointer."""

    size: int
    signed: bool
    byteorder: ByteOrder

    def read(self, data: bytes, offset: int) -> int:
        """Return the number."""
        raw = data[offset : offset + self.size]
        return int.from_bytes(raw, self.byteorder, signed=self.signed)

    def write(self, value: Value) -> bytes:
        """Return the bytes of a number that fits."""
        number = integer(value)
        try:
            return number.to_bytes(self.size, self.byteorder, signed=self.signed)
        except OverflowError:
            kind = "signed" if self.signed else "unsigned"
            raise UsageError(f"{number} does not fit {8 * self.size} {kind} bits") from None


@dataclass(frozen=True, slots=True)
class BoolCodec(Codec):
    """A _Bool."""

    size: int
    byteorder: ByteOrder

    def read(self, data: bytes, offset: int) -> bool:
        """Return whether any bit is set."""
        return any(data[offset : offset + self.size])

    def write(self, value: Value) -> bytes:
        """Return 0 or 1."""
        if value not in (0, 1):
            raise UsageError(f"wanted a bool, got {value!r}")
        return int(value).to_bytes(self.size, self.byteorder)


@dataclass(frozen=True, slots=True)
class FloatCodec(Codec):
    """A float or double."""

    size: int
    layout: str

    def read(self, data: bytes, offset: int) -> float:
        """Return the number."""
        number: float = struct.unpack_from(self.layout, data, offset)[0]
        return number

    def write(self, value: Value) -> bytes:
        """Return the bytes of the nearest number."""
        try:
            return struct.pack(self.layout, value)
        except (struct.error, OverflowError) as error:
            raise UsageError(f"{value!r}: {error}") from None


@dataclass(frozen=True, slots=True)
class EnumCodec(Codec):
    """An enum: names are taken as well as numbers."""

    size: int
    number: IntCodec
    names: Mapping[int, str]
    numbers: Mapping[str, int]

    def read(self, data: bytes, offset: int) -> EnumValue:
        """Return the number with its name."""
        number = self.number.read(data, offset)
        return EnumValue(number, self.names.get(number, ""))

    def write(self, value: Value) -> bytes:
        """Return the bytes of a number or an enumerator."""
        if isinstance(value, str):
            if value not in self.numbers:
                raise UsageError(
                    f"no enumerator {value!r}", hint=f"there are: {', '.join(self.numbers)}"
                )
            return self.number.write(self.numbers[value])
        return self.number.write(value)


@dataclass(frozen=True, slots=True)
class TextCodec(Codec):
    """An array of char that holds text up to its first zero byte."""

    size: int

    def read(self, data: bytes, offset: int) -> str:
        """Return the text."""
        raw = data[offset : offset + self.size].split(b"\0", 1)[0]
        return raw.decode("utf-8", "surrogateescape")

    def write(self, value: Value) -> bytes:
        """Return the bytes of a text, filled up with zeros; it may fill the whole array."""
        if isinstance(value, str):
            try:
                value = value.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:
                raise UsageError(f"{value!r} is no text") from None
        return _filled(value, self.size)


@dataclass(frozen=True, slots=True)
class BytesCodec(Codec):
    """An array of unsigned bytes."""

    size: int

    def read(self, data: bytes, offset: int) -> bytes:
        """Return the bytes."""
        return data[offset : offset + self.size]

    def write(self, value: Value) -> bytes:
        """Return bytes, filled up with zeros."""
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            try:
                value = bytes(value)
            except (TypeError, ValueError):
                raise UsageError(f"{value!r} are no bytes") from None
        return _filled(value, self.size)


@dataclass(frozen=True, slots=True)
class ArrayCodec(Codec):
    """An array of anything else."""

    size: int
    element: Codec
    count: int

    def read(self, data: bytes, offset: int) -> tuple[Value, ...]:
        """Return the elements."""
        step, read = self.element.size, self.element.read
        return tuple(read(data, offset + step * number) for number in range(self.count))

    def write(self, value: Value) -> bytes:
        """Return the bytes of as many elements as there are, filled up with zeros."""
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            raise UsageError(f"wanted a sequence of {self.count}, got {value!r}")
        if len(value) > self.count:
            raise UsageError(f"{len(value)} elements for an array of {self.count}")
        return b"".join(self.element.encode(item) for item in value).ljust(self.size, b"\0")


def integer(value: Value) -> int:
    """Return the number that a value is.

    Raises:
        UsageError: it is none.
    """
    try:
        return int(value.__index__())
    except AttributeError:
        raise UsageError(f"wanted an integer, got {value!r}") from None


def _filled(value: Value, size: int) -> bytes:
    if not isinstance(value, (bytes, bytearray)):
        raise UsageError(f"wanted bytes, got {value!r}")
    if len(value) > size:
        raise UsageError(f"{len(value)} bytes for an array of {size}")
    return bytes(value).ljust(size, b"\0")
