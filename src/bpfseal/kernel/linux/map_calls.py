"""Elements of maps on the running kernel, maps in memory, test runs and pins.

A part of `bpfseal.kernel.linux.kernel.LinuxKernel`.

Source: kernel/bpf/syscall.c ``map_lookup_elem`` and its neighbours.
"""

from __future__ import annotations

import os
from errno import ENOENT
from functools import cached_property

from bpfseal.bpf import attr
from bpfseal.bpf.uapi import Cmd
from bpfseal.errors import KernelError
from bpfseal.kernel.linux.cpus import possible_cpus
from bpfseal.kernel.linux.memory import LinuxMemory
from bpfseal.kernel.linux.syscalls import Buffer, bpf
from bpfseal.kernel.protocol import TestResult

_MAX_PACKET_GROWTH = 256
"""Bytes by which a packet may grow in a test run (XDP_PACKET_HEADROOM)."""


class MapCalls:
    """The calls about maps and pins of `bpfseal.kernel.protocol.MapKernel`."""

    @cached_property
    def possible_cpus(self) -> int:
        """How many values a per-CPU map has under each key."""
        return possible_cpus()

    def map_lookup(self, fd: int, key: bytes, size: int) -> bytes | None:
        """Return the value of a key, or ``None``."""
        return self._read(Cmd.MAP_LOOKUP_ELEM, fd, key, size)

    def map_lookup_and_delete(self, fd: int, key: bytes, size: int) -> bytes | None:
        """Return the value of a key and delete it, or ``None``."""
        return self._read(Cmd.MAP_LOOKUP_AND_DELETE_ELEM, fd, key, size)

    def _read(self, command: Cmd, fd: int, key: bytes, size: int) -> bytes | None:
        keys, values = Buffer(key), Buffer(bytes(size))
        packed = attr.MAP_ELEM.pack(map_fd=fd, key=keys.pointer, value=values.address)
        return values.data if _found(command, packed) else None

    def map_delete(self, fd: int, key: bytes) -> None:
        """Delete one element."""
        keys = Buffer(key)
        packed = attr.MAP_DELETE_ELEM.pack(map_fd=fd, key=keys.pointer)
        bpf(Cmd.MAP_DELETE_ELEM, bytearray(packed))

    def map_next_key(self, fd: int, key: bytes | None, size: int) -> bytes | None:
        """Return the key behind `key`, or ``None`` behind the last one."""
        given, following = Buffer(key or b""), Buffer(bytes(size))
        packed = attr.MAP_GET_NEXT_KEY.pack(
            map_fd=fd, key=given.pointer, next_key=following.address
        )
        return following.data if _found(Cmd.MAP_GET_NEXT_KEY, packed) else None

    def map_memory(self, fd: int, offset: int, size: int, *, writable: bool) -> LinuxMemory:
        """Map a map or a perf event into memory."""
        return LinuxMemory(fd, offset, size, writable=writable)

    def prog_test_run(self, fd: int, data: bytes, ctx: bytes = b"", repeat: int = 1) -> TestResult:
        """Run a networking or raw tracepoint program on a packet and a context."""
        layout = attr.PROG_RUN
        given, context, after = Buffer(data), Buffer(ctx), Buffer(ctx)
        result = Buffer(bytes(len(data) + _MAX_PACKET_GROWTH) if data else b"")
        values = {"prog_fd": fd, "repeat": repeat if data else 0}
        if data:
            values |= {"data_in": given.address, "data_size_in": len(data)}
            values |= {"data_out": result.address, "data_size_out": len(result.data)}
        if ctx:
            values |= {"ctx_in": context.address, "ctx_size_in": len(ctx)}
        if ctx and data:
            values |= {"ctx_out": after.address, "ctx_size_out": len(ctx)}
        packed = bytearray(layout.pack_fields(values))
        bpf(Cmd.PROG_RUN, packed)
        told = layout.unpack(bytes(packed))
        return TestResult(
            retval=told["retval"],
            data=result.data[: told["data_size_out"]] if data else b"",
            ctx=after.data[: told["ctx_size_out"]] if ctx and data else context.data,
            duration=told["duration"],
        )

    def pin(self, fd: int, path: str) -> None:
        """Pin a map, program or link to a path in bpffs."""
        name = Buffer(os.fsencode(path) + b"\0")
        bpf(Cmd.OBJ_PIN, bytearray(attr.OBJ.pack(pathname=name.address, bpf_fd=fd)))

    def open_pinned(self, path: str) -> int:
        """Return a fd of what is pinned at a path."""
        name = Buffer(os.fsencode(path) + b"\0")
        return bpf(Cmd.OBJ_GET, bytearray(attr.OBJ.pack(pathname=name.address)))


def _found(command: Cmd, packed: bytes) -> bool:
    """Make a call for which ENOENT is an answer, not an error."""
    try:
        bpf(command, bytearray(packed))
    except KernelError as error:
        if error.errno == ENOENT:
            return False
        raise
    return True
