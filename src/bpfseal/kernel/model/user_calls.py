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
from errno import EFAULT, EINVAL, ENOENT
from types import MappingProxyType
from typing import Final

from bpfseal.bpf import attr as layouts
from bpfseal.bpf.attr import AttrLayout
from bpfseal.bpf.uapi import Cmd, MapType
from bpfseal.errors import KernelError
from bpfseal.kernel.model import ids, syscall
from bpfseal.kernel.model.attributes import Attr, Place, check_tail
from bpfseal.kernel.model.info import get_info
from bpfseal.kernel.model.links import detach_link
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.pins import open_pinned, pin
from bpfseal.kernel.model.program import ModelProgram
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.run import MAX_CTX_SIZE, run_program
from bpfseal.kernel.model.state import USER, KernelState

PATH_SIZE: Final = 4096
"""PATH_MAX."""

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
        state.note(USER, name, "", error)
        state.memory.unmap(region)
        raise
    try:
        return state.record(USER, name, attr.describe(), lambda: run(attr))
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
    return _read(attr, "map_lookup_elem", ModelMap.lookup)


def _map_pop(attr: Attr) -> int:
    return _read(attr, "map_lookup_and_delete_elem", ModelMap.pop)


def _read(attr: Attr, function: str, operation: Callable[[ModelMap, bytes], bytes | None]) -> int:
    target = attr.state.fds.get_as(attr["map_fd"], ModelMap)
    source = f"kernel/bpf/syscall.c {function}"
    if attr["flags"]:
        raise refusal(EINVAL, source, "flags that no map of the model has")
    key = syscall.map_key(attr, target)
    if target.type is MapType.BLOOM_FILTER:
        key = attr.bytes_at("value", target.transfer_size)  # whether it is there is asked
    attr.write("value", _found(operation(target, key), source))
    return 0


def _map_next_key(attr: Attr) -> int:
    target = attr.state.fds.get_as(attr["map_fd"], ModelMap)
    key = syscall.map_key(attr, target) if attr["key"] else None
    following = _found(target.next_key(key), "kernel/bpf/syscall.c map_get_next_key")
    attr.write("next_key", following)
    return 0


def _found(value: bytes | None, source: str) -> bytes:
    """Return what a map had.

    Raises:
        KernelError: ENOENT.
    """
    if value is None:
        raise refusal(ENOENT, source, "no such key")
    return value


def _link_detach(attr: Attr) -> int:
    detach_link(attr.state, attr["link_fd"])
    return 0


def _bind_map(attr: Attr) -> int:
    """Let a program hold a map that no insn of it names (``bpf_prog_bind_map``)."""
    if attr["flags"]:
        source = "kernel/bpf/syscall.c bpf_prog_bind_map"
        raise refusal(EINVAL, source, f"flags {attr['flags']:#x}")
    fds = attr.state.fds
    program = fds.get_as(attr["prog_fd"], ModelProgram)
    bound = fds.get_as(attr["map_fd"], ModelMap)
    if bound not in program.used_maps:
        program.bound.append(bound)
        bound.hold()
    return 0


def _obj_pin(attr: Attr) -> int:
    pin(attr.state, attr["bpf_fd"], _path(attr))
    return 0


def _obj_get(attr: Attr) -> int:
    return open_pinned(attr.state, _path(attr))


def _path(attr: Attr) -> str:
    raw = attr.up_to("pathname", PATH_SIZE)
    if b"\0" not in raw:
        raise refusal(EFAULT, "fs/namei.c getname", "the path cannot be read")
    return raw.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


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


COMMANDS: Final = MappingProxyType(
    {
        **syscall.COMMANDS,
        Cmd.MAP_LOOKUP_ELEM: (layouts.MAP_ELEM, _map_lookup),
        Cmd.MAP_LOOKUP_AND_DELETE_ELEM: (layouts.MAP_ELEM, _map_pop),
        Cmd.MAP_GET_NEXT_KEY: (layouts.MAP_GET_NEXT_KEY, _map_next_key),
        Cmd.PROG_RUN: (layouts.PROG_RUN, _prog_run),
        Cmd.PROG_GET_NEXT_ID: (layouts.GET_NEXT_ID, ids.next_program),
        Cmd.MAP_GET_NEXT_ID: (layouts.GET_NEXT_ID, ids.next_map),
        Cmd.BTF_GET_NEXT_ID: (layouts.GET_NEXT_ID, ids.next_btf),
        Cmd.LINK_GET_NEXT_ID: (layouts.GET_NEXT_ID, ids.next_link),
        Cmd.PROG_GET_FD_BY_ID: (layouts.PROG_GET_FD_BY_ID, ids.open_program),
        Cmd.BTF_GET_FD_BY_ID: (layouts.BTF_GET_FD_BY_ID, ids.open_btf),
        Cmd.LINK_GET_FD_BY_ID: (layouts.LINK_GET_FD_BY_ID, ids.open_link),
        Cmd.OBJ_PIN: (layouts.OBJ, _obj_pin),
        Cmd.OBJ_GET: (layouts.OBJ, _obj_get),
        Cmd.PROG_BIND_MAP: (layouts.PROG_BIND_MAP, _bind_map),
        Cmd.LINK_DETACH: (layouts.LINK_DETACH, _link_detach),
        Cmd.OBJ_GET_INFO_BY_FD: (layouts.OBJ_GET_INFO_BY_FD, get_info),
    }
)
"""The commands of user space: what they read, what they do."""
