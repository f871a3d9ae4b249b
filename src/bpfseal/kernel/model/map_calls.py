"""The system calls that make and fill maps.

Source: kernel/bpf/syscall.c ``map_create``, ``map_update_elem``, ``map_freeze``.

Example:
    >>> fd = map_create(state, MapAttributes(MapType.ARRAY, 4, 8, 1, name="config"))
    >>> map_update(state, fd, bytes(4), bytes(8), 0)
"""

from __future__ import annotations

from errno import EACCES, EBADF, EFAULT, EINVAL, EOPNOTSUPP

from bpfseal.bpf.uapi import OBJ_NAME_LEN, MapFlag, MapType
from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import Kind
from bpfseal.errors import InputError
from bpfseal.kernel.model.btf_fields import IN_MAPS, special_fields
from bpfseal.kernel.model.btf_objects import BtfObject
from bpfseal.kernel.model.fds import KernelObject
from bpfseal.kernel.model.map_rules import RULES, MapAttributes, check_map
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.program import ModelProgram
from bpfseal.kernel.model.refusal import ENOTSUPP, refusal
from bpfseal.kernel.model.state import KernelState

_MAPS_OF_MAPS = frozenset({MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})
_NEVER_INNER = frozenset(
    {
        MapType.PROG_ARRAY,
        MapType.STRUCT_OPS,
        MapType.CGROUP_STORAGE,
        MapType.PERCPU_CGROUP_STORAGE,
        MapType.ARENA,
        MapType.INSN_ARRAY,
    }
)
"""Types without ``map_meta_equal``, which no map of maps can contain."""

_STORAGES = frozenset(
    {
        MapType.SK_STORAGE,
        MapType.INODE_STORAGE,
        MapType.TASK_STORAGE,
        MapType.CGRP_STORAGE,
    }
)
_LOCKED = _STORAGES | {MapType.HASH, MapType.ARRAY, MapType.CGROUP_STORAGE}
_TIMED = frozenset({MapType.HASH, MapType.LRU_HASH, MapType.ARRAY})
_COUNTED = _STORAGES | _TIMED | {MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH, MapType.PERCPU_ARRAY}
_HOLDERS = {
    **dict.fromkeys(("bpf_spin_lock", "bpf_res_spin_lock"), _LOCKED),
    **dict.fromkeys(("bpf_timer", "bpf_wq", "bpf_task_work"), _TIMED),
    **dict.fromkeys(("kptr", "bpf_refcount"), _COUNTED),
    **dict.fromkeys(("bpf_list_head", "bpf_rb_root"), _TIMED),
}
"""The types of maps whose values may have each special field."""


def check_name(name: str) -> None:
    """Check the name of a map or program (``bpf_obj_name_cpy``).

    Raises:
        KernelError: EINVAL.
    """
    fits = len(name) < OBJ_NAME_LEN and all(
        c.isascii() and (c.isalnum() or c in "_.") for c in name
    )
    if not fits:
        raise refusal(EINVAL, "kernel/bpf/syscall.c bpf_obj_name_cpy", f"name {name!r}")


def map_create(state: KernelState, attributes: MapAttributes) -> int:
    """Make a map and return its fd.

    Raises:
        KernelError: what ``map_create`` answers.
    """
    if attributes.excl_prog_hash is not None and not state.profile.has_exclusive_maps:
        source = "kernel/bpf/syscall.c map_create"
        raise refusal(EINVAL, source, "this kernel knows no exclusive maps (CHECK_ATTR)")
    check_map(attributes)
    check_name(attributes.name)
    template = _template(state, attributes) if attributes.type in _MAPS_OF_MAPS else None
    btf_id = 0
    if attributes.btf_key_type_id or attributes.btf_value_type_id:
        loaded = state.fds.get_as(attributes.btf_fd, BtfObject)
        _check_map_btf(loaded, attributes)
        btf_id = loaded.id
    created = ModelMap(
        attributes,
        state.memory,
        work=state.work,
        possible_cpus=state.profile.possible_cpus,
        pops_stacks=state.profile.pops_stacks,
        template=template,
    )
    state.maps.append(created)
    created.id, created.btf_id = len(state.maps), btf_id
    return state.fds.install(created)


def _template(state: KernelState, attributes: MapAttributes) -> MapAttributes:
    """Return what the inner maps of a map of maps must be like (``bpf_map_meta_alloc``)."""
    inner = state.fds.get_as(attributes.inner_map_fd, ModelMap)
    source = "kernel/bpf/map_in_map.c bpf_map_meta_alloc"
    if inner.type in _MAPS_OF_MAPS:
        raise refusal(EINVAL, source, "an inner map cannot contain maps itself")
    if inner.type in _NEVER_INNER:
        raise refusal(ENOTSUPP, source, f"{inner.type.name} cannot be an inner map")
    return inner.attributes


def _check_map_btf(loaded: BtfObject, attributes: MapAttributes) -> None:
    """Check that a map's types are as large as its key and value (``map_check_btf``)."""
    source = "kernel/bpf/syscall.c map_check_btf"
    rule = RULES[attributes.type]
    if loaded.is_kernel:
        raise refusal(EACCES, source, "the BTF of the kernel is not for maps")
    key, value = attributes.btf_key_type_id, attributes.btf_value_type_id
    sized = [(value, attributes.value_size, "value")]
    if key:
        sized.append((key, attributes.key_size, "key"))
    for type_id, size, what in sized:
        if _size_of(loaded.btf, type_id) != size:
            raise refusal(EINVAL, source, f"{what} type {type_id} is not of {size} bytes")
    if not rule.has_btf:
        raise refusal(ENOTSUPP, source, f"{MapType(attributes.type).name} takes no BTF")
    is_global_data = (
        attributes.type == MapType.ARRAY
        and attributes.max_entries == 1
        and loaded.btf.kind_of(value) is Kind.DATASEC
    )
    is_bloom = attributes.type == MapType.BLOOM_FILTER
    if is_bloom and key:
        raise refusal(EINVAL, "kernel/bpf/bloom_filter.c bloom_map_check_btf", "there are no keys")
    _check_special_fields(loaded.btf, attributes)
    if not key and not is_global_data and not is_bloom:
        raise refusal(EINVAL, source, "only global data goes without a key type")


def _check_special_fields(btf: Btf, attributes: MapAttributes) -> None:
    """Check that the type of a map knows the special fields of its values (``map_check_btf``)."""
    source = "kernel/bpf/syscall.c map_check_btf"
    fields = special_fields(btf, attributes.btf_value_type_id, IN_MAPS)
    if fields and attributes.flags & (MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG):
        raise refusal(EACCES, source, "special fields in a map that programs may not change")
    for field in fields:
        if attributes.type not in _HOLDERS[field.kind]:
            name = MapType(attributes.type).name
            raise refusal(EOPNOTSUPP, source, f"{name} takes no {field.kind}")


def _size_of(btf: Btf, type_id: int) -> int | None:
    try:
        return btf.resolve_size(btf.type_by_id(type_id).id)
    except InputError:
        return None


def map_update(state: KernelState, fd: int, key: bytes, value: bytes, flags: int) -> None:
    """Set one element.

    Raises:
        KernelError: what ``map_update_elem`` answers; EFAULT for a key or value that is shorter
            than the map's.
    """
    target = state.fds.get_as(fd, ModelMap)
    key_size, value_size = target.attributes.key_size, target.transfer_size
    if len(key) < key_size or len(value) < value_size:
        source = "kernel/bpf/syscall.c map_update_elem"
        raise refusal(EFAULT, source, f"reads {key_size} bytes of key, {value_size} of value")

    def resolve(number: int) -> KernelObject:
        return _element(state, target, number)

    target.update(key[:key_size], value[:value_size], flags, resolve)


def _element(state: KernelState, target: ModelMap, fd: int) -> KernelObject:
    """Return the map or program that a fd in a map of maps or programs stands for."""
    if target.type in _MAPS_OF_MAPS:
        return state.fds.get_as(fd, ModelMap)
    if target.type is not MapType.PROG_ARRAY:
        source = "kernel/events/core.c perf_event_get; kernel/cgroup/cgroup.c cgroup_get_from_fd"
        raise refusal(EBADF, source, f"{state.fds.get(fd).label} is none of those")
    program = state.fds.get_as(fd, ModelProgram)
    if target.owner_type not in (None, program.type):
        source = "kernel/bpf/core.c bpf_prog_map_compatible"
        raise refusal(EINVAL, source, "programs of two types in one PROG_ARRAY")
    target.owner_type = program.type
    return program


def map_freeze(state: KernelState, fd: int) -> None:
    """Make a map read-only for user space.

    Raises:
        KernelError: EPERM if it is already; EBADF, EINVAL for no map.
    """
    target = state.fds.get_as(fd, ModelMap)
    if target.type is MapType.STRUCT_OPS:
        raise refusal(ENOTSUPP, "kernel/bpf/syscall.c map_freeze", "STRUCT_OPS does not freeze")
    target.freeze()
