"""What the kernel checks of each type of a BTF by itself: names, flags, sizes, places of members.

`Btf.from_bytes` has checked before that every id and offset in it leads somewhere.

Source: kernel/bpf/btf.c, the functions ``*_check_meta``.

Example:
    >>> check_records(Btf.from_bytes(raw))
    Traceback (most recent call last):
    bpfseal.errors.KernelError: -EINVAL: type 10: Invalid func linkage
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from errno import EINVAL
from types import MappingProxyType
from typing import Final

from bpfseal.btf.btf import Btf, BtfType
from bpfseal.btf.kinds import INT_BOOL, INT_CHAR, INT_SIGNED, Kind, Linkage
from bpfseal.errors import KernelError
from bpfseal.kernel.model.refusal import ENOTSUPP, refusal

_MAX_NAME: Final = 512
"""KSYM_NAME_LEN."""

_IDENTIFIER: Final = re.compile(rb"[A-Za-z_.][A-Za-z0-9_.]{0,%d}\0" % (_MAX_NAME - 2))

_RESERVED_INFO: Final = 0x60000000
_RESERVED_INT: Final = 0xF0000000
_MAX_INT_BITS: Final = 128
_ENUM_SIZES: Final = frozenset({1, 2, 4, 8})
_FLOAT_SIZES: Final = frozenset({2, 4, 8, 12, 16})
_ENCODINGS: Final = frozenset({0, INT_SIGNED, INT_CHAR, INT_BOOL})
_FLAGGED: Final = frozenset(
    {
        Kind.STRUCT,
        Kind.UNION,
        Kind.ENUM,
        Kind.ENUM64,
        Kind.FWD,
        Kind.TYPE_TAG,
        Kind.DECL_TAG,
    }
)
"""Kinds whose kind_flag means something."""

_COUNTED: Final = frozenset(
    {
        Kind.STRUCT,
        Kind.UNION,
        Kind.ENUM,
        Kind.ENUM64,
        Kind.FUNC,
        Kind.FUNC_PROTO,
        Kind.DATASEC,
    }
)
"""Kinds whose vlen means something."""


def refuse(type_id: int, log: str, errno: int = EINVAL) -> KernelError:
    """Return the refusal of a BTF for one of its types."""
    return refusal(errno, "kernel/bpf/btf.c btf_check_all_types", f"type {type_id}: {log}")


def check_records(btf: Btf) -> None:
    """Check each type by itself, in the order of their ids.

    Raises:
        KernelError: EINVAL; ENOTSUPP (524) for an encoding of an INT that the kernel lacks.
    """
    for type_id in range(1, len(btf)):
        found = btf.type_by_id(type_id)
        if btf.words[btf.starts[type_id] + 1] & _RESERVED_INFO:
            raise refuse(type_id, "Invalid btf_info")
        if found.vlen and found.kind not in _COUNTED:
            raise refuse(type_id, "vlen != 0")
        if found.kind_flag and found.kind not in _FLAGGED:
            raise refuse(type_id, "Invalid btf_info kind_flag")
        _CHECKS[found.kind](btf, found)


def is_identifier(btf: Btf, offset: int) -> bool:
    """Whether a name is one of C, or one with dots (``btf_name_valid_identifier``)."""
    return _IDENTIFIER.match(btf.strings, offset) is not None


def _require_name(btf: Btf, found: BtfType) -> None:
    if not is_identifier(btf, btf.words[btf.starts[found.id]]):
        raise refuse(found.id, "Invalid name")


def _require_name_if_any(btf: Btf, found: BtfType) -> None:
    if btf.words[btf.starts[found.id]]:
        _require_name(btf, found)


def _require_no_name(btf: Btf, found: BtfType) -> None:
    if btf.words[btf.starts[found.id]]:
        raise refuse(found.id, "Invalid name")


def _int(btf: Btf, found: BtfType) -> None:
    word = btf.extra_word(found.id)
    if word & _RESERVED_INT:
        raise refuse(found.id, "Invalid int_data")
    bits = (word & 0xFF) + (word >> 16 & 0xFF)
    if bits > _MAX_INT_BITS:
        raise refuse(found.id, "nr_bits exceeds 128")
    if -(-bits // 8) > found.third:
        raise refuse(found.id, "nr_bits exceeds type_size")
    if word >> 24 & 0xF not in _ENCODINGS:
        raise refuse(found.id, "Unsupported encoding", ENOTSUPP)


def _tag(_btf: Btf, found: BtfType) -> None:
    if not found.name:
        raise refuse(found.id, "Invalid value")


def _forward(btf: Btf, found: BtfType) -> None:
    if found.third:
        raise refuse(found.id, "type != 0")
    _require_name(btf, found)


def _array(btf: Btf, found: BtfType) -> None:
    _require_no_name(btf, found)
    if found.third:
        raise refuse(found.id, "size != 0")
    if not btf.extra_word(found.id, 0):
        raise refuse(found.id, "Invalid elem")
    if not btf.extra_word(found.id, 1):
        raise refuse(found.id, "Invalid index")


def _struct(btf: Btf, found: BtfType) -> None:
    _require_name_if_any(btf, found)
    last = 0
    for name_off, type_id, placed in btf.entries(found.id):
        if name_off and not is_identifier(btf, name_off):
            raise refuse(found.id, "Invalid name")
        if not type_id:
            raise refuse(found.id, "Invalid type_id")
        offset = placed & 0xFFFFFF if found.kind_flag else placed
        if offset < last or (offset and found.kind is Kind.UNION):
            raise refuse(found.id, "Invalid member bits_offset")
        if -(-offset // 8) > found.third:
            raise refuse(found.id, "Member bits_offset exceeds its struct size")
        last = offset


def _enum(btf: Btf, found: BtfType) -> None:
    if found.third not in _ENUM_SIZES:
        raise refuse(found.id, "Unexpected size")
    _require_name_if_any(btf, found)
    if not all(is_identifier(btf, entry[0]) for entry in btf.entries(found.id)):
        raise refuse(found.id, "Invalid name")


def _prototype(btf: Btf, found: BtfType) -> None:
    _require_no_name(btf, found)


def _function(btf: Btf, found: BtfType) -> None:
    _require_name(btf, found)
    if found.vlen > Linkage.GLOBAL:
        raise refuse(found.id, "Invalid func linkage")


def _variable(btf: Btf, found: BtfType) -> None:
    _require_name(btf, found)
    if not found.third:
        raise refuse(found.id, "Invalid type_id")
    if btf.extra_word(found.id) not in (Linkage.STATIC, Linkage.GLOBAL):
        raise refuse(found.id, "Linkage not supported")


def _section(btf: Btf, found: BtfType) -> None:
    if not found.third:
        raise refuse(found.id, "size == 0")
    if not found.name or len(found.name) > _MAX_NAME or not found.name.isprintable():
        raise refuse(found.id, "Invalid name")
    end = total = 0
    for variable in btf.secinfos(found.id):
        if not variable.type_id:
            raise refuse(found.id, "Invalid type_id")
        if not end <= variable.offset < found.third:
            raise refuse(found.id, "Invalid offset")
        if not 0 < variable.size <= found.third:
            raise refuse(found.id, "Invalid size")
        end = variable.offset + variable.size & 0xFFFFFFFF  # the kernel adds 32-bit numbers
        if end > found.third:
            raise refuse(found.id, "Invalid offset+size")
        total += variable.size
    if found.third < total:
        raise refuse(found.id, "Invalid btf_info size")


def _float(_btf: Btf, found: BtfType) -> None:
    if found.third not in _FLOAT_SIZES:
        raise refuse(found.id, "Invalid type_size")


def _declaration_tag(btf: Btf, found: BtfType) -> None:
    _tag(btf, found)
    if component(btf, found.id) < -1:
        raise refuse(found.id, "Invalid component_idx")


def component(btf: Btf, type_id: int) -> int:
    """Return which part a DECL_TAG is about, -1 for the whole."""
    index = btf.extra_word(type_id)
    return index - (1 << 32) if index >> 31 else index


_CHECKS: Final[Mapping[Kind, Callable[[Btf, BtfType], None]]] = MappingProxyType(
    {
        Kind.INT: _int,
        Kind.PTR: _require_no_name,
        Kind.CONST: _require_no_name,
        Kind.VOLATILE: _require_no_name,
        Kind.RESTRICT: _require_no_name,
        Kind.TYPEDEF: _require_name,
        Kind.TYPE_TAG: _tag,
        Kind.FWD: _forward,
        Kind.ARRAY: _array,
        Kind.STRUCT: _struct,
        Kind.UNION: _struct,
        Kind.ENUM: _enum,
        Kind.ENUM64: _enum,
        Kind.FUNC_PROTO: _prototype,
        Kind.FUNC: _function,
        Kind.VAR: _variable,
        Kind.DATASEC: _section,
        Kind.FLOAT: _float,
        Kind.DECL_TAG: _declaration_tag,
    }
)
