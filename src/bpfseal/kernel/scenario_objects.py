"""The calls of scenarios about maps, and about what a kernel tells of its objects.

Example:
    >>> map_create(Run(subject, blobs), {"type": 2, "value_size": 64}).result
    'ok'
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from bpfseal.bpf import attr as layouts
from bpfseal.bpf.attr import AttrLayout
from bpfseal.bpf.uapi import SHA256_SIZE, Cmd, MapType
from bpfseal.kernel.scenario_run import DONE, Answer, Arguments, Run

_MAP_CREATE_SIZE: Final = 96
_ROOM: Final = 64
"""Bytes that there are for a value, if a step does not say."""

_KEY_SIZE: Final = 4
_INFO: Final = MappingProxyType(
    {
        "map": layouts.MAP_INFO,
        "program": layouts.PROG_INFO,
        "btf": layouts.BTF_INFO,
    }
)
_BY_ID: Final = MappingProxyType(
    {
        "map": (Cmd.MAP_GET_FD_BY_ID, layouts.MAP_GET_FD_BY_ID, "map_id"),
        "program": (Cmd.PROG_GET_FD_BY_ID, layouts.PROG_GET_FD_BY_ID, "prog_id"),
        "btf": (Cmd.BTF_GET_FD_BY_ID, layouts.BTF_GET_FD_BY_ID, "btf_id"),
    }
)
_NEXT_ID: Final = MappingProxyType(
    {
        "map": Cmd.MAP_GET_NEXT_ID,
        "program": Cmd.PROG_GET_NEXT_ID,
        "btf": Cmd.BTF_GET_NEXT_ID,
        "link": Cmd.LINK_GET_NEXT_ID,
    }
)


def map_create(run: Run, given: Arguments) -> Answer:
    """BPF_MAP_CREATE."""
    values: dict[str, int | bytes] = {
        "map_type": given.get("type", MapType.ARRAY),
        "key_size": given.get("key_size", _KEY_SIZE),
        "value_size": given.get("value_size", _ROOM),
        "max_entries": given.get("max_entries", 1),
        "map_flags": given.get("flags", 0),
        "inner_map_fd": run.number(given.get("inner_map", 0)),
        "map_name": given.get("name", "").encode(),
        "btf_fd": run.number(given.get("btf", 0)),
        "btf_key_type_id": given.get("key_type", 0),
        "btf_value_type_id": given.get("value_type", 0),
        "map_extra": given.get("extra", 0),
    }
    if "exclusive_to" in given or "exclusive_pointer" in given:
        digest = run.bytes_of("sha256:" + given["exclusive_to"]) if "exclusive_to" in given else b""
        values["excl_prog_hash"] = run.pointer(
            digest + bytes(SHA256_SIZE), given.get("exclusive_pointer", "")
        )
        values["excl_prog_hash_size"] = given.get("exclusive_size", SHA256_SIZE)
    size = len(run.room(given.get("attr_size", _MAP_CREATE_SIZE)))
    packed = layouts.MAP_CREATE.pack_fields(values, size=size)
    return run.opened(run.bpf(Cmd.MAP_CREATE, bytearray(packed)))


def _key(run: Run, given: Arguments) -> int:
    """Return where a key is: a number, a blob, or ``null``."""
    key = given.get("key", 0)
    if key is None:
        return 0
    return run.pointer(run.bytes_of(key) if isinstance(key, str) else key.to_bytes(4, "little"))


def _element(run: Run, command: Cmd, given: Arguments, value: int) -> None:
    packed = layouts.MAP_ELEM.pack(
        map_fd=run.number(given["map"]),
        key=_key(run, given),
        value=value,
        flags=given.get("flags", 0),
    )
    run.bpf(command, bytearray(packed))


def map_update(run: Run, given: Arguments) -> Answer:
    """BPF_MAP_UPDATE_ELEM with bytes, or with a fd for a map of maps or programs."""
    if "fd" in given:
        value = run.number(given["fd"]).to_bytes(4, "little")
    else:
        value = run.bytes_of(given["value"])
    _element(run, Cmd.MAP_UPDATE_ELEM, given, run.pointer(value))
    return DONE


def map_lookup(run: Run, given: Arguments) -> Answer:
    """BPF_MAP_LOOKUP_ELEM."""
    return _read(run, Cmd.MAP_LOOKUP_ELEM, given)


def map_pop(run: Run, given: Arguments) -> Answer:
    """BPF_MAP_LOOKUP_AND_DELETE_ELEM."""
    return _read(run, Cmd.MAP_LOOKUP_AND_DELETE_ELEM, given)


def _read(run: Run, command: Cmd, given: Arguments) -> Answer:
    room = run.room(given.get("size", _ROOM))
    value = run.pointer(run.bytes_of(given["value"]) if "value" in given else room)
    _element(run, command, given, value)
    return _shown(run, value, given)


def _shown(run: Run, address: int, given: Arguments) -> Answer:
    """Return an answer with as many of the bytes at an address as the step shows."""
    return Answer("ok", 0, data=run.subject.read_memory(address, given.get("show", 0)).hex())


def map_delete(run: Run, given: Arguments) -> Answer:
    """BPF_MAP_DELETE_ELEM."""
    packed = layouts.MAP_DELETE_ELEM.pack(map_fd=run.number(given["map"]), key=_key(run, given))
    run.bpf(Cmd.MAP_DELETE_ELEM, bytearray(packed))
    return DONE


def map_next_key(run: Run, given: Arguments) -> Answer:
    """BPF_MAP_GET_NEXT_KEY."""
    following = run.pointer(run.room(given.get("size", _ROOM)))
    packed = layouts.MAP_GET_NEXT_KEY.pack(
        map_fd=run.number(given["map"]), key=_key(run, given), next_key=following
    )
    run.bpf(Cmd.MAP_GET_NEXT_KEY, bytearray(packed))
    return _shown(run, following, given)


def map_freeze(run: Run, given: Arguments) -> Answer:
    """BPF_MAP_FREEZE."""
    packed = layouts.MAP_FREEZE.pack(map_fd=run.number(given["map"]))
    run.bpf(Cmd.MAP_FREEZE, bytearray(packed))
    return DONE


def map_hash(run: Run, given: Arguments) -> Answer:
    """BPF_OBJ_GET_INFO_BY_FD for the hash of a map."""
    digest = run.pointer(bytes(2 * SHA256_SIZE))
    info = layouts.MAP_INFO.pack(hash=digest, hash_size=given.get("size", SHA256_SIZE))
    packed = layouts.OBJ_GET_INFO_BY_FD.pack(
        bpf_fd=run.number(given["map"]), info_len=len(info), info=run.pointer(info)
    )
    run.bpf(Cmd.OBJ_GET_INFO_BY_FD, bytearray(packed))
    return Answer("ok", 0, sha256=run.subject.read_memory(digest, SHA256_SIZE).hex())


def mmap(run: Run, given: Arguments) -> Answer:
    """Map the values of a map into memory, shared."""
    fd = run.number(given["map"])
    return Answer("ok", run.subject.mmap(fd, given["size"], writable=given["writable"]))


def munmap(run: Run, given: Arguments) -> Answer:
    """Take a mapping away."""
    run.subject.munmap(run.number(given["mapping"]))
    return DONE


def info(run: Run, given: Arguments) -> Answer:
    """BPF_OBJ_GET_INFO_BY_FD; the result is the object's id."""
    layout = _INFO[given["kind"]]
    size = given.get("size", layout.size)
    place = run.pointer(run.room(max(size, layout.size)))
    packed = layouts.OBJ_GET_INFO_BY_FD.pack(
        bpf_fd=run.number(given["of"]), info_len=size, info=place
    )
    run.bpf(Cmd.OBJ_GET_INFO_BY_FD, bytearray(packed))
    raw = run.subject.read_memory(place, layout.size)
    shown = (f"{name}={_field(layout, raw, name)}" for name in given.get("show", ()))
    return Answer("ok", int(_field(layout, raw, "id")), data=" ".join(shown))


def _field(layout: AttrLayout, raw: bytes, name: str) -> str:
    """Return a field of a struct as text: a name, hex digits of a tag, a number."""
    data = raw[layout.offset(name) : layout.end(name)]
    if name == "name":
        return data.split(b"\0", 1)[0].decode("utf-8", "replace")
    return data.hex() if name == "tag" else str(int.from_bytes(data, "little"))


def open_by_id(run: Run, given: Arguments) -> Answer:
    """BPF_MAP_GET_FD_BY_ID and its neighbours. The result is a fd."""
    command, layout, field = _BY_ID[given["kind"]]
    packed = layout.pack_fields({field: run.number(given["id"])})
    return run.opened(run.bpf(command, bytearray(packed)))


def next_id(run: Run, given: Arguments) -> Answer:
    """BPF_MAP_GET_NEXT_ID and its neighbours."""
    packed = bytearray(layouts.GET_NEXT_ID.pack(start_id=given.get("start", 0)))
    run.bpf(_NEXT_ID[given["kind"]], packed)
    return Answer("ok", layouts.GET_NEXT_ID.unpack(bytes(packed))["next_id"])
