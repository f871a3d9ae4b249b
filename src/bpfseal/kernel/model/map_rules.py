"""What each map type demands of BPF_MAP_CREATE, as one table.

Sources: the ``alloc_check`` functions of the map types in kernel/bpf (arraymap.c, hashtab.c,
lpm_trie.c, local_storage.c, ringbuf.c, ...) and ``map_create`` in kernel/bpf/syscall.c.

Example:
    >>> check_map(MapAttributes(type=MapType.ARRAY, key_size=4, value_size=8, max_entries=1))
    >>> check_map(MapAttributes(type=MapType.ARRAY, key_size=8, value_size=8, max_entries=1))
    Traceback (most recent call last):
    bpfseal.errors.KernelError: -EINVAL: ARRAY: key_size 8
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from enum import Enum, auto
from errno import E2BIG, EINVAL
from typing import Final

from bpfseal.bpf.uapi import SHA256_SIZE, MapFlag, MapType
from bpfseal.kernel.model.refusal import ENOTSUPP, refusal

PAGE_SIZE: Final = 4096
"""Bytes of a page on x86-64: ring buffers are made of whole pages."""

MAX_VALUE: Final = (1 << 31) - 1
MAX_PERCPU_VALUE: Final = 32 << 10
"""PCPU_MIN_UNIT_SIZE (include/linux/percpu.h)."""


class Contents(Enum):
    """What the elements of a map are, which decides how BPF_MAP_UPDATE_ELEM works."""

    ARRAY = auto()
    HASH = auto()
    LRU = auto()
    TRIE = auto()
    QUEUE = auto()
    MAP_ARRAY = auto()
    MAP_HASH = auto()
    PROG_ARRAY = auto()
    FD_ARRAY = auto()
    BLOOM = auto()
    OPAQUE = auto()


@dataclass(frozen=True, slots=True)
class MapAttributes:
    """The attributes of BPF_MAP_CREATE, named as in ``union bpf_attr``."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    name: str = ""
    flags: int = 0
    inner_map_fd: int = 0
    btf_fd: int = 0
    btf_key_type_id: int = 0
    btf_value_type_id: int = 0
    btf_vmlinux_value_type_id: int = 0
    map_extra: int = 0
    excl_prog_hash: bytes | None = None


def _some(number: int) -> bool:
    return number > 0


def _none(number: int) -> bool:
    return number == 0


def _pages(number: int) -> bool:
    return number >= PAGE_SIZE and number & (number - 1) == 0


_ACCESS = MapFlag.RDONLY | MapFlag.WRONLY
_ALL_ACCESS = _ACCESS | MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG
_NUMA = MapFlag.NUMA_NODE
_ZERO_SEED = 1 << 6
_PRESERVE_ELEMS = 1 << 11
_INNER_MAP = 1 << 12
_CLONE = 1 << 9
_ARENA_FLAGS = MapFlag.MMAPABLE | 1 << 13 | 1 << 14
_EMPTY: Final = range(1)
_U32: Final = range(4, 5)
_U32_OR_U64: Final = (4, 8)
_SOME: Final = range(1, 1 << 32)
_CGROUP_KEY: Final = (8, 16)


@dataclass(frozen=True, slots=True)
class MapRule:
    """What one map type accepts.

    Attributes:
        keys: allowed sizes of a key in bytes.
        values: allowed sizes of a value in bytes.
        max_value: a larger value is E2BIG, not EINVAL.
        entries: tells whether a number of entries is allowed.
        flags: allowed flags.
        required: flags that must be set.
        contents: what the elements are.
        has_btf: the type takes a BTF for its key and value (its ``map_check_btf`` is not
            ``map_check_no_btf``).
        needs_btf: it must have one.
    """

    keys: Container[int]
    values: Container[int]
    max_value: int = MAX_VALUE
    entries: Callable[[int], bool] = _some
    flags: int = _NUMA | _ACCESS
    required: int = 0
    contents: Contents = Contents.OPAQUE
    has_btf: bool = False
    needs_btf: bool = False


def _array(flags: int, max_value: int = MAX_VALUE) -> MapRule:
    return MapRule(
        _U32,
        _SOME,
        max_value,
        flags=flags | _ALL_ACCESS,
        contents=Contents.ARRAY,
        has_btf=True,
    )


def _hash(
    flags: int,
    contents: Contents = Contents.HASH,
    values: Container[int] = _SOME,
    max_value: int = MAX_VALUE,
) -> MapRule:
    flags |= _ALL_ACCESS | _ZERO_SEED
    return MapRule(_SOME, values, max_value, flags=flags, contents=contents, has_btf=True)


_NO_PREALLOC = MapFlag.NO_PREALLOC
_STORAGE = MapRule(
    _U32,
    _SOME,
    entries=_none,
    flags=_NO_PREALLOC | _CLONE,
    required=_NO_PREALLOC,
    has_btf=True,
    needs_btf=True,
)
_CGROUP_STORAGE = MapRule(_CGROUP_KEY, _SOME, PAGE_SIZE, _none, _NUMA | _ALL_ACCESS, has_btf=True)
_RINGBUF = MapRule(_EMPTY, _EMPTY, entries=_pages, flags=_NUMA)
_QUEUE = MapRule(_EMPTY, _SOME, flags=_NUMA | _ALL_ACCESS, contents=Contents.QUEUE, has_btf=True)

RULES: Final[dict[int, MapRule]] = {
    MapType.HASH: _hash(_NO_PREALLOC | _NUMA),
    MapType.ARRAY: _array(_NUMA | MapFlag.MMAPABLE | _INNER_MAP),
    MapType.PROG_ARRAY: MapRule(_U32, _U32, contents=Contents.PROG_ARRAY, has_btf=True),
    MapType.PERF_EVENT_ARRAY: MapRule(
        _U32, _U32, flags=_NUMA | _ACCESS | _PRESERVE_ELEMS, contents=Contents.FD_ARRAY
    ),
    MapType.PERCPU_HASH: _hash(_NO_PREALLOC, max_value=MAX_PERCPU_VALUE),
    MapType.PERCPU_ARRAY: _array(0, MAX_PERCPU_VALUE),
    MapType.STACK_TRACE: MapRule(_U32, range(8, 127 * 8 + 1, 8)),
    MapType.CGROUP_ARRAY: MapRule(_U32, _U32, contents=Contents.FD_ARRAY),
    MapType.LRU_HASH: _hash(MapFlag.NO_COMMON_LRU | _NUMA, Contents.LRU),
    MapType.LRU_PERCPU_HASH: _hash(MapFlag.NO_COMMON_LRU, Contents.LRU, max_value=MAX_PERCPU_VALUE),
    MapType.LPM_TRIE: MapRule(
        range(5, 261),
        _SOME,
        flags=_NO_PREALLOC | _NUMA | _ALL_ACCESS,
        required=_NO_PREALLOC,
        contents=Contents.TRIE,
        has_btf=True,
    ),
    MapType.ARRAY_OF_MAPS: MapRule(_U32, _U32, contents=Contents.MAP_ARRAY),
    MapType.HASH_OF_MAPS: _hash(_NO_PREALLOC | _NUMA, Contents.MAP_HASH, values=_U32),
    MapType.DEVMAP: MapRule(_U32, _U32_OR_U64),
    MapType.SOCKMAP: MapRule(_U32, _U32_OR_U64),
    MapType.CPUMAP: MapRule(_U32, _U32_OR_U64, flags=_NUMA),
    MapType.XSKMAP: MapRule(_U32, _U32),
    MapType.SOCKHASH: MapRule(range(1, 513), _U32_OR_U64),
    MapType.CGROUP_STORAGE: _CGROUP_STORAGE,
    MapType.REUSEPORT_SOCKARRAY: MapRule(
        _U32, _U32_OR_U64, flags=_NUMA | _ALL_ACCESS, has_btf=True
    ),
    MapType.PERCPU_CGROUP_STORAGE: _CGROUP_STORAGE,
    MapType.QUEUE: _QUEUE,
    MapType.STACK: _QUEUE,
    MapType.SK_STORAGE: _STORAGE,
    MapType.DEVMAP_HASH: MapRule(_U32, _U32_OR_U64),
    MapType.STRUCT_OPS: MapRule(
        _U32, _SOME, entries=lambda entries: entries == 1, flags=1 << 13 | 1 << 15, has_btf=True
    ),
    MapType.RINGBUF: _RINGBUF,
    MapType.INODE_STORAGE: _STORAGE,
    MapType.TASK_STORAGE: _STORAGE,
    MapType.BLOOM_FILTER: MapRule(
        _EMPTY,
        _SOME,
        flags=_NUMA | _ALL_ACCESS | _ZERO_SEED,
        contents=Contents.BLOOM,
        has_btf=True,
    ),
    MapType.USER_RINGBUF: _RINGBUF,
    MapType.CGRP_STORAGE: _STORAGE,
    MapType.ARENA: MapRule(
        _EMPTY, _EMPTY, flags=_ARENA_FLAGS, required=MapFlag.MMAPABLE, has_btf=True
    ),
    MapType.INSN_ARRAY: MapRule(_U32, range(16, 17), flags=0),
}
"""The rules by map type."""

PERCPU: Final = frozenset({MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH})
"""Types with one value for each possible CPU."""

_SOURCE = "kernel/bpf/syscall.c map_create"
_TAKES_EXTRA = frozenset({MapType.BLOOM_FILTER, MapType.ARENA})


def check_map(attributes: MapAttributes) -> None:
    """Check the attributes of a map that do not refer to other objects.

    Raises:
        KernelError: EINVAL, or E2BIG for a value that is too large.
    """
    rule = RULES.get(attributes.type)
    if rule is None:
        raise refusal(EINVAL, _SOURCE, f"map type {attributes.type}")
    type_name = MapType(attributes.type).name
    source = f"kernel/bpf, map_alloc_check of {type_name}"

    def demand(holds: bool, what: str) -> None:
        if not holds:
            raise refusal(EINVAL, source, f"{type_name}: {what}")

    exclusive = attributes.excl_prog_hash
    demand(
        exclusive is None or len(exclusive) == SHA256_SIZE,
        f"excl_prog_hash_size must be {SHA256_SIZE}",
    )
    demand(not attributes.map_extra or attributes.type in _TAKES_EXTRA, "map_extra")
    _check_btf_attributes(attributes, demand)
    if rule.contents is Contents.LRU and attributes.flags & MapFlag.NO_PREALLOC:
        raise refusal(ENOTSUPP, source, f"{type_name}: BPF_F_NO_PREALLOC")
    demand(attributes.key_size in rule.keys, f"key_size {attributes.key_size}")
    demand(attributes.value_size in rule.values, f"value_size {attributes.value_size}")
    demand(rule.entries(attributes.max_entries), f"max_entries {attributes.max_entries}")
    both_sides = (_ACCESS, MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG)
    flags_fit = (
        not attributes.flags & ~int(rule.flags)  # the complement of an IntFlag drops bits
        and attributes.flags & rule.required == rule.required
        and not any(attributes.flags & both == both for both in both_sides)
    )
    demand(flags_fit, f"map_flags {attributes.flags:#x}")
    if attributes.value_size > rule.max_value:
        raise refusal(E2BIG, source, f"{type_name}: value_size {attributes.value_size}")
    demand(not rule.needs_btf or attributes.btf_value_type_id > 0, "needs a BTF value type")


def _check_btf_attributes(attributes: MapAttributes, demand: Callable[[bool, str], None]) -> None:
    if attributes.btf_vmlinux_value_type_id:
        demand(
            attributes.type == MapType.STRUCT_OPS
            and not attributes.btf_key_type_id
            and not attributes.btf_value_type_id,
            "btf_vmlinux_value_type_id",
        )
    else:
        demand(attributes.type != MapType.STRUCT_OPS, "needs btf_vmlinux_value_type_id")
        demand(
            not attributes.btf_key_type_id or attributes.btf_value_type_id > 0,
            "btf_key_type_id without btf_value_type_id",
        )
