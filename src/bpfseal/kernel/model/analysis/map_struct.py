"""``struct bpf_map`` as programs may read it, field by field.

Structs within it are given by their fields. Layouts are those of x86-64 with the options that
distributions use.

Source: include/linux/bpf.h, and the BTF of 6.12.117, 6.18.44, 7.2.12 and 7.3.4.

Example:
    >>> [field.name for field in map_fields(has_hash=True, has_excl=True)][:5]
    ['sha', 'excl', 'ops', 'inner_map_meta', 'security']
"""

from __future__ import annotations

from typing import Final, NamedTuple

from bpfseal.bpf.uapi import SHA256_SIZE

_OWN: Final = "bpf_map"
_ANONYMOUS: Final = "(anon)"


class Field(NamedTuple):
    """A field.

    Attributes:
        name: its name.
        offset: where it starts, in bytes.
        size: how large it is.
        is_pointer: whether it is a pointer, which is read whole or not at all.
        struct: the struct that it is a member of.
        base: where that starts.
        struct_size: how large that is, 0 for ``struct bpf_map`` itself.
    """

    name: str
    offset: int
    size: int
    is_pointer: bool = False
    struct: str = _OWN
    base: int = 0
    struct_size: int = 0


class _Part(NamedTuple):
    """A field without a place, or one of a struct within."""

    name: str
    size: int
    is_pointer: bool = False
    struct: str = _OWN
    at: int = 0
    struct_size: int = 0


def _pointer(name: str, struct: str = _OWN, at: int = 0, struct_size: int = 0) -> _Part:
    return _Part(name, 8, is_pointer=True, struct=struct, at=at, struct_size=struct_size)


def _counter(size: int = 8) -> _Part:
    return _Part("counter", size, struct=_ANONYMOUS, struct_size=size)


_LOCK: Final = _Part("counter", 4, struct=_ANONYMOUS, struct_size=4)
_LIST: Final = (
    _pointer("next", "list_head", 0, 16),
    _pointer("prev", "list_head", 8, 16),
)
_BEFORE_MUTEX: Final = (
    _pointer("ops"),
    _pointer("inner_map_meta"),
    _pointer("security"),
    *(_Part(name, 4) for name in ("map_type", "key_size", "value_size", "max_entries")),
    _Part("map_extra", 8),
    *(_Part(name, 4) for name in ("map_flags", "id")),
    _pointer("record"),
    *(
        _Part(name, 4)
        for name in (
            "numa_node",
            "btf_key_type_id",
            "btf_value_type_id",
            "btf_vmlinux_value_type_id",
        )
    ),
    _pointer("btf"),
    _pointer("objcg"),
    _Part("name", 16),
)
_MUTEX: Final = (_counter(), _LOCK, _LOCK)
_BEHIND_MUTEX: Final = (
    _counter(),  # refcnt
    _counter(),  # usercnt
    _counter(),  # work.data
    *_LIST,
    _pointer("func", "work_struct", 24, 32),
    _counter(),  # writecnt
    _LOCK,  # owner.lock
    _pointer("owner", _ANONYMOUS, 8, 16),
    _Part("bypass_spec_v1", 1),
    _Part("frozen", 1),
)
_FREED: Final = (_Part("free_after_mult_rcu_gp", 1), _Part("free_after_rcu_gp", 1))
_END: Final = (_counter(), _pointer("elem_count"), _Part("cookie", 8))
_ARRAY: Final = (_Part("elem_size", 4), _Part("index_mask", 4), _pointer("aux"))


def map_fields(
    *,
    has_hash: bool,
    has_excl: bool,
    has_wait_list: bool = True,
    has_init_private: bool = False,
    is_array: bool = True,
) -> tuple[Field, ...]:
    """Return the fields of a kernel's ``struct bpf_map``, in order.

    Args:
        has_hash: it begins with ``sha``, and ends with ``excl_prog_sha``.
        has_excl: ``excl`` follows; the pointers behind it are aligned to 8 bytes.
        has_wait_list: the mutex has a list of who waits, not the first one only.
        has_init_private: there is a field of that name, of an update.
        is_array: it is followed by what a ``struct bpf_array`` has more.
    """
    parts: list[_Part] = []
    if has_hash:
        parts.append(_Part("sha", SHA256_SIZE))
    if has_excl:
        parts.append(_Part("excl", 4))
    waiting = _LIST if has_wait_list else (_pointer("first_waiter", "mutex", 16, 24),)
    parts += (*_BEFORE_MUTEX, *_MUTEX, *waiting, *_BEHIND_MUTEX)
    if has_init_private:
        parts.append(_Part("init_private", 1))
    parts += (*_FREED, *_END)
    if has_hash:
        parts.append(_pointer("excl_prog_sha"))
    if is_array:
        parts += (part._replace(struct="bpf_array") for part in _ARRAY)
    fields = []
    end = 0
    for part in parts:
        align = min(part.size, 8) if part.name not in ("sha", "name") else 1
        at = -(-end // align) * align
        base = at - part.at if part.struct_size else 0
        fields.append(
            Field(part.name, at, part.size, part.is_pointer, part.struct, base, part.struct_size)
        )
        end = at + part.size
    return tuple(fields)
