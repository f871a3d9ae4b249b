"""The start of ``struct bpf_map``, as far as programs of the model may read it.

Example:
    >>> [field.name for field in map_fields(has_hash=True, has_excl=True)]
    ['sha', 'excl', 'ops', 'inner_map_meta', 'security']
"""

from __future__ import annotations

from typing import NamedTuple

from bpfseal.bpf.uapi import SHA256_SIZE

_POINTERS = ("ops", "inner_map_meta", "security")


class Field(NamedTuple):
    """A field.

    Attributes:
        name: its name.
        offset: where it starts, in bytes.
        size: how large it is.
        is_pointer: whether it is a pointer, which is read whole or not at all.
    """

    name: str
    offset: int
    size: int
    is_pointer: bool = False


def map_fields(*, has_hash: bool, has_excl: bool) -> tuple[Field, ...]:
    """Return the first fields of a kernel's ``struct bpf_map``, in order.

    Args:
        has_hash: it begins with ``sha``.
        has_excl: ``excl`` follows; the pointers behind it are aligned to 8 bytes.
    """
    fields = []
    end = 0
    if has_hash:
        fields.append(Field("sha", 0, SHA256_SIZE))
        end = SHA256_SIZE
    if has_excl:
        fields.append(Field("excl", end, 4))
        end += 8
    for name in _POINTERS:
        fields.append(Field(name, end, 8, is_pointer=True))
        end += 8
    return tuple(fields)
