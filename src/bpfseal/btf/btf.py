"""BTF as a value: the types of a program, read from the raw bytes of a .BTF section.

All records of the type section are 32-bit words, so the section is decoded once, in bulk, and a
type is found by the index of its first word.

Example:
    >>> from bpfseal.btf.builder import BtfBuilder
    >>> builder = BtfBuilder()
    >>> int_id = builder.add_int("int", 4, signed=True)
    >>> btf = Btf.from_bytes(builder.encode())
    >>> btf.type_by_id(int_id).name
    'int'
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import merge
from typing import NamedTuple

from bpfseal.bpf.insn import ByteOrder
from bpfseal.bpf.strings import StringTable
from bpfseal.bpf.words import from_bytes
from bpfseal.btf.kinds import (
    ENUMS,
    FIXED_WORDS,
    HEADER_WORDS,
    MEMBER_WORDS,
    MODIFIERS,
    REFERENCES,
    SIZED,
    Kind,
)
from bpfseal.errors import InputError

MAGIC = 0xEB9F
MIN_HEADER_SIZE = 24
MAX_RESOLVE_DEPTH = 32
"""Longest chain of modifiers that is followed, as in the kernel (MAX_RESOLVE_DEPTH)."""

POINTER_SIZE = 8
"""Bytes of a pointer in BPF."""

_FEW_NAMES = 32
"""Up to so many names are looked for one by one, each at the speed of bytes.find."""

_KIND_MASK = 0x7F
_MAX_KIND = max(Kind)
_KINDS = tuple(Kind(number) for number in range(_MAX_KIND + 1))


class Member(NamedTuple):
    """A member of a STRUCT or UNION; `bit_offset` still holds a bitfield's size in bits 24-31."""

    name: str
    type_id: int
    bit_offset: int


class VarSecinfo(NamedTuple):
    """An entry of a DATASEC: the VAR's type id, and its offset and size in bytes."""

    type_id: int
    offset: int
    size: int


class BtfType(NamedTuple):
    """The common part of a type.

    Attributes:
        id: the type id; 0 is void.
        name: the name, or ``""``.
        kind: the kind.
        vlen: the number of entries behind the record; for FUNC the linkage.
        kind_flag: bit 31 of ``info``.
        third: size in bytes or the referenced type's id, by kind.
    """

    id: int
    name: str
    kind: Kind
    vlen: int
    kind_flag: bool
    third: int


VOID = BtfType(0, "", Kind.VOID, 0, kind_flag=False, third=0)


@dataclass(frozen=True)
class Btf:
    """A parsed BTF blob.

    Attributes:
        raw: the bytes as they were read.
        byteorder: the byte order of the blob.
        words: the type section as 32-bit words.
        starts: the index in `words` of each type's first word, by type id; index 0 is void.
        kinds: the kind of each type, by type id.
        strings: the string section.
        types_offset: where in `raw` the type section begins.
    """

    raw: bytes
    byteorder: ByteOrder
    words: Sequence[int]
    starts: Sequence[int]
    kinds: bytes
    strings: bytes
    types_offset: int

    @classmethod
    def from_bytes(cls, raw: bytes, where: str = ".BTF", *, trusted: bool = False) -> Btf:
        """Parse and check a BTF blob: every offset, id and name in it is valid afterwards.

        With `trusted` the references between types are taken as they are, which halves the time
        for a kernel's own BTF with its hundred thousand types.

        Rules: ``btf_parse_hdr`` and ``btf_check_all_metas`` in kernel/bpf/btf.c.

        Raises:
            InputError: malformed BTF, with the place.
        """
        if len(raw) < MIN_HEADER_SIZE:
            raise InputError(f"{len(raw)} bytes are too few for a BTF header", where=where)
        byteorder: ByteOrder = "little"
        if raw[:2] == MAGIC.to_bytes(2, "big"):
            byteorder = "big"
        elif raw[:2] != MAGIC.to_bytes(2, "little"):
            raise InputError("no BTF magic", where=where)
        sign = "<" if byteorder == "little" else ">"
        version, flags, header_size, type_off, type_len, str_off, str_len = struct.unpack_from(
            f"{sign}BBIIIII", raw, 2
        )
        if version != 1 or flags:
            raise InputError(f"BTF version {version}, flags {flags:#x} are unknown", where=where)
        if not MIN_HEADER_SIZE <= header_size <= len(raw):
            raise InputError(f"BTF header of {header_size} bytes", where=where)
        if type_off % 4 or type_len % 4 or type_off + type_len > str_off:
            raise InputError("BTF type section is misplaced", where=where)
        if header_size + str_off + str_len > len(raw):
            raise InputError("BTF string section reaches behind the end", where=where)
        strings = raw[header_size + str_off : header_size + str_off + str_len]
        if not strings or strings[0] or strings[-1]:
            raise InputError("BTF string section does not begin and end with zero", where=where)
        types_offset = header_size + type_off
        words = from_bytes(raw[types_offset : types_offset + type_len], byteorder)
        starts, kinds = _find_starts(words, where)
        btf = cls(raw, byteorder, words, starts, kinds, strings, types_offset)
        if not trusted:
            _check_references(btf, where)
        return btf

    def __len__(self) -> int:
        """The number of types, void included."""
        return len(self.starts)

    def string(self, offset: int) -> str:
        """Return the string at a string offset; bytes that are no UTF-8 are escaped.

        Raises:
            InputError: so many strings overlap that they are far longer than their section.
        """
        return self._string_table.at(offset)

    @cached_property
    def _string_table(self) -> StringTable:
        return StringTable(self.strings, ".BTF strings")

    def kind_of(self, type_id: int) -> Kind:
        """Return the kind of a type."""
        return _KINDS[self.kinds[type_id]]

    def type_by_id(self, type_id: int) -> BtfType:
        """Return a type; id 0 is void.

        Raises:
            InputError: no such id.
        """
        if type_id == 0:
            return VOID
        if not 0 < type_id < len(self.starts):
            raise InputError(f"no type with id {type_id}", where=".BTF")
        start = self.starts[type_id]
        name_off, info, third = self.words[start : start + HEADER_WORDS]
        return BtfType(
            type_id,
            self.string(name_off) if name_off else "",
            _KINDS[self.kinds[type_id]],
            info & 0xFFFFFF,
            bool(info >> 31),
            third,
        )

    def types_of_kind(self, kind: Kind) -> Iterator[BtfType]:
        """Yield the types of one kind in the order of their ids."""
        type_id = self.kinds.find(kind, 1)
        while type_id > 0:
            yield self.type_by_id(type_id)
            type_id = self.kinds.find(kind, type_id + 1)

    def entries(self, type_id: int) -> Iterator[tuple[int, ...]]:
        """Yield the raw words of each entry behind a type's record."""
        start = self.starts[type_id]
        size = MEMBER_WORDS[self.kind_of(type_id)]
        first = start + HEADER_WORDS
        for index in range(first, first + size * (self.words[start + 1] & 0xFFFFFF), size):
            yield tuple(self.words[index : index + size])

    def members(self, type_id: int) -> list[Member]:
        """Return the members of a STRUCT or UNION."""
        return [Member(self.string(n), t, off) for n, t, off in self.entries(type_id)]

    def secinfos(self, type_id: int) -> list[VarSecinfo]:
        """Return the entries of a DATASEC."""
        return [VarSecinfo(*entry) for entry in self.entries(type_id)]

    def extra_word(self, type_id: int, index: int = 0) -> int:
        """Return a word behind the record of an INT, ARRAY, VAR or DECL_TAG."""
        return self.words[self.starts[type_id] + HEADER_WORDS + index]

    @cached_property
    def _name_offsets(self) -> bytes:
        """The string offset of each type's name as 32-bit words, by type id."""
        names = array("I", [0])  # void, which has no record
        names.extend(map(self.words.__getitem__, self.starts[1:]))
        return names.tobytes()

    def find(self, name: str, *kinds: Kind) -> int | None:
        """Return the lowest id of a type with this name, of one of `kinds` if any are given."""
        text = name.encode() + b"\0"
        offsets = set()  # a name may also be the end of a longer one
        offset = self.strings.find(text, 1)
        while offset >= 0:
            offsets.add(offset)
            offset = self.strings.find(text, offset + 1)
        for type_id in self.ids_named_at(offsets):
            if not kinds or self.kinds[type_id] in kinds:
                return type_id
        return None

    def find_all(self, names: Collection[str], *kinds: Kind) -> dict[str, int]:
        """Return what `find` does for each of these names that there is."""
        if len(names) <= _FEW_NAMES:
            return {n: found for n in names if (found := self.find(n, *kinds)) is not None}
        wanted, ids = set(names) - {""}, {}
        for type_id in range(len(self.starts) - 1, 0, -1):
            if not kinds or self.kinds[type_id] in kinds:
                name = self.string(self.words[self.starts[type_id]])
                if name in wanted:
                    ids[name] = type_id
        return ids

    def ids_named_at(self, offsets: Collection[int]) -> Iterator[int]:
        """Yield the ids of the types whose name lies at one of these string offsets, in order."""
        if len(offsets) > _FEW_NAMES:
            names = memoryview(self._name_offsets).cast("I")
            return (type_id for type_id, at in enumerate(names) if type_id and at in offsets)
        return merge(*(self._ids_named_at(offset) for offset in offsets))

    def _ids_named_at(self, offset: int) -> Iterator[int]:
        wanted = array("I", [offset])
        at = self._name_offsets.find(wanted, wanted.itemsize)
        while at >= 0:
            if at % wanted.itemsize == 0:
                yield at // wanted.itemsize
            at = self._name_offsets.find(wanted, at + 1)

    def skip_modifiers(self, type_id: int) -> BtfType:
        """Follow typedefs, const, volatile, restrict and type tags to the type behind them.

        Raises:
            InputError: a chain that does not end.
        """
        passed: list[int] = []
        while self.kind_of(type_id) in MODIFIERS:
            if len(passed) > len(self.starts):
                raise InputError("types refer to each other in a circle", where=".BTF")
            passed.append(type_id)
            known = self._behind.get(type_id)
            type_id = self.words[self.starts[type_id] + 2] if known is None else known
        if len(passed) > 1:
            self._behind.update(dict.fromkeys(passed, type_id))
        return self.type_by_id(type_id)

    @cached_property
    def _behind(self) -> dict[int, int]:
        """The type behind a chain of modifiers, for those that were followed already."""
        return {}

    def resolve_size(self, type_id: int) -> int:
        """Return the size of a type in bytes.

        Raises:
            InputError: the type has no size (void, a function, a forward declaration).
        """
        count = 1
        for _ in range(MAX_RESOLVE_DEPTH):
            kind = self.kind_of(type_id)
            if kind in SIZED:
                size = count * self.type_by_id(type_id).third
            elif kind is Kind.PTR:
                size = count * POINTER_SIZE
            elif kind is Kind.ARRAY:
                count *= self.extra_word(type_id, 2)
                type_id = self.extra_word(type_id)
                continue
            elif kind in MODIFIERS or kind in (Kind.VAR, Kind.DECL_TAG):
                type_id = self.type_by_id(type_id).third
                continue
            else:
                break
            if size > 0xFFFFFFFF:
                raise InputError(f"type {type_id} is larger than 4 GiB", where=".BTF")
            return size
        raise InputError(f"type {type_id} has no size", where=".BTF")

    def align_of(self, type_id: int) -> int:
        """Return the alignment of a type in bytes; a packed struct has 1.

        Raises:
            InputError: the type has no alignment.
        """
        for _ in range(MAX_RESOLVE_DEPTH):
            kind = self.kind_of(type_id)
            if kind in (Kind.INT, Kind.ENUM, Kind.ENUM64, Kind.FLOAT):
                size = self.type_by_id(type_id).third
                if not size:
                    break
                return min(POINTER_SIZE, size)
            if kind is Kind.PTR:
                return POINTER_SIZE
            if kind is Kind.ARRAY:
                type_id = self.extra_word(type_id)
            elif kind in MODIFIERS:
                type_id = self.type_by_id(type_id).third
            else:
                break
        raise InputError(f"type {type_id} has no alignment", where=".BTF")


def _find_starts(words: Sequence[int], where: str) -> tuple[list[int], bytes]:
    """Return the index of each type's first word, and each type's kind."""
    starts, kinds = [0], bytearray(1)
    fixed = [FIXED_WORDS.get(kind, 0) + HEADER_WORDS for kind in _KINDS]
    fixed += [HEADER_WORDS] * (_KIND_MASK + 1 - len(fixed))
    entry = [MEMBER_WORDS.get(kind, 0) for kind in _KINDS]
    entry += [0] * (_KIND_MASK + 1 - len(entry))
    index, end = 0, len(words)
    add_start, add_kind = starts.append, kinds.append
    while index < end - 1:
        info = words[index + 1]
        kind = info >> 24 & _KIND_MASK
        add_start(index)
        add_kind(kind)
        index += fixed[kind]
        size = entry[kind]
        if size:
            index += size * (info & 0xFFFFFF)
    if max(kinds) > _MAX_KIND or 0 in kinds[1:]:
        wrong = next(n for n, kind in enumerate(kinds) if n and not 0 < kind <= _MAX_KIND)
        raise InputError(f"type {wrong} has unknown kind {kinds[wrong]}", where=where)
    if index < end:
        raise InputError(f"type {len(starts)} is cut off", where=where)
    if index > end:
        is_cut = starts[-1] + HEADER_WORDS > end
        what = "is cut off" if is_cut else "reaches behind the type section"
        raise InputError(f"type {len(starts) - 1} {what}", where=where)
    return starts, bytes(kinds)


def _check_references(btf: Btf, where: str) -> None:
    """Check every type id and string offset in the type section."""
    words, count, strings_size = btf.words, len(btf.starts), len(btf.strings)

    def refuse(type_id: int, what: str) -> InputError:
        return InputError(f"type {type_id} has an invalid {what}", where=where)

    references = [kind in REFERENCES for kind in _KINDS]
    entry_words = [MEMBER_WORDS.get(kind, 0) for kind in _KINDS]
    named_entries = [kind in MEMBER_WORDS and kind is not Kind.DATASEC for kind in _KINDS]
    typed_entries = [kind in MEMBER_WORDS and kind not in ENUMS for kind in _KINDS]
    for type_id, (start, kind) in enumerate(zip(btf.starts, btf.kinds, strict=True)):
        if not kind:
            continue
        if words[start] >= strings_size:
            raise refuse(type_id, "name offset")
        if references[kind] and words[start + 2] >= count:
            raise refuse(type_id, "type reference")
        body = start + HEADER_WORDS
        size = entry_words[kind]
        if size:
            end = body + size * (words[start + 1] & 0xFFFFFF)
            named = named_entries[kind]
            if named and max(words[body:end:size], default=0) >= strings_size:
                raise refuse(type_id, "entry name")
            if typed_entries[kind] and max(words[body + named : end : size], default=0) >= count:
                raise refuse(type_id, "entry type")
        elif kind == Kind.ARRAY and max(words[body : body + 2]) >= count:
            raise refuse(type_id, "element type")
        elif kind == Kind.FUNC and btf.kinds[words[start + 2]] != Kind.FUNC_PROTO:
            raise refuse(type_id, "prototype")
