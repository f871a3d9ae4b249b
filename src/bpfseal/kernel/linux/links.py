"""Links on the running kernel: what attaches programs, and what iterators are read from.

A part of `bpfseal.kernel.linux.kernel.LinuxKernel`.

Source: kernel/bpf/syscall.c ``link_create``, ``bpf_raw_tp_link_attach``.
"""

from __future__ import annotations

import struct

from bpfseal.bpf import attr
from bpfseal.bpf.uapi import Cmd
from bpfseal.kernel.linux.syscalls import Buffer, bpf
from bpfseal.kernel.protocol import LinkCreate


class LinkCalls:
    """The calls about links of `bpfseal.kernel.protocol.MapKernel`."""

    def link_create(self, request: LinkCreate) -> int:
        """Attach a program and return the link's fd."""
        buffers: list[Buffer] = []

        def address(data: bytes) -> int:
            buffers.append(Buffer(data))
            return buffers[-1].address

        packed = bytearray(
            attr.LINK_CREATE.pack(
                prog_fd=request.prog_fd,
                target_fd=request.target,
                attach_type=request.attach_type,
                flags=request.flags,
            )
        )
        if request.kind:
            values = dict(request.numbers)
            values |= {name: address(data) for name, data in request.data.items()}
            for name, texts in request.texts.items():
                pointers = [address(text.encode() + b"\0") for text in texts]
                values[name] = address(struct.pack(f"={len(pointers)}Q", *pointers))
            layout = attr.LINK_KINDS[request.kind]
            start = attr.LINK_CREATE.end("flags")
            packed[start : layout.size] = layout.pack_fields(values)[start:]
        return bpf(Cmd.LINK_CREATE, packed)

    def raw_tracepoint_open(self, prog_fd: int, name: str) -> int:
        """Attach to a raw tracepoint, or with ``""`` to what was fixed at load time."""
        layout, text = attr.RAW_TRACEPOINT_OPEN, Buffer(name.encode() + b"\0" if name else b"")
        packed = layout.pack(size=layout.end("prog_fd"), name=text.pointer, prog_fd=prog_fd)
        return bpf(Cmd.RAW_TRACEPOINT_OPEN, bytearray(packed))

    def link_detach(self, fd: int) -> None:
        """Detach a link while it is still open."""
        bpf(Cmd.LINK_DETACH, bytearray(attr.LINK_DETACH.pack(link_fd=fd)))

    def iter_create(self, link_fd: int) -> int:
        """Return a fd from which the output of an iterator is read."""
        return bpf(Cmd.ITER_CREATE, bytearray(attr.ITER_CREATE.pack(link_fd=link_fd)))
