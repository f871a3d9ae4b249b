"""The calls of scenarios, each from symbolic arguments to raw attributes.

Example:
    >>> run = Run(subject, blobs)
    >>> CALLS["map_create"](run, {"type": 2, "value_size": 64}).result
    'ok'
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from bpfseal.bpf import attr as layouts
from bpfseal.bpf.insn import INSN_SIZE
from bpfseal.bpf.uapi import SHA256_SIZE, Cmd, MapType, ProgFlag, ProgType
from bpfseal.errors import KernelError, errno_name
from bpfseal.kernel.subject import Subject

BAD_POINTER: Final = 0x1000
"""An address that leads nowhere in any process."""

KEYRINGS: Final = MappingProxyType(
    {
        "builtin": 0,
        "secondary": 1,
        "platform": 2,
        "thread": -1,
        "process": -2,
        "session": -3,
        "user": -4,
        "user-session": -5,
        "bpf": -9,
    }
)
"""``keyring_id`` by name."""

_LOG_SIZE: Final = 1 << 16
_ATTR_SIZE: Final = 168
_MAP_CREATE_SIZE: Final = 96

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a kernel answered.

    Attributes:
        result: ``ok`` or the name of an errno.
        value: what the call returned, ``None`` for a refusal.
        log: the verifier's log without its statistics.
        retval: what a program returned: ``0``, a number, or the name of an errno.
        sha256: a digest that the kernel gave, hex.
        rule: the rule behind a refusal, where the kernel tells.
    """

    result: str
    value: int | None
    log: str = ""
    retval: str = ""
    sha256: str = ""
    rule: str = ""


DONE: Final = Answer("ok", 0)
"""The answer of a call that has no result but that it went well."""


@dataclass(slots=True)
class Run:
    """One run of a scenario: the subject, what steps can speak of, and what they have opened."""

    subject: Subject
    blobs: Mapping[str, bytes]
    results: dict[str, int] = field(default_factory=dict)
    open_fds: list[int] = field(default_factory=list)

    def number(self, given: int | str) -> int:
        """Return a number, the result of a step, or the id of a keyring."""
        if isinstance(given, int):
            return given
        return self.results[given] if given in self.results else KEYRINGS[given]

    def bytes_of(self, given: str) -> bytes:
        """Return a blob, or the digest of one: ``sha256:NAME``."""
        return bytes_of(self.blobs, given)

    def pointer(self, data: bytes, how: str = "") -> int:
        """Return the address of bytes, or one that is ``bad`` or ``null``."""
        return {"bad": BAD_POINTER, "null": 0}[how] if how else self.subject.allocate(data)

    def bpf(self, command: Cmd, attributes: bytearray) -> int:
        """Make a raw call to the BPF subsystem."""
        return self.subject.bpf(command, attributes)

    def opened(self, fd: int) -> Answer:
        """Return the answer of a call that opened a fd, which the end of the scenario closes."""
        self.open_fds.append(fd)
        return Answer("ok", fd)

    def close(self) -> None:
        """Close what is still open."""
        for fd in self.open_fds:
            self.subject.close(fd)


def bytes_of(blobs: Mapping[str, bytes], given: str) -> bytes:
    """Return a blob, or the digest of one: ``sha256:NAME``."""
    prefix, _, name = given.rpartition(":")
    data = blobs[name]
    return hashlib.sha256(data).digest() if prefix == "sha256" else data


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


def _map_create(run: Run, given: Arguments) -> Answer:
    values: dict[str, int | bytes] = {
        "map_type": given.get("type", MapType.ARRAY),
        "key_size": given.get("key_size", 4),
        "value_size": given.get("value_size", 64),
        "max_entries": given.get("max_entries", 1),
        "map_flags": given.get("flags", 0),
        "map_name": given.get("name", "").encode(),
    }
    if "exclusive_to" in given or "exclusive_pointer" in given:
        digest = run.bytes_of("sha256:" + given["exclusive_to"]) if "exclusive_to" in given else b""
        values["excl_prog_hash"] = run.pointer(
            digest + bytes(SHA256_SIZE), given.get("exclusive_pointer", "")
        )
        values["excl_prog_hash_size"] = given.get("exclusive_size", SHA256_SIZE)
    size = given.get("attr_size", _MAP_CREATE_SIZE)
    packed = layouts.MAP_CREATE.pack_fields(values, size=size)
    return run.opened(run.bpf(Cmd.MAP_CREATE, bytearray(packed)))


def _element(run: Run, given: Arguments, value: int, flags: int = 0) -> bytearray:
    key = int(given.get("key", 0)).to_bytes(4, "little")
    return bytearray(
        layouts.MAP_ELEM.pack(
            map_fd=run.number(given["map"]), key=run.pointer(key), value=value, flags=flags
        )
    )


def _map_update(run: Run, given: Arguments) -> Answer:
    value = run.pointer(run.bytes_of(given["value"]))
    run.bpf(Cmd.MAP_UPDATE_ELEM, _element(run, given, value))
    return DONE


def _map_lookup(run: Run, given: Arguments) -> Answer:
    room = run.pointer(bytes(given.get("size", 64)))
    run.bpf(Cmd.MAP_LOOKUP_ELEM, _element(run, given, room))
    return DONE


def _map_freeze(run: Run, given: Arguments) -> Answer:
    packed = layouts.MAP_FREEZE.pack(map_fd=run.number(given["map"]))
    run.bpf(Cmd.MAP_FREEZE, bytearray(packed))
    return DONE


def _map_hash(run: Run, given: Arguments) -> Answer:
    digest = run.pointer(bytes(2 * SHA256_SIZE))
    info = layouts.MAP_INFO.pack(hash=digest, hash_size=given.get("size", SHA256_SIZE))
    packed = layouts.OBJ_GET_INFO_BY_FD.pack(
        bpf_fd=run.number(given["map"]), info_len=len(info), info=run.pointer(info)
    )
    run.bpf(Cmd.OBJ_GET_INFO_BY_FD, bytearray(packed))
    return Answer("ok", 0, sha256=run.subject.read_memory(digest, SHA256_SIZE).hex())


def _mmap(run: Run, given: Arguments) -> Answer:
    fd = run.number(given["map"])
    return Answer("ok", run.subject.mmap(fd, given["size"], writable=given["writable"]))


def _munmap(run: Run, given: Arguments) -> Answer:
    run.subject.munmap(run.number(given["mapping"]))
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
    size = given.get("attr_size", _ATTR_SIZE)
    log = run.pointer(bytes(_LOG_SIZE)) if given.get("log", True) else 0
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
    """Return the verifier's log without the statistics at its end."""
    if not address:
        return ""
    text = run.subject.read_memory(address, _LOG_SIZE).split(b"\0", 1)[0].decode()
    lines = [line for line in text.splitlines() if not line.startswith("processed ")]
    return "\n".join(lines)


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


def _prog_run(run: Run, given: Arguments) -> Answer:
    ctx = bytes(given.get("ctx_size", 0))
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
        "map_create": _map_create,
        "map_update": _map_update,
        "map_lookup": _map_lookup,
        "map_freeze": _map_freeze,
        "map_hash": _map_hash,
        "mmap": _mmap,
        "munmap": _munmap,
        "btf_load": _btf_load,
        "open_btf": _open_btf,
        "prog_load": _prog_load,
        "prog_run": _prog_run,
        "close": _close,
        "bpf": _bpf,
    }
)
"""The calls by name."""
