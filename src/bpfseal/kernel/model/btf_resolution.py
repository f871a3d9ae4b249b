"""What the kernel checks of the types of a BTF together: what refers to what, how large it is.

Source: kernel/bpf/btf.c ``btf_resolve`` and the functions ``*_resolve`` and ``*_check_member``,
``btf_func_proto_check``, ``btf_func_check``, ``btf_check_type_tags``.

Example:
    >>> check_resolution(Btf.from_bytes(raw), tags_first=True)
    Traceback (most recent call last):
    bpfseal.errors.KernelError: -EEXIST: type 3: Loop detected
"""

from __future__ import annotations

from errno import E2BIG, EEXIST
from typing import Final, NamedTuple

from bpfseal.btf.btf import POINTER_SIZE, Btf, BtfType
from bpfseal.btf.kinds import ENUMS, MODIFIERS, Kind
from bpfseal.errors import InputError
from bpfseal.kernel.model.btf_records import component, is_identifier, refuse

_MAX_DEPTH: Final = 32
"""MAX_RESOLVE_DEPTH."""

_U32: Final = 0xFFFFFFFF
_MAX_COPIED_BITS: Final = 128
_CONTAINERS: Final = frozenset({Kind.STRUCT, Kind.UNION})
_SOURCES: Final = frozenset({Kind.VAR, Kind.DATASEC, Kind.DECL_TAG})
"""Kinds that nothing else refers to."""

_UNSIZED: Final = frozenset({Kind.VOID, Kind.FWD, Kind.FUNC_PROTO, Kind.FUNC})
"""Kinds without a size that a pointer or modifier may lead to."""

_TAGGED: Final = _CONTAINERS | {Kind.FUNC, Kind.VAR, Kind.TYPEDEF}
_BY_BYTES: Final = frozenset({Kind.PTR, Kind.ARRAY, Kind.STRUCT, Kind.UNION}) | ENUMS
"""Kinds whose members begin at a byte."""


def check_resolution(btf: Btf, *, tags_first: bool) -> None:
    """Check all types, in the order of their ids.

    Args:
        btf: the types.
        tags_first: type tags come before other modifiers.

    Raises:
        KernelError: EINVAL, EEXIST for a type that contains itself, E2BIG for types nested too
            deep.
    """
    resolution = _Resolution(btf)
    resolution.check()
    if tags_first:
        resolution.check_tags()


class _Tags(NamedTuple):
    """What a chain of modifiers says of its tags; ids of types, 0 for none.

    Attributes:
        first: the first tag.
        misplaced: the first tag behind another modifier.
    """

    first: int
    misplaced: int


class _Resolution:
    """The state of one check.

    Attributes:
        btf: the types.
    """

    def __init__(self, btf: Btf) -> None:
        self.btf = btf
        self._checked: set[int] = set()
        self._open: list[int] = []
        self._named: set[int] = set()

    def check(self) -> None:
        for type_id in range(1, len(self.btf)):
            kind = self.btf.kind_of(type_id)
            if kind is Kind.FUNC_PROTO:
                self._check_prototype(self.btf.type_by_id(type_id))
            elif kind is Kind.FUNC:
                self._check_function(self.btf.type_by_id(type_id))
                self._checked.add(type_id)
            else:
                self._resolve(type_id)

    def check_tags(self) -> None:
        """Check that tags come before other modifiers (``btf_check_type_tags``)."""
        tags: dict[int, _Tags] = {}
        for type_id in range(1, len(self.btf)):
            misplaced = self._tags(type_id, tags).misplaced
            if misplaced:
                raise refuse(misplaced, "Type tags don't precede modifiers")

    def _tags(self, type_id: int, known: dict[int, _Tags]) -> _Tags:
        """Return the tags of a chain of modifiers; what is behind a known type is known."""
        chain = []
        while type_id not in known and self.btf.kind_of(type_id) in MODIFIERS:
            chain.append(type_id)
            type_id = self.btf.type_by_id(type_id).third
        tags = known.get(type_id, _Tags(0, 0))
        for link in reversed(chain):
            is_tag = self.btf.kind_of(link) is Kind.TYPE_TAG
            tags = _Tags(link, tags.misplaced) if is_tag else _Tags(tags.first, tags.first)
            known[link] = tags
        return tags

    def _resolve(self, type_id: int) -> None:
        """Check a type behind all that it contains or, for pointers, leads to."""
        if type_id in self._checked:
            return
        found = self.btf.type_by_id(type_id)
        if type_id in self._open:
            raise refuse(type_id, "Loop detected", EEXIST)
        if len(self._open) >= _MAX_DEPTH:
            raise refuse(type_id, "Exceeded max resolving depth:32", E2BIG)
        self._open.append(type_id)
        if found.kind in MODIFIERS or found.kind is Kind.PTR:
            self._check_reference(found)
        elif found.kind is Kind.ARRAY:
            self._check_array(found)
        elif found.kind in _CONTAINERS:
            self._check_members(found)
        elif found.kind is Kind.VAR:
            self._follow(found.id, found.third, "Invalid type_id")
            self._require_size(found.id, found.third, "Invalid type_id")
        elif found.kind is Kind.DATASEC:
            self._check_section(found)
        elif found.kind is Kind.DECL_TAG:
            self._check_tag(found)
        self._open.pop()
        self._checked.add(type_id)

    def _follow(self, type_id: int, target: int, log: str) -> None:
        """Check what a type leads to, as far as the kernel goes on from there.

        From pointers it goes on along pointers and modifiers, from structs and arrays along
        structs, arrays and modifiers.
        """
        kind = self.btf.kind_of(target)
        if kind in _SOURCES and self.btf.kind_of(type_id) is not Kind.DECL_TAG:
            raise refuse(type_id, log)
        first = next(
            (k for k in map(self.btf.kind_of, self._open) if k not in MODIFIERS | _SOURCES), None
        )
        is_end = {
            None: False,
            Kind.PTR: kind not in MODIFIERS and kind is not Kind.PTR,
        }.get(first, kind is Kind.PTR)
        if not is_end and kind not in (Kind.FUNC, Kind.FUNC_PROTO):
            self._resolve(target)

    def _size(self, type_id: int) -> int | None:
        """Return the size of a type, ``None`` for one that has none (``btf_type_id_size``)."""
        kind = self.btf.kind_of(type_id)
        if kind in _UNSIZED or kind in _SOURCES - {Kind.VAR}:
            return None
        try:
            return self.btf.resolve_size(type_id)
        except InputError:
            return None

    def _require_size(self, type_id: int, target: int, log: str) -> int:
        size = self._size(target)
        if size is None:
            raise refuse(type_id, log)
        return size

    def _check_reference(self, found: BtfType) -> None:
        log = "Invalid type_id"
        self._follow(found.id, found.third, log)
        behind = self.btf.skip_modifiers(found.third)
        if behind.kind is Kind.FUNC:  # known by its prototype, once the kernel has been there
            goes_on = not any(self.btf.kind_of(held) is Kind.PTR for held in self._open)
            if not goes_on and behind.id not in self._checked:
                raise refuse(found.id, log)
            self._checked.add(behind.id)
        elif behind.kind not in _UNSIZED:
            self._require_size(found.id, found.third, log)

    def _check_array(self, found: BtfType) -> None:
        element, index, count = (self.btf.extra_word(found.id, n) for n in range(3))
        self._follow(found.id, index, "Invalid index")
        if not self._is_regular(self.btf.skip_modifiers(index)):
            raise refuse(found.id, "Invalid index")
        self._follow(found.id, element, "Invalid elem")
        size = self._require_size(found.id, element, "Invalid elem")
        behind = self.btf.skip_modifiers(element)
        if behind.kind is Kind.INT and not self._is_regular(behind):
            raise refuse(found.id, "Invalid array of int")
        if count and size > _U32 // count:
            raise refuse(found.id, "Array size overflows U32_MAX")

    def _is_regular(self, found: BtfType) -> bool:
        """Whether it is an INT of 1, 2, 4, 8 or 16 whole bytes (``btf_type_int_is_regular``)."""
        if found.kind is not Kind.INT:
            return False
        word = self.btf.extra_word(found.id)
        size = -(-(word & 0xFF) // 8)
        is_whole = word & 0xFF == 8 * size and not word >> 16 & 0xFF
        return is_whole and size in (1, 2, 4, 8, 16)

    def _check_members(self, found: BtfType) -> None:
        for _name, type_id, placed in self.btf.entries(found.id):
            self._follow(found.id, type_id, "Invalid member")
            member = self.btf.skip_modifiers(type_id)
            if member.kind in _UNSIZED | _SOURCES:
                raise refuse(found.id, "Unsupported check_member")
            if found.kind_flag:
                self._check_member(found, member, placed & 0xFFFFFF, placed >> 24)
            else:
                self._check_member(found, member, placed, 0)

    def _check_member(self, found: BtfType, member: BtfType, offset: int, bits: int) -> None:
        size = self._require_size(found.id, member.id, "Invalid member")
        if member.kind is Kind.INT:
            self._check_int_member(found, member, offset, bits)
            return
        if bits and member.kind not in ENUMS:
            raise refuse(found.id, "Invalid member bitfield_size")
        if bits:
            if bits > 8 * size:
                raise refuse(found.id, "Invalid member bitfield_size")
            if -(-(offset + bits) // 8) > found.third:
                raise refuse(found.id, "Member exceeds struct_size")
            return
        if offset % 8 and member.kind in _BY_BYTES:
            raise refuse(found.id, "Member is not byte aligned")
        align = 8 * min(size, POINTER_SIZE) if member.kind is Kind.FLOAT else 8
        if member.kind is Kind.FLOAT and offset % align:
            raise refuse(found.id, "Member is not properly aligned")
        if offset // 8 + size > found.third:
            raise refuse(found.id, "Member exceeds struct_size")

    def _check_int_member(self, found: BtfType, member: BtfType, offset: int, bits: int) -> None:
        word = self.btf.extra_word(member.id)
        if found.kind_flag:
            if word & 0xFF != 8 * member.third or word >> 16 & 0xFF:
                raise refuse(found.id, "Invalid member base type")
            if not bits and offset % 8:
                raise refuse(found.id, "Invalid member offset")
            if bits > word & 0xFF:
                raise refuse(found.id, "Invalid member bitfield_size")
            used = bits or word & 0xFF
        else:
            offset += word >> 16 & 0xFF
            used = word & 0xFF
        copied = used + offset % 8
        if offset > _U32 or copied > _MAX_COPIED_BITS:
            raise refuse(found.id, "nr_copy_bits exceeds 128")
        if offset // 8 + -(-copied // 8) > found.third:
            raise refuse(found.id, "Member exceeds struct_size")

    def _check_section(self, found: BtfType) -> None:
        for variable in self.btf.secinfos(found.id):
            if self.btf.kind_of(variable.type_id) is not Kind.VAR:
                raise refuse(found.id, "Not a VAR kind member")
            self._resolve(variable.type_id)
            target = self.btf.type_by_id(variable.type_id).third
            if variable.size < self._require_size(found.id, target, "Invalid type_id"):
                raise refuse(found.id, "Invalid size")

    def _check_tag(self, found: BtfType) -> None:
        target = self.btf.type_by_id(found.third)
        if target.kind not in _TAGGED:
            raise refuse(found.id, "Invalid type_id")
        self._follow(found.id, found.third, "Invalid type_id")
        index = component(self.btf, found.id)
        if index == -1:
            return
        count = target.vlen if target.kind in _CONTAINERS else 0
        if target.kind is Kind.FUNC:
            count = self.btf.type_by_id(target.third).vlen
        if index >= count:
            raise refuse(found.id, "Invalid component_idx")

    def _check_prototype(self, found: BtfType) -> None:
        if found.third:
            self._require_sized(found, found.third, "Invalid return type")
        arguments = list(self.btf.entries(found.id))
        if arguments and arguments[-1] == (0, 0):
            arguments.pop()  # "..."
        for number, (name_off, type_id) in enumerate(arguments, 1):
            log = f"Invalid arg#{number}"
            if not type_id or (name_off and not is_identifier(self.btf, name_off)):
                raise refuse(found.id, log)
            self._require_sized(found, type_id, log)

    def _require_sized(self, found: BtfType, target: int, log: str) -> None:
        if self.btf.kind_of(target) in _SOURCES:
            raise refuse(found.id, log)
        self._resolve_alone(target)
        self._require_size(found.id, target, log)

    def _resolve_alone(self, target: int) -> None:
        """Check a type that a prototype names: this begins anew."""
        if self.btf.kind_of(target) not in (Kind.FUNC, Kind.FUNC_PROTO):
            held, self._open = self._open, []
            self._resolve(target)
            self._open = held

    def _check_function(self, found: BtfType) -> None:
        if found.third in self._named:
            return
        for number, (name_off, type_id) in enumerate(self.btf.entries(found.third), 1):
            if type_id and not name_off:
                raise refuse(found.id, f"Invalid arg#{number}")
        self._named.add(found.third)
