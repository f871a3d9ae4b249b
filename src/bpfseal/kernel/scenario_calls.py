"""The calls of scenarios, each from symbolic arguments to raw attributes: keys, programs, BTFs.

Those about maps and about what the kernel tells are in `bpfseal.kernel.scenario_objects`.

Example:
    >>> run = Run(subject, blobs)
    >>> CALLS["map_create"](run, {"type": 2, "value_size": 64}).result
    'ok'
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from bpfseal.bpf import attr as layouts
from bpfseal.bpf.insn import INSN_SIZE
from bpfseal.bpf.uapi import Cmd, ProgFlag, ProgType
from bpfseal.errors import KernelError, errno_name
from bpfseal.kernel import scenario_objects as objects
from bpfseal.kernel.scenario_run import DONE, Answer, Arguments, Run

_LOG_SIZE: Final = 1 << 16
_ATTR_SIZE: Final = 168
_STATISTICS: Final = re.compile(r"processed \d+ insns [^\n]*\n?\Z")
_RECORDS: Final = MappingProxyType(
    {"func_info": "func_info", "line_info": "line_info", "core_relos": "core_relo"}
)
"""Kinds of records of BPF_PROG_LOAD: where they are, and how the fields about them begin."""


def _join_session(run: Run, _given: Arguments) -> Answer:
    return Answer("ok", run.subject.join_session())


def _keyring_serial(run: Run, given: Arguments) -> Answer:
    return Answer("ok", run.subject.keyring_serial(run.number(given["keyring"])))


def _add_key(run: Run, given: Arguments) -> Answer:
    keyring, description = run.number(given["keyring"]), given.get("description", "scenario")
    payload = bytes.fromhex(given["payload"])
    return Answer("ok", run.subject.add_key(keyring, description, payload))


def _revoke(run: Run, given: Arguments) -> Answer:
    run.subject.revoke(run.number(given["key"]))
    return DONE


def _invalidate(run: Run, given: Arguments) -> Answer:
    run.subject.invalidate(run.number(given["key"]))
    return DONE


def _unlink(run: Run, given: Arguments) -> Answer:
    run.subject.unlink(run.number(given["key"]), run.number(given["keyring"]))
    return DONE


def _restrict(run: Run, given: Arguments) -> Answer:
    run.subject.restrict(run.number(given["keyring"]))
    return DONE


def _btf_load(run: Run, given: Arguments) -> Answer:
    data = run.bytes_of(given["btf"])
    packed = layouts.BTF_LOAD.pack(btf=run.pointer(data), btf_size=len(data))
    return run.opened(run.bpf(Cmd.BTF_LOAD, bytearray(packed)))


def _open_btf(run: Run, given: Arguments) -> Answer:
    packed = layouts.BTF_GET_FD_BY_ID.pack(btf_id=given.get("id", 1))
    return run.opened(run.bpf(Cmd.BTF_GET_FD_BY_ID, bytearray(packed)))


def _prog_load(run: Run, given: Arguments) -> Answer:
    insns = run.bytes_of(given["program"])
    size = len(run.room(given.get("attr_size", _ATTR_SIZE)))
    log = run.pointer(run.room(_LOG_SIZE)) if given.get("log", True) else 0
    values: dict[str, int | bytes] = {
        "prog_type": given.get("type", ProgType.SYSCALL),
        "insn_cnt": len(insns) // INSN_SIZE,
        "insns": run.pointer(insns),
        "license": run.pointer(given.get("license", "GPL").encode() + b"\0"),
        "prog_flags": given.get("flags", ProgFlag.SLEEPABLE),
        "log_level": int(bool(log)),
        "log_size": _LOG_SIZE if log else 0,
        "log_buf": log,
        "fd_array_cnt": given.get("fd_array_cnt", 0),
        "prog_btf_fd": run.number(given.get("btf", 0)),
        "keyring_id": run.number(given.get("keyring", 0)),
        "prog_name": given.get("name", "").encode(),
        "expected_attach_type": given.get("attach_type", 0),
        "attach_btf_id": given.get("attach_btf_id", 0),
        **_records(run, given),
        **_signature(run, given),
    }
    if "fd_array" in given:
        fds = [run.number(entry) for entry in given["fd_array"]]
        data = struct.pack(f"<{len(fds)}i", *fds)
        values["fd_array"] = run.pointer(data, given.get("fd_array_pointer", ""))
    packed = layouts.PROG_LOAD.pack_fields(values, size=max(size, _ATTR_SIZE))[:size]
    try:
        opened = run.bpf(Cmd.PROG_LOAD, bytearray(packed))
    except KernelError as error:
        return Answer(error.errno_name, None, log=_log(run, log), rule=error.rule)
    run.open_fds.append(opened)
    return Answer("ok", opened, log=_log(run, log))


def _log(run: Run, address: int) -> str:
    """Return the verifier's log without the statistics, with which it ends."""
    if not address:
        return ""
    text = run.subject.read_memory(address, _LOG_SIZE).split(b"\0", 1)[0].decode("utf-8", "replace")
    return _STATISTICS.sub("", text).removesuffix("\n")


def _signature(run: Run, given: Arguments) -> dict[str, int | bytes]:
    """Return the fields of the signature: pointer and size."""
    wanted = given.get("signature")
    pointer = given.get("signature_pointer", "")
    if wanted is None and not pointer:
        return {"signature_size": given.get("signature_size", 0)}
    data = b"" if wanted is None else bytes.fromhex(wanted["hex"])
    return {
        "signature": run.pointer(data, pointer),
        "signature_size": given.get("signature_size", len(data)),
    }


def _records(run: Run, given: Arguments) -> dict[str, int | bytes]:
    """Return the fields of records: pointers, counts, and how long one is."""
    fields: dict[str, int | bytes] = {}
    for field, prefix in _RECORDS.items():
        rows = given.get(field, ())
        if rows:
            size = given.get(f"{field}_size", 4 * len(rows[0]))
            run.room(size * len(rows))
            data = b"".join(struct.pack(f"<{len(row)}I", *row).ljust(size, b"\0") for row in rows)
            fields |= {
                field: run.pointer(data),
                f"{prefix}_cnt": len(rows),
                f"{prefix}_rec_size": size,
            }
    return fields


def _prog_run(run: Run, given: Arguments) -> Answer:
    ctx = run.room(given.get("ctx_size", 0))
    layout = layouts.PROG_RUN
    packed = bytearray(
        layout.pack(
            size=80,
            prog_fd=run.number(given["program"]),
            ctx_size_in=len(ctx),
            ctx_in=run.pointer(ctx) if ctx else 0,
        )
    )
    run.bpf(Cmd.PROG_RUN, packed)
    retval = int(struct.unpack_from("<i", packed, layout.offset("retval"))[0])
    return Answer("ok", 0, retval=errno_name(-retval) if -4096 < retval < 0 else str(retval))


def _close(run: Run, given: Arguments) -> Answer:
    fd = run.number(given["fd"])
    run.open_fds.remove(fd)
    run.subject.close(fd)
    return DONE


def _bpf(run: Run, given: Arguments) -> Answer:
    return Answer("ok", run.subject.bpf(given["command"], bytearray.fromhex(given["attr"])))


CALLS: Final[Mapping[str, Callable[[Run, Arguments], Answer]]] = MappingProxyType(
    {
        "join_session": _join_session,
        "keyring_serial": _keyring_serial,
        "add_key": _add_key,
        "revoke": _revoke,
        "invalidate": _invalidate,
        "unlink": _unlink,
        "restrict": _restrict,
        "map_create": objects.map_create,
        "map_update": objects.map_update,
        "map_lookup": objects.map_lookup,
        "map_pop": objects.map_pop,
        "map_delete": objects.map_delete,
        "map_next_key": objects.map_next_key,
        "map_freeze": objects.map_freeze,
        "map_hash": objects.map_hash,
        "mmap": objects.mmap,
        "munmap": objects.munmap,
        "info": objects.info,
        "open_by_id": objects.open_by_id,
        "next_id": objects.next_id,
        "btf_load": _btf_load,
        "open_btf": _open_btf,
        "prog_load": _prog_load,
        "prog_run": _prog_run,
        "close": _close,
        "bpf": _bpf,
    }
)
"""The calls by name."""
