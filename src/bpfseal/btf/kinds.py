"""Kinds of BTF types and the sizes of their records (``include/uapi/linux/btf.h``)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Kind(IntEnum):
    """``BTF_KIND_*``."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


HEADER_WORDS: Final = 3
"""32-bit words of ``struct btf_type``: name_off, info, and size or type."""

FIXED_WORDS: Final = {Kind.INT: 1, Kind.ARRAY: 3, Kind.VAR: 1, Kind.DECL_TAG: 1}
"""Words behind the header, for kinds whose record has one size."""

MEMBER_WORDS: Final = {
    Kind.STRUCT: 3,
    Kind.UNION: 3,
    Kind.ENUM: 2,
    Kind.FUNC_PROTO: 2,
    Kind.DATASEC: 3,
    Kind.ENUM64: 3,
}
"""Words of each of the `vlen` entries, for kinds that have them."""

MODIFIERS: Final = frozenset(
    {Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG}
)
"""Kinds that only point to another type."""

REFERENCES: Final = MODIFIERS | {Kind.PTR, Kind.FUNC, Kind.FUNC_PROTO, Kind.VAR, Kind.DECL_TAG}
"""Kinds whose third word is a type id."""

ENUMS: Final = frozenset({Kind.ENUM, Kind.ENUM64})
"""Kinds whose entries are a name and a value."""

SIZED: Final = frozenset(
    {Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.DATASEC, Kind.FLOAT}
)
"""Kinds whose third word is a size in bytes."""


class Linkage(IntEnum):
    """Linkage of VAR and FUNC types."""

    STATIC = 0
    GLOBAL = 1
    EXTERN = 2


INT_SIGNED: Final = 1
INT_CHAR: Final = 2
INT_BOOL: Final = 4
"""Encodings of INT types."""
