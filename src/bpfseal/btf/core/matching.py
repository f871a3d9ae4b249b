"""Find the types of a kernel that may be meant by one of a program, and the same field in them.

Source: kernel/bpf/btf.c ``bpf_core_find_cands``; tools/lib/bpf/relo_core.c
``bpf_core_spec_match``, ``bpf_core_match_member``.

Example:
    >>> [target[type_id].name for type_id in target.candidates(local[3])]
    ['task_struct']
"""

from __future__ import annotations

import re

from bpfseal.btf.btf import Btf, BtfType
from bpfseal.btf.core.compatible import fields_are_compatible, types_are_compatible, types_match
from bpfseal.btf.core.relocation import RelocationKind
from bpfseal.btf.core.spec import (
    COMPOSITES,
    Accessor,
    Spec,
    Types,
    essential_name,
    is_flexible_array,
)
from bpfseal.btf.kinds import ENUMS, Kind


class TargetTypes(Types):
    """A kernel's BTF, with the candidates that were looked for already."""

    def __init__(self, btf: Btf) -> None:
        super().__init__(btf)
        self._candidates: dict[tuple[str, Kind], list[int]] = {}

    def candidates(self, local: BtfType) -> list[int]:
        """Return the ids of the types of the same kind and name, flavors left out, in order."""
        key = essential_name(local.name), local.kind
        if key not in self._candidates:
            self._candidates[key] = _find_candidates(self.btf, *key)
        return self._candidates[key]


def _find_candidates(btf: Btf, name: str, kind: Kind) -> list[int]:
    pattern = re.compile(re.escape(name.encode()) + rb"(?=\0|___)")
    offsets = {
        found.start()
        for found in pattern.finditer(btf.strings)
        if essential_name(btf.string(found.start())) == name
    }
    ids = btf.ids_named_at(offsets)
    return [type_id for type_id in ids if btf.kinds[type_id] == kind]


def match(local: Spec, found: Spec) -> bool:
    """Follow a path of a program in a candidate; return whether it leads to the end.

    Args:
        local: the path in the program's types.
        found: the path in the candidate, without a step so far; it grows as far as it leads.

    Raises:
        RelocationError: what makes a kernel refuse the program.
    """
    target = found.types
    if local.kind is RelocationKind.TYPE_MATCHES:
        return types_match(local.types, local.root, target, found.root)
    if local.kind.is_type:
        return types_are_compatible(local.types, local.root, target, found.root)
    if local.kind.is_enumerator:
        return _match_enumerator(local, found)
    type_id = found.root
    for accessor in local.accessors:
        current = target.resolve(type_id)
        if accessor.name is None:
            reached = _match_element(accessor, found, current)
        else:
            reached = _match_member(local.types, accessor, found, current.id)
        if reached is None:
            return False
        type_id = reached
    return True


def _match_enumerator(local: Spec, found: Spec) -> bool:
    enum = found.types.resolve(found.root)
    if enum.kind not in ENUMS:
        return False
    wanted = essential_name(local.accessors[0].name or "")
    for index, (name, _value) in enumerate(found.types.enumerators(enum.id)):
        if essential_name(name) == wanted:
            found.accessors.append(Accessor(enum.id, index, name))
            found.raw.append(index)
            return True
    return False


def _match_element(accessor: Accessor, found: Spec, current: BtfType) -> int | None:
    """Step to an element: of what the root pointer leads to, or of an array."""
    types, type_id = found.types, current.id
    if found.accessors:
        if current.kind is not Kind.ARRAY:
            return None
        element, count = types.array(current.id)
        flexible = is_flexible_array(types, found.accessors[-1], count)
        if not flexible and accessor.number >= count:
            return None
        type_id = types.resolve(element).id
    found.step(accessor.number)
    found.accessors.append(Accessor(type_id, accessor.number, None))
    found.move(accessor.number * types.size(type_id) * 8)
    return type_id


def _match_member(local: Types, accessor: Accessor, found: Spec, type_id: int) -> int | None:
    """Step to the field of the same name, also through anonymous structs; return its type."""
    types, current = found.types, found.types.resolve(type_id)
    if current.kind not in COMPOSITES:
        return None
    for index, member in enumerate(types.members(current.id)):
        bits = types.bit_offset(current.id, index)
        found.step(index)
        found.move(bits)
        if not member.name:
            inner = _match_member(local, accessor, found, member.type_id)
            if inner is not None:
                return inner
        elif member.name == accessor.name:
            my_type = local.members(accessor.type_id)[accessor.number].type_id
            if not fields_are_compatible(local, my_type, types, member.type_id):
                return None
            found.accessors.append(Accessor(current.id, index, member.name))
            return member.type_id
        found.move(-bits)
        found.raw.pop()
    return None
