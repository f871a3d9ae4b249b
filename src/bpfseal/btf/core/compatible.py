"""Whether two types of different BTFs stand for each other, by the three rules of relocations.

Names are compared without their flavors. Source: tools/lib/bpf/relo_core.c
``bpf_core_fields_are_compat``, ``__bpf_core_types_are_compat``, ``__bpf_core_types_match``, with
the depths that kernel/bpf/btf.c gives them.

Example:
    >>> fields_are_compatible(local, local_id, target, target_id)
    True
"""

from __future__ import annotations

from typing import Final

from bpfseal.btf.btf import MAX_RESOLVE_DEPTH, BtfType
from bpfseal.btf.core.relocation import RelocationError
from bpfseal.btf.core.spec import COMPOSITES, Types, essential_name
from bpfseal.btf.kinds import ENUMS, INT_SIGNED, Kind

_COMPATIBLE_DEPTH: Final = 2
"""MAX_TYPES_ARE_COMPAT_DEPTH: function prototypes within prototypes."""

_MATCH_DEPTH: Final = 2
"""MAX_TYPES_MATCH_DEPTH: structs within structs."""

_BY_NAME: Final = frozenset({Kind.FWD, *ENUMS})
_ALWAYS: Final = frozenset({Kind.VOID, Kind.FWD, *COMPOSITES, *ENUMS})


def _same_kind(first: BtfType, second: BtfType) -> bool:
    return first.kind is second.kind or (first.kind in ENUMS and second.kind in ENUMS)


def _plain_ints(local: Types, local_id: int, target: Types, target_id: int) -> bool:
    return not local.int_offset(local_id) and not target.int_offset(target_id)


def names_match(local: str, target: str) -> bool:
    """Whether two names are the same but for their flavors; nameless matches only nameless."""
    return essential_name(local) == essential_name(target)


def fields_are_compatible(local: Types, local_id: int, target: Types, target_id: int) -> bool:
    """Whether a field of one type may be read as one of the other.

    Raises:
        RelocationError: types without end.
    """
    for _ in range(MAX_RESOLVE_DEPTH):
        mine, theirs = local.resolve(local_id), target.resolve(target_id)
        if mine.kind in COMPOSITES and theirs.kind in COMPOSITES:
            return True
        if not _same_kind(mine, theirs):
            return False
        if mine.kind in (Kind.PTR, Kind.FLOAT):
            return True
        if mine.kind in _BY_NAME:
            anonymous = not mine.name or not theirs.name
            return anonymous or names_match(mine.name, theirs.name)
        if mine.kind is Kind.INT:
            return _plain_ints(local, mine.id, target, theirs.id)
        if mine.kind is not Kind.ARRAY:
            return False
        local_id, target_id = local.array(mine.id)[0], target.array(theirs.id)[0]
    raise RelocationError("arrays of arrays without end")


def types_are_compatible(
    local: Types, local_id: int, target: Types, target_id: int, level: int = _COMPATIBLE_DEPTH
) -> bool:
    """Whether a type of the same name counts as the one that the program knows.

    Raises:
        RelocationError: types that are nested too deep for a kernel.
    """
    if not _same_kind(local[local_id], target[target_id]):
        return False
    for _ in range(MAX_RESOLVE_DEPTH):
        mine, theirs = local.resolve(local_id), target.resolve(target_id)
        if not _same_kind(mine, theirs):
            return False
        if mine.kind in _ALWAYS:
            return True
        if mine.kind is Kind.INT:
            return _plain_ints(local, mine.id, target, theirs.id)
        if mine.kind is Kind.ARRAY:
            local_id, target_id = local.array(mine.id)[0], target.array(theirs.id)[0]
        elif mine.kind is Kind.PTR:
            local_id, target_id = mine.third, theirs.third
        elif mine.kind is Kind.FUNC_PROTO:
            if mine.vlen != theirs.vlen:
                return False
            pairs = zip(local.params(mine.id), target.params(theirs.id), strict=True)
            for my_param, their_param in pairs:
                if level <= 0:
                    raise RelocationError("prototypes nested too deep")
                ids = local.resolve(my_param).id, target.resolve(their_param).id
                if not types_are_compatible(local, ids[0], target, ids[1], level - 1):
                    return False
            local_id, target_id = mine.third, theirs.third
        else:
            return False
    raise RelocationError("types nested too deep")


def types_match(local: Types, local_id: int, target: Types, target_id: int) -> bool:
    """Whether a type of the same name is made like the one that the program knows.

    Raises:
        RelocationError: types that are nested too deep for a kernel.
    """
    return _Match(local, target).types(local_id, target_id, behind_pointer=False)


class _Match:
    """The rule of BPF_CORE_TYPE_MATCHES between two BTFs."""

    def __init__(self, local: Types, target: Types) -> None:
        self._local = local
        self._target = target

    def types(
        self, local_id: int, target_id: int, *, behind_pointer: bool, level: int = _MATCH_DEPTH
    ) -> bool:
        if level <= 0:
            raise RelocationError("structs nested too deep to be matched")
        local, target = self._local, self._target
        for _ in range(MAX_RESOLVE_DEPTH):
            mine, theirs = local.resolve(local_id), target.resolve(target_id)
            if not names_match(mine.name, theirs.name):
                return False
            if mine.kind is Kind.FWD:
                return _forward_matches(mine, theirs, behind_pointer=behind_pointer)
            if mine.kind in ENUMS:
                return theirs.kind in ENUMS and self._enums(mine, theirs)
            if mine.kind in COMPOSITES:
                if not behind_pointer:
                    return mine.kind is theirs.kind and self._members(mine, theirs, level)
                is_union = mine.kind is Kind.UNION
                forward = theirs.kind is Kind.FWD and theirs.kind_flag == is_union
                return mine.kind is theirs.kind or forward
            if mine.kind is not theirs.kind:
                return False
            if mine.kind is Kind.VOID:
                return True
            if mine.kind is Kind.INT:
                return self._ints(mine, theirs)
            if mine.kind is Kind.PTR:
                behind_pointer = True
                local_id, target_id = mine.third, theirs.third
            elif mine.kind is Kind.ARRAY:
                (local_id, my_count), (target_id, their_count) = (
                    local.array(mine.id),
                    target.array(theirs.id),
                )
                if my_count != their_count:
                    return False
            elif mine.kind is Kind.FUNC_PROTO:
                if mine.vlen != theirs.vlen:
                    return False
                pairs = zip(local.params(mine.id), target.params(theirs.id), strict=True)
                if not all(
                    self.types(*pair, behind_pointer=behind_pointer, level=level - 1)
                    for pair in pairs
                ):
                    return False
                local_id, target_id = mine.third, theirs.third
            else:
                return False
        raise RelocationError("types nested too deep")

    def _ints(self, mine: BtfType, theirs: BtfType) -> bool:
        my_sign = self._local.int_encoding(mine.id) & INT_SIGNED
        their_sign = self._target.int_encoding(theirs.id) & INT_SIGNED
        return (mine.third, my_sign) == (theirs.third, their_sign)

    def _enums(self, mine: BtfType, theirs: BtfType) -> bool:
        """Whether all enumerators are there, whatever their values."""
        if mine.third != theirs.third or mine.vlen > theirs.vlen:
            return False
        there = {essential_name(name) for name, _value in self._target.enumerators(theirs.id)}
        return all(
            essential_name(name) in there for name, _value in self._local.enumerators(mine.id)
        )

    def _members(self, mine: BtfType, theirs: BtfType, level: int) -> bool:
        """Whether all members are there under their names, and match."""
        return mine.vlen <= theirs.vlen and all(
            any(
                names_match(member.name, other.name)
                and self.types(member.type_id, other.type_id, behind_pointer=False, level=level - 1)
                for other in self._target.members(theirs.id)
            )
            for member in self._local.members(mine.id)
        )


def _forward_matches(mine: BtfType, theirs: BtfType, *, behind_pointer: bool) -> bool:
    if theirs.kind is Kind.FWD:
        return mine.kind_flag == theirs.kind_flag
    wanted = Kind.UNION if mine.kind_flag else Kind.STRUCT
    return behind_pointer and theirs.kind is wanted
