"""Special fields of structs: locks, timers, lists, trees, kernel pointers.

A BTF with structs that hold some of them is refused if these do not fit; a map whose values have
them must be of a type that knows them.

Source: ``btf_parse_struct_metas``, ``btf_parse_fields`` and ``btf_find_field_one`` in
kernel/bpf/btf.c; ``map_check_btf`` in kernel/bpf/syscall.c.

Example:
    >>> [field.kind for field in special_fields(btf, struct_id, IN_MAPS)]
    ['bpf_spin_lock']
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import E2BIG, EEXIST, EFAULT, EINVAL, ELOOP, ENOENT
from typing import Final, NamedTuple

from bpfseal.btf.btf import Btf, BtfType
from bpfseal.btf.kinds import Kind
from bpfseal.errors import KernelError
from bpfseal.kernel.model.refusal import refusal

_SIZES: Final = {
    "bpf_spin_lock": (4, 4),
    "bpf_res_spin_lock": (4, 4),
    "bpf_timer": (16, 8),
    "bpf_wq": (16, 8),
    "bpf_task_work": (8, 8),
    "bpf_list_head": (16, 8),
    "bpf_list_node": (24, 8),
    "bpf_rb_root": (16, 8),
    "bpf_rb_node": (32, 8),
    "bpf_refcount": (4, 4),
}
"""Bytes and alignment of each struct (include/uapi/linux/bpf.h)."""

_ONCE: Final = frozenset(
    {"bpf_spin_lock", "bpf_res_spin_lock", "bpf_timer", "bpf_wq", "bpf_task_work", "bpf_refcount"}
)
_ROOTS: Final = {"bpf_list_head": "bpf_list_node", "bpf_rb_root": "bpf_rb_node"}
_NODES: Final = frozenset(_ROOTS.values())
_KPTR: Final = "kptr"
_KPTR_TAGS: Final = frozenset({"kptr_untrusted", "kptr", "percpu_kptr"})
_REPEATED: Final = frozenset({_KPTR, *_ROOTS})
_LOCKS: Final = frozenset({"bpf_spin_lock", "bpf_res_spin_lock"})
_STRUCTS: Final = (Kind.STRUCT, Kind.UNION)

IN_OBJECTS: Final = frozenset({_KPTR, *_ROOTS, *_NODES, *_LOCKS, "bpf_refcount"})
"""What a struct that a program allocates may have."""

IN_MAPS: Final = frozenset(
    {_KPTR, *_ROOTS, *_LOCKS, "bpf_refcount", "bpf_timer", "bpf_wq", "bpf_task_work"}
)
"""What the value of a map may have."""

_ALLOCATED: Final = (
    "bpf_spin_lock",
    "bpf_list_head",
    "bpf_list_node",
    "bpf_rb_root",
    "bpf_rb_node",
    "bpf_refcount",
)
_MAX_FIELDS: Final = 11
"""BTF_FIELDS_MAX (include/linux/bpf.h)."""

_MAX_DEPTH: Final = 32
"""MAX_RESOLVE_DEPTH."""


class SpecialField(NamedTuple):
    """A field.

    Attributes:
        kind: the name of its struct, or ``kptr``.
        offset: where it is, in bytes.
        value_id: for a list or tree, the struct that its elements are.
        node: the member of that struct which is the node.
    """

    kind: str
    offset: int
    value_id: int = 0
    node: str = ""


def _refuse(errno: int, what: str) -> KernelError:
    return refusal(errno, "kernel/bpf/btf.c btf_parse_fields", what)


def check_structs(btf: Btf) -> None:
    """Check the structs of a BTF that hold special fields.

    Raises:
        KernelError: E2BIG, EINVAL, ENOENT, EEXIST, EFAULT or ELOOP.
    """
    known = {btf.find(name, Kind.STRUCT) for name in _ALLOCATED}
    holds = {type_id for type_id in known if type_id is not None}
    holds |= {type_id for type_id in range(1, len(btf)) if _kptr_of(btf, type_id)}
    if not holds:
        return
    metas: dict[int, list[SpecialField]] = {}
    for kind in _STRUCTS:
        for found in btf.types_of_kind(kind):
            if any(member.type_id in holds for member in btf.members(found.id)):
                metas[found.id] = []
    for type_id in sorted(metas):
        fields = special_fields(btf, type_id, IN_OBJECTS)
        if not fields:
            raise _refuse(EFAULT, f"type {type_id}: no field of its struct's size")
        metas[type_id] = fields
    for fields in metas.values():
        _check_owners(fields, metas)


def _check_owners(fields: list[SpecialField], metas: dict[int, list[SpecialField]]) -> None:
    """Check that elements of lists and trees are structs of nodes, and own none that own them."""
    is_node = any(field.kind in _NODES for field in fields)
    for field in fields:
        if field.kind not in _ROOTS:
            continue
        if field.value_id not in metas:
            raise _refuse(EFAULT, f"type {field.value_id} has no special fields")
        if is_node and any(other.kind in _ROOTS for other in metas[field.value_id]):
            raise _refuse(ELOOP, f"type {field.value_id} owns others")


def special_fields(btf: Btf, type_id: int, allowed: frozenset[str]) -> list[SpecialField]:
    """Return the special fields of a struct, or of the variables of a section.

    Args:
        btf: the BTF.
        type_id: the struct or section.
        allowed: the kinds that count.

    Raises:
        KernelError: E2BIG, EINVAL, ENOENT, EEXIST or EFAULT.
    """
    found = btf.type_by_id(type_id)
    if found.kind is not Kind.DATASEC and found.kind not in _STRUCTS:
        return []
    fields = _Search(btf, allowed).fields_of(found, 0)
    end = 0
    for field in fields:
        size = 8 if field.kind == _KPTR else _SIZES[field.kind][0]
        if field.offset + size > found.third:
            raise _refuse(EFAULT, "a field behind the end")
        if field.offset < end:
            raise _refuse(EEXIST, "fields in each other's place")
        end = field.offset + size
        if field.kind in _ROOTS:
            _check_node(btf, field)
    kinds = {field.kind for field in fields}
    if kinds >= _LOCKS:
        raise _refuse(EINVAL, "locks of both kinds")
    if kinds & _ROOTS.keys() and not kinds & _LOCKS:
        raise _refuse(EINVAL, "a list or tree without a lock")
    if kinds >= _NODES and "bpf_refcount" not in kinds:
        raise _refuse(EINVAL, "nodes of both kinds without a reference count")
    return fields


def _check_node(btf: Btf, root: SpecialField) -> None:
    """Check the node of a list's or tree's elements (``btf_parse_graph_root``)."""
    nodes = [m for m in btf.members(root.value_id) if m.name == root.node]
    if not nodes:
        raise _refuse(ENOENT, f"no member {root.node}")
    node = btf.type_by_id(nodes[0].type_id)
    if len(nodes) > 1 or node.kind not in _STRUCTS or node.name != _ROOTS[root.kind]:
        raise _refuse(EINVAL, f"{root.node} is no {_ROOTS[root.kind]}")
    if nodes[0].bit_offset % 64:
        raise _refuse(EINVAL, f"{root.node} is not aligned")


def _kptr_of(btf: Btf, type_id: int) -> int | None:
    """Return the struct that a pointer with a tag for kernel pointers leads to (``btf_find_kptr``).

    Raises:
        KernelError: EINVAL, a pointer to something else.
    """
    found = btf.type_by_id(type_id)
    if found.kind is Kind.VOLATILE:
        found = btf.type_by_id(found.third)
    if found.kind is not Kind.PTR:
        return None
    target = btf.type_by_id(found.third)
    if target.kind is not Kind.TYPE_TAG or target.name not in _KPTR_TAGS:
        return None
    behind = btf.skip_modifiers(target.third)
    return behind.id if behind.kind in _STRUCTS else None


class _Search:
    """One search: which fields of which there may be only one were seen."""

    def __init__(self, btf: Btf, allowed: frozenset[str]) -> None:
        self._btf = btf
        self._allowed = allowed
        self._seen: set[str] = set()
        self._left = _MAX_FIELDS

    def fields_of(self, found: BtfType, depth: int) -> list[SpecialField]:
        if depth >= _MAX_DEPTH:
            raise _refuse(E2BIG, "structs nested too deep")
        fields: list[SpecialField] = []
        for owner, index, type_id, offset, size in self._parts(found):
            fields += self._fields_in(owner, index, type_id, offset, size, depth)
        return fields

    def _parts(self, found: BtfType) -> Iterator[tuple[int, int, int, int, int]]:
        btf = self._btf
        if found.kind is Kind.DATASEC:
            for variable in btf.secinfos(found.id):
                type_id = btf.type_by_id(variable.type_id).third
                yield variable.type_id, -1, type_id, variable.offset, variable.size
            return
        for index, member in enumerate(btf.members(found.id)):
            bits = member.bit_offset & 0xFFFFFF if found.kind_flag else member.bit_offset
            if bits % 8:
                raise _refuse(EINVAL, "a member between bytes")
            yield found.id, index, member.type_id, bits // 8, 0

    def _fields_in(
        self, owner: int, index: int, type_id: int, offset: int, size: int, depth: int
    ) -> list[SpecialField]:
        btf, count = self._btf, 1
        for _ in range(_MAX_DEPTH):
            if btf.kind_of(type_id) is not Kind.ARRAY:
                break
            count *= btf.extra_word(type_id, 2)
            type_id = btf.extra_word(type_id, 0)
        else:
            raise _refuse(E2BIG, "arrays nested too deep")
        found = btf.type_by_id(type_id)
        if not count:
            return []
        kind = self._kind_of(found)
        if not kind:
            if found.kind not in _STRUCTS or (size and size != found.third * count):
                return []
            return self._repeat(self.fields_of(found, depth + 1), offset, count, found.third)
        bytes_of, align = (8, 8) if kind == _KPTR else _SIZES[kind]
        if (size and size != bytes_of * count) or offset % align:
            return []
        if kind == _KPTR:
            field = SpecialField(kind, 0) if _kptr_of(btf, found.id) else None
        elif found.kind not in _STRUCTS or found.third != bytes_of:
            field = None
        elif kind in _ROOTS:
            field = SpecialField(kind, 0, *self._elements(owner, index))
        else:
            field = SpecialField(kind, 0)
        if field is None:
            return []
        if not self._left:
            raise _refuse(E2BIG, "too many special fields")
        self._left -= 1
        return self._repeat([field], offset, count, bytes_of)

    def _kind_of(self, found: BtfType) -> str:
        """Return the kind of a field by its type's name (``btf_get_field_type``)."""
        name = found.name
        if name in _SIZES and name in self._allowed:
            if name in _ONCE:
                if name in self._seen:
                    raise _refuse(E2BIG, f"more than one {name}")
                self._seen.add(name)
            return name
        return "" if found.kind in _STRUCTS else _KPTR

    def _repeat(
        self, fields: list[SpecialField], offset: int, count: int, size: int
    ) -> list[SpecialField]:
        if fields and count > 1:
            if not all(field.kind in _REPEATED for field in fields):
                raise _refuse(EINVAL, "an array of fields of which there may be one only")
            self._left -= len(fields) * (count - 1)
            if self._left < 0:
                raise _refuse(E2BIG, "too many special fields")
        return [
            field._replace(offset=offset + size * number + field.offset)
            for number in range(count if fields else 0)
            for field in fields
        ]

    def _elements(self, owner: int, index: int) -> tuple[int, str]:
        """Return what the tag of a list or tree says of its elements: the struct, the node."""
        btf = self._btf
        values = [
            tag.name.removeprefix("contains:")
            for tag in btf.types_of_kind(Kind.DECL_TAG)
            if tag.third == owner
            and btf.extra_word(tag.id) == index & 0xFFFFFFFF
            and tag.name.startswith("contains:")
        ]
        if len(values) != 1 or ":" not in values[0]:
            raise _refuse(EINVAL, "a list or tree without a tag for its elements")
        name, _, node = values[0].partition(":")
        value_id = btf.find(name, Kind.STRUCT)
        if value_id is None:
            raise _refuse(ENOENT, f"no struct {name}")
        if not node:
            raise _refuse(EINVAL, "no name of a node")
        return value_id, node
