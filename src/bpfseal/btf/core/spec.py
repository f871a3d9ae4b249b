"""The path from a type to a field or enumerator: parsed from an access string, or matched.

Source: tools/lib/bpf/relo_core.c ``bpf_core_parse_spec``, ``bpf_core_format_spec``; the kernel
compiles the same file.

Example:
    >>> spec = parse_spec(types, Relocation(0, 3, "0:1", RelocationKind.FIELD_BYTE_OFFSET))
    >>> spec.describe()
    '<byte_off> [3] struct point.y (0:1 @ offset 4)'
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from errno import E2BIG
from typing import Final, NamedTuple

from bpfseal.bpf.insn import signed32
from bpfseal.btf.btf import Btf, BtfType, Member
from bpfseal.btf.core.relocation import Relocation, RelocationError, RelocationKind
from bpfseal.btf.kinds import ENUMS, MEMBER_WORDS, Kind
from bpfseal.errors import InputError

MAX_LENGTH: Final = 64
"""The most steps of a path (BPF_CORE_SPEC_MAX_LEN)."""

COMPOSITES: Final = frozenset({Kind.STRUCT, Kind.UNION})

_MAX_TEXT: Final = 255
"""Bytes of a described path that the kernel's log has room for."""

_NUMBER = re.compile(r"\s*(-?[0-9]{1,32})")
_FLAVOR = re.compile(r"(?<=[^_])___(?=[^_])")


def essential_name(name: str) -> str:
    """Return a name without its flavor: what follows the last ``___`` between other characters.

    Example:
        >>> essential_name("task_struct___old")
        'task_struct'
    """
    last = 0
    for found in _FLAVOR.finditer(name):
        last = found.start()
    return name[:last] if last else name


class Types:
    """A BTF as relocations ask it: void for no type, members and enumerators kept once read.

    All type ids are checked by `Btf.from_bytes`, or the BTF is a kernel's own.
    """

    def __init__(self, btf: Btf) -> None:
        self.btf = btf
        self._members: dict[int, list[Member]] = {}
        self._enumerators: dict[int, list[tuple[str, int]]] = {}
        self._steps: dict[str, tuple[int, ...]] = {}

    def steps(self, access: str) -> tuple[int, ...]:
        """Return the steps of an access string.

        Raises:
            RelocationError: EINVAL for one that is malformed, E2BIG for one that is too long.
        """
        if access not in self._steps:
            self._steps[access] = _parse_access(access)
        return self._steps[access]

    def __getitem__(self, type_id: int) -> BtfType:
        return self.btf.type_by_id(type_id)

    def resolve(self, type_id: int) -> BtfType:
        """Return the type behind typedefs and modifiers.

        Raises:
            RelocationError: a chain without end.
        """
        try:
            return self.btf.skip_modifiers(type_id)
        except InputError as error:
            raise RelocationError(error.message) from error

    def size(self, type_id: int) -> int:
        """Return the size of a type in bytes.

        Raises:
            RelocationError: it has none.
        """
        try:
            return self.btf.resolve_size(type_id)
        except InputError as error:
            raise RelocationError(error.message) from error

    def members(self, type_id: int) -> list[Member]:
        """Return the members of a STRUCT or UNION."""
        if type_id not in self._members:
            self._members[type_id] = self.btf.members(type_id)
        return self._members[type_id]

    def bit_offset(self, type_id: int, index: int) -> int:
        """Return the offset of a member in bits."""
        offset = self.members(type_id)[index].bit_offset
        return offset & 0xFFFFFF if self[type_id].kind_flag else offset

    def bit_size(self, type_id: int, index: int) -> int:
        """Return the size of a bitfield in bits, 0 for a member that is none."""
        return self.members(type_id)[index].bit_offset >> 24 if self[type_id].kind_flag else 0

    def array(self, type_id: int) -> tuple[int, int]:
        """Return the element type and the number of elements of an ARRAY."""
        return self.btf.extra_word(type_id), self.btf.extra_word(type_id, 2)

    def params(self, type_id: int) -> list[int]:
        """Return the types of the parameters of a FUNC_PROTO."""
        return [type_id for _name, type_id in self.btf.entries(type_id)]

    def int_encoding(self, type_id: int) -> int:
        """Return the encoding of an INT."""
        return self.btf.extra_word(type_id) >> 24 & 0x0F

    def int_offset(self, type_id: int) -> int:
        """Return the bit offset of an INT, which compilers of long ago used for bitfields."""
        return self.btf.extra_word(type_id) >> 16 & 0xFF

    def enumerators(self, type_id: int) -> list[tuple[str, int]]:
        """Return name and value of the enumerators of an ENUM (signed 32 bits) or ENUM64."""
        if type_id not in self._enumerators:
            wide = MEMBER_WORDS[self[type_id].kind] > MEMBER_WORDS[Kind.ENUM]
            self._enumerators[type_id] = [
                (
                    self.btf.string(words[0]),
                    words[1] | words[2] << 32 if wide else words[1] - ((words[1] >> 31) << 32),
                )
                for words in self.btf.entries(type_id)
            ]
        return self._enumerators[type_id]

    def is_last_member(self, type_id: int, index: int) -> bool:
        """Whether a member is the last one of its struct."""
        return index == self[type_id].vlen - 1


class Accessor(NamedTuple):
    """One step that has a meaning: a named field, an array element, or an enumerator.

    Attributes:
        type_id: the type that the step is made in; for an element the element's.
        number: the number of the member, element or enumerator.
        name: the name of the field or enumerator, ``None`` for an element.
    """

    type_id: int
    number: int
    name: str | None


@dataclass(slots=True)
class Spec:
    """A path.

    Attributes:
        types: the BTF that it is in.
        root: the type that it starts at.
        kind: the kind of the relocation.
        accessors: the steps that have a meaning.
        raw: all steps, anonymous structs among them.
        bits: the offset of where it ends, in bits.
    """

    types: Types
    root: int
    kind: RelocationKind
    accessors: list[Accessor] = field(default_factory=list)
    raw: list[int] = field(default_factory=list)
    bits: int = 0

    def step(self, index: int) -> None:
        """Add a step that may turn out to lead nowhere.

        Raises:
            RelocationError: E2BIG for a path that is too long.
        """
        if len(self.raw) == MAX_LENGTH:
            raise _too_deep()
        self.raw.append(index)

    def move(self, bits: int) -> None:
        """Move the end, which the kernel keeps in 32 bits."""
        self.bits = (self.bits + bits) & 0xFFFFFFFF

    def describe(self) -> str:
        """Return the path as the kernel's log shows it."""
        root = self.types[self.root]
        text = f"<{self.kind.label}> [{self.root}] {root.kind.name} {root.name or '<anon>'}"
        if self.kind.is_enumerator:
            text += self._describe_enumerator()
        elif self.kind.is_field:
            text += self._describe_field()
        return text[:_MAX_TEXT]

    def _describe_enumerator(self) -> str:
        enum = self.types.resolve(self.root)
        if enum.kind not in ENUMS or not enum.vlen:
            return ""
        name, value = self.types.enumerators(enum.id)[self.raw[0] if self.raw else 0]
        if not enum.kind_flag:
            value &= 0xFFFFFFFF if enum.kind is Kind.ENUM else (1 << 64) - 1
        elif enum.kind is Kind.ENUM64:
            value -= (value >> 63) << 64
        return f"::{name} = {value}"

    def _describe_field(self) -> str:
        path = "".join(
            f".{name}" if name is not None else f"[{index}]"
            for number, (_type_id, index, name) in enumerate(self.accessors)
            if name is not None or number or index
        )
        raw = ":".join(str(step) for step in self.raw)
        rest = f".{self.bits % 8}" if self.bits % 8 else ""
        return f"{path} ({raw} @ offset {self.bits // 8}{rest})"


def is_flexible_array(types: Types, holder: Accessor, count: int) -> bool:
    """Whether an array without elements may be indexed: as the last member of a struct it may."""
    return bool(holder.name) and not count and types.is_last_member(holder.type_id, holder.number)


def parse_spec(types: Types, relocation: Relocation) -> Spec:
    """Return the path that a record describes in the BTF of its program.

    Raises:
        RelocationError: EINVAL for a record that does not fit its type, E2BIG for a path that is
            too long.
    """
    kind, access = relocation.kind, relocation.access
    if not access or access[0] == ":" or not isinstance(kind, RelocationKind):
        raise RelocationError(f"kind {kind} with the access string {access!r}")
    spec = Spec(types, relocation.type_id, kind)
    if kind.is_type:
        if access != "0":
            raise RelocationError(f"access string {access!r} to a whole type")
        return spec
    spec.raw += types.steps(access)
    root = types.resolve(relocation.type_id)
    first = spec.raw[0]
    if kind.is_enumerator:
        if root.kind not in ENUMS or len(spec.raw) > 1 or first >= root.vlen:
            raise RelocationError(f"no enumerator {access}")
        spec.accessors.append(Accessor(root.id, first, types.enumerators(root.id)[first][0]))
        return spec
    spec.accessors.append(Accessor(root.id, first, None))
    spec.move(first * types.size(root.id) * 8)
    type_id = root.id
    for index in spec.raw[1:]:
        type_id = _follow(spec, type_id, index)
    return spec


def _parse_access(access: str) -> tuple[int, ...]:
    """Take an access string apart, as ``sscanf`` with ``%d`` does."""
    steps: list[int] = []
    at = 0
    while at < len(access):
        at += access[at] == ":"
        found = _NUMBER.match(access, at)
        index = signed32(int(found[1])) if found else -1
        if found is None or index < 0:
            raise RelocationError(f"access string {access!r}")
        if len(steps) == MAX_LENGTH:
            raise _too_deep()
        steps.append(index)
        at = found.end()
    return tuple(steps)


def _too_deep() -> RelocationError:
    return RelocationError("the path is nested too deep", E2BIG)


def _follow(spec: Spec, type_id: int, index: int) -> int:
    """Take one step in the program's own types; return the type that it leads to."""
    types, current = spec.types, spec.types.resolve(type_id)
    if current.kind in COMPOSITES:
        if index >= current.vlen:
            raise RelocationError(f"no member {index} in {current.name or '<anon>'}")
        spec.move(types.bit_offset(current.id, index))
        name, member_type, _offset = types.members(current.id)[index]
        if name:
            spec.accessors.append(Accessor(current.id, index, name))
        return member_type
    if current.kind is not Kind.ARRAY:
        raise RelocationError(f"a step into a type of the kind {current.kind.name}")
    element, count = types.array(current.id)
    if not is_flexible_array(types, spec.accessors[-1], count) and index >= count:
        raise RelocationError(f"element {index} of {count}")
    element_id = types.resolve(element).id
    spec.accessors.append(Accessor(element_id, index, None))
    spec.move(index * types.size(element_id) * 8)
    return element_id
