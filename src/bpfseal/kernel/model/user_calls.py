"""bpf(2) as user space calls it, with attributes and pointers in user memory.

The commands that a program may give as well are those of `bpfseal.kernel.model.syscall`; here are
the others that a loader's user space needs.

Source: kernel/bpf/syscall.c.

Example:
    >>> user_bpf(state, Cmd.MAP_FREEZE, bytearray(attr.MAP_FREEZE.pack(map_fd=5)))
    0
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL, ENOENT, errorcode
from types import MappingProxyType
from typing import Final

from bpfseal.bpf import attr as layouts
from bpfseal.bpf.attr import AttrLayout
from bpfseal.bpf.uapi import SHA256_SIZE, Cmd
from bpfseal.errors import KernelError
from bpfseal.kernel.model import syscall
from bpfseal.kernel.model.attributes import Attr, Place, check_tail, write
from bpfseal.kernel.model.btf_objects import kernel_btf_object
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.run import MAX_CTX_SIZE, run_program
from bpfseal.kernel.model.state import KernelState

EBADFD: Final = next(number for number, name in errorcode.items() if name == "EBADFD")

VMLINUX_BTF_ID: Final = 1
"""The id of the kernel's own BTF, which exists before any other."""

_LOG_TAIL = b"\0"
_SOURCE = "kernel/bpf/syscall.c __sys_bpf"


def user_bpf(state: KernelState, command: int, attributes: bytearray) -> int:
    """Make a call and return its value; what the kernel writes back is in `attributes` after it.

    Raises:
        KernelError: the call was refused.
    """
    name = Cmd(command).name.lower() if command in COMMANDS else f"command {command}"
    region = state.memory.map("attributes", attributes, user=True)
    place = Place(region.base, len(attributes), is_kernel=False)
    try:
        layout, run = _command(state, command, place)
        attr = Attr.copy(state, Cmd(command), layout, place)
    except KernelError as error:
        state.note("user", name, "", error)
        state.memory.unmap(region)
        raise
    try:
        return state.record("user", name, attr.describe(), lambda: run(attr))
    finally:
        state.memory.unmap(region)


def _command(
    state: KernelState, command: int, place: Place
) -> tuple[AttrLayout, Callable[[Attr], int]]:
    if command not in COMMANDS:
        check_tail(state, place, state.profile.attr_size, "attributes")
        raise refusal(EINVAL, _SOURCE, "a command that the model does not have")
    return COMMANDS[command]


def _map_lookup(attr: Attr) -> int:
    target = attr.state.fds.get_as(attr["map_fd"], ModelMap)
    source = "kernel/bpf/syscall.c map_lookup_elem"
    value = target.lookup(attr.bytes_at("key", target.attributes.key_size))
    if value is None:
        raise refusal(ENOENT, source, "no such key")
    attr.write("value", value)
    return 0


def _prog_load(attr: Attr) -> int:
    """Load a program and write the verifier's log, if somebody asked for it."""
    load = syscall.COMMANDS[Cmd.PROG_LOAD][1]
    attr.state.verifier_log = ""
    try:
        return load(attr)
    finally:
        if attr["log_level"] and attr["log_buf"] and attr["log_size"]:
            room = attr["log_size"] - 1
            attr.write("log_buf", attr.state.verifier_log.encode()[:room] + _LOG_TAIL)


def _prog_run(attr: Attr) -> int:
    source = "net/bpf/test_run.c bpf_prog_test_run_syscall"
    size = attr["ctx_size_in"]
    if size > MAX_CTX_SIZE:
        raise refusal(EINVAL, source, f"context of {size} bytes")
    ctx = attr.bytes_at("ctx_in", size)
    retval, after = run_program(attr.state, attr["prog_fd"], ctx)
    if size:
        attr.write("ctx_in", after)
    attr.give_back("retval", retval)
    return 0


def _get_info(attr: Attr) -> int:
    state = attr.state
    source = "kernel/bpf/syscall.c bpf_obj_get_info_by_fd"
    item = state.fds.find(attr["bpf_fd"])
    if item is None:
        raise refusal(EBADFD, source, f"fd {attr['bpf_fd']} is not open")
    if not isinstance(item, ModelMap):
        raise refusal(EINVAL, source, f"the model has no info of {item.label}")
    place = Place(attr["info"], attr["info_len"], is_kernel=False)
    known = state.profile.map_info_size
    given = check_tail(state, place, known, "info")[:known]
    info = layouts.MAP_INFO.unpack(given)
    if info.get("hash"):
        if not item.has_hash:
            raise refusal(EINVAL, source, f"{item.type.name} maps have no hash")
        if info["hash_size"] != SHA256_SIZE:
            raise refusal(EINVAL, source, f"hash_size is {info['hash_size']}, not {SHA256_SIZE}")
        write(state, place, info["hash"], item.user_hash(), "hash")
    told = item.attributes
    filled = layouts.MAP_INFO.pack(
        size=max(layouts.MAP_INFO.size, len(given)),
        type=told.type,
        id=state.maps.index(item) + 1,
        key_size=told.key_size,
        value_size=told.value_size,
        max_entries=told.max_entries,
        map_flags=told.flags,
        name=told.name.encode(),
        map_extra=told.map_extra,
        hash=info["hash"],
        hash_size=info["hash_size"],
    )
    write(state, place, place.address, filled[: len(given)], "info")
    attr.give_back("info_len", len(given))
    return 0


def _open_btf(attr: Attr) -> int:
    """Open the kernel's own BTF, which is the first of all; others are not known by their id."""
    if attr["btf_id"] != VMLINUX_BTF_ID:
        source = "kernel/bpf/btf.c btf_get_fd_by_id"
        raise refusal(ENOENT, source, f"no BTF with the id {attr['btf_id']}")
    return attr.state.fds.install(kernel_btf_object())


COMMANDS: Final = MappingProxyType(
    {
        **syscall.COMMANDS,
        Cmd.MAP_LOOKUP_ELEM: (layouts.MAP_ELEM, _map_lookup),
        Cmd.PROG_LOAD: (layouts.PROG_LOAD, _prog_load),
        Cmd.PROG_RUN: (layouts.PROG_RUN, _prog_run),
        Cmd.BTF_GET_FD_BY_ID: (layouts.BTF_GET_FD_BY_ID, _open_btf),
        Cmd.OBJ_GET_INFO_BY_FD: (layouts.OBJ_GET_INFO_BY_FD, _get_info),
    }
)
"""The commands of user space: what they read, what they do."""
