"""`LinuxKernel`: the running kernel, behind the same protocol as the model.

Example:
    >>> kernel = LinuxKernel()  # doctest: +SKIP
    >>> kernel.keyrings.add_key(-3, certificate_der)  # doctest: +SKIP
    >>> skeleton = load(kernel, signed)  # doctest: +SKIP
"""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Mapping
from contextlib import suppress
from errno import EINVAL
from typing import Final

from bpfseal.bpf import attr
from bpfseal.bpf.attr import AttrLayout
from bpfseal.bpf.insn import INSN_SIZE
from bpfseal.bpf.uapi import SHA256_SIZE, Cmd
from bpfseal.errors import KernelError
from bpfseal.kernel.linux.features import running_features
from bpfseal.kernel.linux.keyrings import LinuxKeyrings
from bpfseal.kernel.linux.links import LinkCalls
from bpfseal.kernel.linux.map_calls import MapCalls
from bpfseal.kernel.linux.perf_events import PerfEventCalls
from bpfseal.kernel.linux.syscalls import Buffer, bpf
from bpfseal.kernel.protocol import (
    NO_POINTERS,
    MapCreate,
    MapInfo,
    ProgInfo,
    ProgLoad,
    RunResult,
)

_LOG_SIZE: Final = 1 << 20
_MAP_INFO_SIZES: Final = range(80, 160)
_PROG_INFO_SIZES: Final = range(160, 256 + 1)
"""Bytes of ``struct bpf_map_info`` and ``struct bpf_prog_info``, which grow from release to release
(80 to 104 and 208 to 232 from 4.18 to 7.3). Those of links and BTFs have 64 bytes and fewer."""


class LinuxKernel(MapCalls, LinkCalls, PerfEventCalls):
    """The kernel that runs this process. It implements `bpfseal.kernel.protocol.MapKernel`."""

    def __init__(self) -> None:
        self.keyrings = LinuxKeyrings()

    @property
    def description(self) -> str:
        """The release of the kernel."""
        return f"Linux {platform.release()} ({platform.machine()})"

    def accepted_scheme(self) -> str | None:
        """The scheme of the loaders that this kernel takes, by its BTF."""
        return running_features().scheme()

    def map_create(self, request: MapCreate) -> int:
        """Create a map and return its fd."""
        layout, last = attr.MAP_CREATE, "map_extra"
        values: dict[str, int | bytes] = {
            "map_type": request.type,
            "map_name": request.name.encode(),
            "key_size": request.key_size,
            "value_size": request.value_size,
            "max_entries": request.max_entries,
            "map_flags": request.flags,
        }
        exclusive = Buffer(request.excl_prog_hash or b"")
        if request.excl_prog_hash is not None:
            # only then: a kernel without exclusive maps refuses the longer attribute
            last = "excl_prog_hash_size"
            values["excl_prog_hash"] = exclusive.address
            values[last] = len(exclusive.data)
        packed = layout.pack_fields(values, size=layout.end(last))
        return bpf(Cmd.MAP_CREATE, bytearray(packed))

    def map_update(self, fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set one element."""
        keys, values = Buffer(key), Buffer(value)
        packed = attr.MAP_ELEM.pack(map_fd=fd, key=keys.pointer, value=values.address, flags=flags)
        bpf(Cmd.MAP_UPDATE_ELEM, bytearray(packed))

    def map_freeze(self, fd: int) -> None:
        """Make the map read-only for user space."""
        bpf(Cmd.MAP_FREEZE, bytearray(attr.MAP_FREEZE.pack(map_fd=fd)))

    def map_hash(self, fd: int) -> bytes:
        """Ask for the SHA-256 of the map's contents, which also fills ``map->sha``."""
        digest = Buffer(bytes(SHA256_SIZE))
        layout = attr.MAP_INFO
        info = Buffer(layout.pack(hash=digest.address, hash_size=SHA256_SIZE))
        packed = attr.OBJ_GET_INFO_BY_FD.pack(bpf_fd=fd, info_len=layout.size, info=info.address)
        bpf(Cmd.OBJ_GET_INFO_BY_FD, bytearray(packed))
        return digest.data

    def map_info(self, fd: int) -> MapInfo:
        """Return the facts of a map."""
        told = _info(fd, attr.MAP_INFO, _MAP_INFO_SIZES, "map")
        return MapInfo(told["type"], told["key_size"], told["value_size"], told["max_entries"])

    def prog_info(self, fd: int) -> ProgInfo:
        """Return the facts of a program."""
        return ProgInfo(_info(fd, attr.PROG_INFO, _PROG_INFO_SIZES, "program")["type"])

    def btf_load(self, data: bytes) -> int:
        """Load a BTF and return its fd."""
        layout, raw = attr.BTF_LOAD, Buffer(data)
        packed = layout.pack(size=layout.end("btf_log_level"), btf=raw.address, btf_size=len(data))
        return bpf(Cmd.BTF_LOAD, bytearray(packed))

    def prog_load(self, request: ProgLoad) -> int:
        """Load a program and return its fd; a refusal carries the verifier's log."""
        try:
            return self._prog_load(request, None)
        except KernelError as error:
            log = self._verifier_log(request)
            raise KernelError(error.errno, _reason(log) or error.message, log=log) from None

    def _verifier_log(self, request: ProgLoad) -> str:
        """Try a refused load once more, now with a log, which a good load need not pay for."""
        log = Buffer(bytes(_LOG_SIZE))
        with suppress(KernelError):
            os.close(self._prog_load(request, log))
        return log.data.split(b"\0", 1)[0].decode("utf-8", "replace")

    def _prog_load(self, request: ProgLoad, log: Buffer | None) -> int:
        layout = attr.PROG_LOAD
        insns, license_text = Buffer(request.insns), Buffer(request.license.encode() + b"\0")
        fds = Buffer(struct.pack(f"<{len(request.fd_array)}i", *request.fd_array))
        signature = Buffer(request.signature) if request.signature is not None else None
        values: dict[str, int | bytes] = {
            "prog_type": request.type,
            "prog_name": request.name.encode(),
            "insn_cnt": len(request.insns) // INSN_SIZE,
            "insns": insns.address,
            "license": license_text.address,
            "prog_flags": request.flags,
            "prog_btf_fd": request.btf_fd,
            "fd_array": fds.pointer,
            "log_level": request.log_level,
        }
        size = layout.end("fd_array_cnt")
        if request.fd_array_cnt:
            values["fd_array_cnt"] = request.fd_array_cnt
        if signature:
            values |= {
                "signature": signature.address,
                "signature_size": len(signature.data),
                "keyring_id": request.keyring_id,
            }
            size = layout.size
        if log:
            values |= {"log_level": 1, "log_size": _LOG_SIZE, "log_buf": log.address}
        return bpf(Cmd.PROG_LOAD, bytearray(layout.pack_fields(values, size=size)))

    def prog_run(
        self, fd: int, ctx: bytes, pointers: Mapping[int, bytes] = NO_POINTERS
    ) -> RunResult:
        """Run a SYSCALL program once; the kernel writes the context back."""
        targets = {offset: Buffer(data) for offset, data in pointers.items()}
        given = bytearray(ctx)
        for offset, target in targets.items():
            struct.pack_into("=Q", given, offset, target.address)
        layout, context = attr.PROG_RUN, Buffer(given)
        packed = bytearray(layout.pack(prog_fd=fd, ctx_in=context.pointer, ctx_size_in=len(ctx)))
        bpf(Cmd.PROG_RUN, packed)
        (retval,) = struct.unpack_from("<i", packed, layout.offset("retval"))
        return RunResult(retval, context.data)

    def close(self, fd: int) -> None:
        """Close a fd."""
        try:
            os.close(fd)
        except OSError as error:
            raise KernelError(error.errno or 0, error.strerror or "") from None


def _info(fd: int, layout: AttrLayout, sizes: range, kind: str) -> dict[str, int]:
    """Ask for the facts of an object of a kind.

    One command tells of every kind of object. Which kind it was is seen by how much of the room the
    kernel filled (``bpf_obj_get_info_by_fd`` in kernel/bpf/syscall.c and what it calls).

    Raises:
        KernelError: EBADFD for no object of BPF, EINVAL for one of another kind.
    """
    info = Buffer(bytes(_PROG_INFO_SIZES[-1]))
    packed = bytearray(
        attr.OBJ_GET_INFO_BY_FD.pack(bpf_fd=fd, info_len=len(info.data), info=info.address)
    )
    bpf(Cmd.OBJ_GET_INFO_BY_FD, packed)
    if attr.OBJ_GET_INFO_BY_FD.unpack(bytes(packed))["info_len"] not in sizes:
        raise KernelError(EINVAL, f"fd {fd} is no {kind}")
    return layout.unpack(info.data)


def _reason(log: str) -> str:
    """Return the line of a verifier log that says why: the last one before the statistics."""
    lines = [line for line in log.splitlines() if line and not line.startswith("processed ")]
    return lines[-1] if lines else ""
