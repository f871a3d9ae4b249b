"""OBJ_GET_INFO_BY_FD: what the kernel tells of a map, a program, a BTF or a link.

A program's translated insns are those after CO-RE, with kfunc calls resolved: what the verifier
then rewrites, a kernel alone knows, so that their number and `verified_insns` are not a kernel's.

Source: kernel/bpf/syscall.c ``bpf_obj_get_info_by_fd`` and the function of each kind;
kernel/bpf/btf.c ``btf_get_info_by_fd``.

Example:
    >>> get_info(attr)
    0
"""

from __future__ import annotations

from errno import EINVAL, ENOSPC, errorcode
from typing import Final

from bpfseal.bpf import attr as layouts
from bpfseal.bpf.insn import INSN_SIZE, encode_insns
from bpfseal.bpf.uapi import SHA256_SIZE
from bpfseal.kernel.model.attributes import Attr, Place, check_tail, read, write
from bpfseal.kernel.model.btf_objects import VMLINUX_BTF_ID, BtfObject
from bpfseal.kernel.model.licence import is_gpl_compatible
from bpfseal.kernel.model.links import ModelLink
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.profile import Profile
from bpfseal.kernel.model.program import ModelProgram, insns_digest
from bpfseal.kernel.model.records import FUNC_INFO, LINE_INFO
from bpfseal.kernel.model.refusal import refusal

EBADFD: Final = next(number for number, name in errorcode.items() if name == "EBADFD")

_SOURCE: Final = "kernel/bpf/syscall.c"
_PROG_INFO_SIZE: Final = 232
"""``sizeof(struct bpf_prog_info)``, which ends with padding."""

_GPL_COMPATIBLE_AT: Final = layouts.PROG_INFO.end("ifindex")
_LINK_INFO_SIZE: Final = 64
"""``sizeof(struct bpf_link_info)``: the longest kind is that of uprobes."""

_JITED_LINE_SIZE: Final = 8
_TAG_SIZE: Final = layouts.PROG_INFO.end("tag") - layouts.PROG_INFO.offset("tag")


def get_info(attr: Attr) -> int:
    """Fill the caller's struct with what is known of an object.

    Raises:
        KernelError: EBADFD for a closed fd, EINVAL for one of another kind or for what the struct
            asks for and cannot have, E2BIG for a struct with more in it than the kernel knows,
            EPERM, ENOSPC, EFAULT.
    """
    item = attr.state.fds.find(attr["bpf_fd"])
    if item is None:
        message = f"fd {attr['bpf_fd']} is not open"
        raise refusal(EBADFD, f"{_SOURCE} bpf_obj_get_info_by_fd", message)
    place = Place(attr["info"], attr["info_len"], is_kernel=False)
    match item:
        case ModelMap():
            filled = _map_info(attr, item, place)
        case ModelProgram():
            filled = _prog_info(attr, item, place)
        case BtfObject():
            return _btf_info(attr, item, place)
        case ModelLink():
            filled = _link_info(attr, item, place)
        case _:
            message = f"there is no info of {item.label}"
            raise refusal(EINVAL, f"{_SOURCE} bpf_obj_get_info_by_fd", message)
    _give(attr, place, filled)
    return 0


def _give(attr: Attr, place: Place, filled: bytes) -> None:
    write(attr.state, place, place.address, filled, "info")
    attr.give_back("info_len", len(filled))


def _map_info(attr: Attr, item: ModelMap, place: Place) -> bytes:
    state = attr.state
    known = state.profile.map_info_size
    given = check_tail(state, place, known, "info")[:known]
    info = layouts.MAP_INFO.unpack(given)
    if info.get("hash"):
        source = f"{_SOURCE} bpf_map_get_info_by_fd"
        if not item.has_hash:
            raise refusal(EINVAL, source, f"{item.type.name} maps have no hash")
        if info["hash_size"] != SHA256_SIZE:
            raise refusal(EINVAL, source, f"hash_size is {info['hash_size']}, not {SHA256_SIZE}")
        write(state, place, info["hash"], item.user_hash(), "hash")
    told = item.attributes
    filled = layouts.MAP_INFO.pack(
        size=max(layouts.MAP_INFO.size, len(given)),
        type=told.type,
        id=item.id,
        key_size=told.key_size,
        value_size=told.value_size,
        max_entries=told.max_entries,
        map_flags=told.flags,
        name=told.name.encode(),
        btf_id=item.btf_id,
        btf_key_type_id=told.btf_key_type_id,
        btf_value_type_id=told.btf_value_type_id,
        map_extra=told.map_extra,
        hash=info["hash"],
        hash_size=info["hash_size"],
    )
    return filled[: len(given)]


def _prog_info(attr: Attr, item: ModelProgram, place: Place) -> bytes:
    state, layout = attr.state, layouts.PROG_INFO
    given = check_tail(state, place, layout.size, "info")[:_PROG_INFO_SIZE]
    info = layout.unpack(given)
    sizes = {
        "func_info": FUNC_INFO.words.size,
        "line_info": LINE_INFO.words.size,
        "jited_line_info": _JITED_LINE_SIZE,
    }
    for what, size in sizes.items():
        asked = info[f"nr_{what}"], info[f"{what}_rec_size"]
        if any(asked) and asked[1] != size:
            message = f"{what}_rec_size is {asked[1]}, not {size}"
            raise refusal(EINVAL, f"{_SOURCE} set_info_rec_size", message)
    insns = encode_insns(item.insns)
    lines = item.line_info
    arrays = {
        "map_ids": ("nr_map_ids", 4, b"".join(_u32(used.id) for used in item.used_maps)),
        "xlated_prog_insns": ("xlated_prog_len", 1, insns),
        "func_info": (
            "nr_func_info",
            8,
            b"".join(FUNC_INFO.words.pack(*r) for r in item.func_info),
        ),
        "line_info": ("nr_line_info", 16, b"".join(LINE_INFO.words.pack(*r) for r in lines)),
    }
    counts: dict[str, int | bytes] = {}
    for pointer, (count, unit, data) in arrays.items():
        room = min(info[count] * unit, len(data))
        if room:
            write(state, place, info[pointer], data[:room], pointer)
        counts[count] = len(data) // unit
    told = item.attributes
    values: dict[str, int | bytes] = {
        **{name: info[name] for name in arrays},
        **counts,
        **{f"{what}_rec_size": size for what, size in sizes.items()},
        "type": told.type,
        "id": item.id,
        "name": told.name.encode(),
        "btf_id": item.btf.id if item.btf is not None else 0,
        "verified_insns": len(insns) // INSN_SIZE,
        "attach_btf_id": told.attach_btf_id,
        "attach_btf_obj_id": VMLINUX_BTF_ID if told.attach_btf_id and not told.attach_fd else 0,
        "nr_jited_ksyms": 1,
        "nr_jited_func_lens": 1,
        "nr_prog_tags": 1,
    }
    filled = bytearray(layout.pack_fields(values, size=_PROG_INFO_SIZE))
    filled[layout.offset("tag") : layout.end("tag")] = _tag(state.profile, item)
    filled[_GPL_COMPATIBLE_AT] = is_gpl_compatible(told.license)
    return bytes(filled[: len(given)])


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _tag(profile: Profile, item: ModelProgram) -> bytes:
    """Return the first bytes of the digest by which people know a program."""
    if profile.tag_digest == "sha256":
        return item.digest[:_TAG_SIZE]
    return insns_digest(item.insns, profile.tag_digest)[:_TAG_SIZE]


def _btf_info(attr: Attr, item: BtfObject, place: Place) -> int:
    """Fill ``struct bpf_btf_info``, which may have any size; the name may be cut."""
    state, layout = attr.state, layouts.BTF_INFO
    given = read(state, place, place.address, min(place.size, layout.size), "info")
    info = layout.unpack(given)
    raw, name = item.raw, b"vmlinux" if item.is_kernel else b""
    room = min(len(raw), info["btf_size"])
    if room:
        write(state, place, info["btf"], raw[:room], "btf")
    if bool(info["name"]) != bool(info["name_len"]):
        source = "kernel/bpf/btf.c btf_get_info_by_fd"
        raise refusal(EINVAL, source, "name without name_len, or the other way round")
    is_cut = bool(info["name"]) and info["name_len"] < len(name) + 1
    if info["name"]:
        write(state, place, info["name"], name[: info["name_len"] - 1] + b"\0", "name")
    filled = layout.pack(
        btf=info["btf"],
        btf_size=len(raw),
        id=item.id,
        name=info["name"],
        name_len=len(name),
        kernel_btf=int(item.is_kernel),
    )
    _give(attr, place, filled[: len(given)])
    if is_cut:
        source = "kernel/bpf/btf.c btf_get_info_by_fd"
        raise refusal(ENOSPC, source, "the name does not fit")
    return 0


def _link_info(attr: Attr, item: ModelLink, place: Place) -> bytes:
    given = check_tail(attr.state, place, _LINK_INFO_SIZE, "info")[:_LINK_INFO_SIZE]
    program = item.program.id if item.program is not None else 0
    filled = layouts.LINK_INFO.pack(
        size=max(_LINK_INFO_SIZE, len(given)), type=item.type, id=item.id, prog_id=program
    )
    return filled[: len(given)]
