"""The helper ``bpf_sys_bpf``: bpf(2) from inside a program, with its attributes in kernel memory.

Source: kernel/bpf/syscall.c ``bpf_sys_bpf`` and ``__sys_bpf``. The commands that the kernel allows
a program are all here.

Example:
    >>> sys_bpf(state, "__loader.prog", Cmd.MAP_FREEZE, attr_address, 4)
    0
"""

from __future__ import annotations

from collections.abc import Callable
from errno import E2BIG, EFAULT, EINVAL
from typing import Final

from bpfseal.bpf import attr as layouts
from bpfseal.bpf import opcodes as op
from bpfseal.bpf.attr import AttrLayout
from bpfseal.bpf.insn import INSN_SIZE, Insn, decode_insns
from bpfseal.bpf.uapi import SHA256_SIZE, Cmd
from bpfseal.errors import KernelError
from bpfseal.kernel.model.analysis.log import statistics
from bpfseal.kernel.model.attributes import Attr, Place
from bpfseal.kernel.model.btf_log import btf_log
from bpfseal.kernel.model.btf_objects import MAX_BTF_SIZE, btf_load
from bpfseal.kernel.model.ids import open_map
from bpfseal.kernel.model.load_log import LoadLog
from bpfseal.kernel.model.map_calls import map_create, map_freeze, map_update
from bpfseal.kernel.model.map_rules import MapAttributes
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.prog_load import prog_load
from bpfseal.kernel.model.program import ModelProgram, Pointer, ProgAttributes
from bpfseal.kernel.model.records import Records
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.state import KernelState

LICENSE_SIZE: Final = 128
"""Bytes of a licence with its final zero (``bpf_prog_load``)."""

_U32: Final = 0xFFFFFFFF
_SOURCE = "kernel/bpf/syscall.c __sys_bpf"
_INDEXED: Final = frozenset({op.PSEUDO_MAP_IDX, op.PSEUDO_MAP_IDX_VALUE})
_MAX_FDS: Final = 1 << 20


def sys_bpf(state: KernelState, caller: str, command: int, address: int, size: int) -> int:
    """Make a call for a running program and return a fd, 0 or a negative errno.

    Args:
        state: the kernel.
        caller: the name of the program.
        command: a `Cmd`.
        address: where the attributes are.
        size: bytes of the attributes.
    """
    command &= _U32
    name = Cmd(command).name.lower() if command in set(Cmd) else f"command {command}"
    if command not in COMMANDS:
        refused = refusal(EINVAL, "kernel/bpf/syscall.c bpf_sys_bpf", f"{name} from a program")
        return state.note(caller, name, "", refused)
    layout, run = COMMANDS[command]
    try:
        attr = Attr.copy(state, Cmd(command), layout, Place(address, size & _U32, is_kernel=True))
    except KernelError as error:
        return state.note(caller, name, "", error)
    return state.answer(caller, name, attr.describe(), lambda: run(attr))


def _map_create(attr: Attr) -> int:
    source = "kernel/bpf/syscall.c map_create"
    exclusive = None
    if attr["excl_prog_hash"]:
        if attr["excl_prog_hash_size"] != SHA256_SIZE:
            raise refusal(EINVAL, source, f"excl_prog_hash_size must be {SHA256_SIZE}")
        exclusive = attr.bytes_at("excl_prog_hash", SHA256_SIZE)
    elif attr["excl_prog_hash_size"]:
        raise refusal(EINVAL, source, "excl_prog_hash_size without excl_prog_hash")
    return map_create(
        attr.state,
        MapAttributes(
            type=attr["map_type"],
            key_size=attr["key_size"],
            value_size=attr["value_size"],
            max_entries=attr["max_entries"],
            name=attr.text("map_name"),
            flags=attr["map_flags"],
            inner_map_fd=attr["inner_map_fd"],
            btf_fd=attr["btf_fd"],
            btf_key_type_id=attr["btf_key_type_id"],
            btf_value_type_id=attr["btf_value_type_id"],
            btf_vmlinux_value_type_id=attr["btf_vmlinux_value_type_id"],
            map_extra=attr["map_extra"],
            excl_prog_hash=exclusive,
        ),
    )


def map_key(attr: Attr, target: ModelMap) -> bytes:
    """Return the key of a call (``__bpf_copy_key``).

    Raises:
        KernelError: EFAULT, EINVAL for a key to a map without keys.
    """
    size = target.attributes.key_size
    if not size and attr["key"]:
        source = "kernel/bpf/syscall.c __bpf_copy_key"
        raise refusal(EINVAL, source, f"a key, and {target.label} has none")
    return attr.bytes_at("key", size) if size else b""


def _map_update(attr: Attr) -> int:
    target = attr.state.fds.get_as(attr["map_fd"], ModelMap)
    key = map_key(attr, target)
    value = attr.bytes_at("value", target.transfer_size)
    map_update(attr.state, attr["map_fd"], key, value, attr["flags"])
    return 0


def _map_delete(attr: Attr) -> int:
    target = attr.state.fds.get_as(attr["map_fd"], ModelMap)
    target.delete(map_key(attr, target))
    return 0


def _map_freeze(attr: Attr) -> int:
    map_freeze(attr.state, attr["map_fd"])
    return 0


def _btf_load(attr: Attr) -> int:
    size = attr["btf_size"]
    if size > MAX_BTF_SIZE:
        raise refusal(E2BIG, "kernel/bpf/btf.c btf_parse", f"BTF of {size} bytes")
    log = LoadLog.of(attr, "btf_log_")
    raw = attr.bytes_at("btf", size)
    refused: KernelError | None = None
    fd = -1
    try:
        fd = btf_load(attr.state, raw)
    except KernelError as error:
        refused = error
    text = ""
    if log.level:
        text = btf_log(raw, refused)
    _finish(attr, log, text, len(text), fd)
    if refused is not None:
        raise refused
    return fd


def _finish(attr: Attr, log: LoadLog, text: str, peak: int, fd: int) -> None:
    """Write a log; what was loaded goes away if there is no room for it.

    Raises:
        KernelError: ENOSPC, EFAULT.
    """
    try:
        log.finish(text, peak)
    except KernelError:
        if fd >= 0:
            attr.state.fds.close(fd)
        raise


def _prog_load(attr: Attr) -> int:
    """Load a program, and write the verifier's log if somebody asked for it."""
    log = LoadLog.of(attr, "log_")
    state = attr.state
    state.verifier_log, state.verifier_log_peak = "", 0
    refused: KernelError | None = None
    fd = -1
    try:
        fd = _load_program(attr)
    except KernelError as error:
        refused = error
    if log.level:
        text = _with_statistics(state, refused, attr["insn_cnt"])
        _finish(attr, log, text, state.verifier_log_peak, fd)
    else:
        log.finish("", 0)
    if refused is not None:
        raise refused
    return fd


def _with_statistics(state: KernelState, refused: KernelError | None, insns: int) -> str:
    """Return a log with the line that ends the log of every program the verifier saw.

    Of programs that the model does not follow it says how many insns they have.
    """
    text = state.verifier_log
    if text and not text.endswith("\n"):
        text += "\n"
    is_seen = refused is None or bool(refused.log)
    if is_seen and not any(line.startswith("processed ") for line in text.splitlines()):
        counted = 0 if refused is not None else insns
        text += f"{statistics(counted, state.profile.max_insns)}\n"
    return text


def _load_program(attr: Attr) -> int:
    source = "kernel/bpf/syscall.c bpf_prog_load"
    count = attr["insn_cnt"]
    if not 0 < count <= attr.state.profile.max_insns:
        raise refusal(E2BIG, source, f"{count} insns")
    insns = attr.bytes_at("insns", count * INSN_SIZE)
    signature = None
    if attr["signature"]:
        signature = Pointer(attr["signature"], attr["signature_size"])
    fds, is_cut = _fd_array(attr, insns)
    return prog_load(
        attr.state,
        ProgAttributes(
            type=attr["prog_type"],
            name=attr.text("prog_name"),
            insns=insns,
            license=_license(attr),
            flags=attr["prog_flags"],
            expected_attach_type=attr["expected_attach_type"],
            attach_btf_id=attr["attach_btf_id"],
            attach_fd=attr["attach_btf_obj_fd"],
            btf_fd=attr["prog_btf_fd"],
            func_info=_records(attr, "func_info", "func_info"),
            line_info=_records(attr, "line_info", "line_info"),
            core_relos=_records(attr, "core_relo", "core_relos"),
            fd_array=fds,
            fd_array_is_cut=is_cut,
            fd_array_count=attr["fd_array_cnt"],
            log_level=attr["log_level"],
            signature=signature,
            keyring_id=attr["keyring_id"],
            is_kernel=attr.place.is_kernel,
        ),
    )


def _link_create(attr: Attr) -> int:
    from bpfseal.kernel.model.links import create_link  # few loaders make links

    return create_link(
        attr.state,
        attr["prog_fd"],
        attr["attach_type"],
        attr["target_fd"],
        attr["target_btf_id"] if attr["target_fd"] else 0,
    )


def _raw_tracepoint_open(attr: Attr) -> int:
    from bpfseal.kernel.model.links import (  # few loaders make links
        NAMED_TRACEPOINTS,
        TRACEPOINT_NAME_SIZE,
        open_raw_tracepoint,
    )

    program = attr.state.fds.get_as(attr["prog_fd"], ModelProgram)
    name = None
    if program.type in NAMED_TRACEPOINTS or attr["name"]:
        raw = attr.up_to("name", TRACEPOINT_NAME_SIZE)
        if not raw:
            source = "kernel/bpf/syscall.c bpf_raw_tp_link_attach"
            raise refusal(EFAULT, source, "the name of the tracepoint cannot be read")
        name = raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    return open_raw_tracepoint(attr.state, program, name)


def _license(attr: Attr) -> str:
    """Return the licence, cut off where the kernel's copy ends (``strncpy_from_bpfptr``)."""
    address, room = attr["license"], LICENSE_SIZE - 1
    found = attr.up_to("license", room)
    if b"\0" not in found and len(found) < room:
        raise refusal(EFAULT, _SOURCE, f"license: {address + len(found):#x} cannot be read")
    return found.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _records(attr: Attr, what: str, field: str) -> Records:
    """Return the func_info, line_info or CO-RE records of a program, as many as can be read."""
    count, size = attr[f"{what}_cnt"], attr[f"{what}_rec_size"]
    return Records(count, size, attr.up_to(field, count * size) if count else b"")


def _fd_array(attr: Attr, insns: bytes) -> tuple[tuple[int, ...], bool]:
    """Return the entries of the fd array that are asked for, and whether it breaks off before.

    The kernel reads each entry when it needs it: one that cannot be read is no fault until then.
    """
    if not attr["fd_array"]:
        return (), False
    named = (_named_entry(insn) for insn in decode_insns(insns))
    count = max(max(named, default=0), attr["fd_array_cnt"])
    raw = attr.up_to("fd_array", 4 * min(count, _MAX_FDS))
    fds = tuple(
        int.from_bytes(raw[start : start + 4], "little", signed=True)
        for start in range(0, len(raw) - 3, 4)
    )
    return fds, len(fds) < count


def _named_entry(insn: Insn) -> int:
    """Return how many entries of the fd array an insn needs: for its map, or a module's BTF."""
    if insn.is_ld_imm64 and insn.src in _INDEXED:
        return insn.imm + 1
    is_kfunc_call = insn.code == op.JMP | op.CALL and insn.src == op.PSEUDO_KFUNC_CALL
    return insn.off + 1 if is_kfunc_call and insn.off else 0


COMMANDS: Final[dict[int, tuple[AttrLayout, Callable[[Attr], int]]]] = {
    Cmd.MAP_CREATE: (layouts.MAP_CREATE, _map_create),
    Cmd.MAP_UPDATE_ELEM: (layouts.MAP_ELEM, _map_update),
    Cmd.MAP_FREEZE: (layouts.MAP_FREEZE, _map_freeze),
    Cmd.BTF_LOAD: (layouts.BTF_LOAD, _btf_load),
    Cmd.MAP_DELETE_ELEM: (layouts.MAP_DELETE_ELEM, _map_delete),
    Cmd.MAP_GET_FD_BY_ID: (layouts.MAP_GET_FD_BY_ID, open_map),
    Cmd.PROG_LOAD: (layouts.PROG_LOAD, _prog_load),
    Cmd.LINK_CREATE: (layouts.LINK_CREATE, _link_create),
    Cmd.RAW_TRACEPOINT_OPEN: (layouts.RAW_TRACEPOINT_OPEN, _raw_tracepoint_open),
}
"""The commands that a program may give: what they read, what they do."""
