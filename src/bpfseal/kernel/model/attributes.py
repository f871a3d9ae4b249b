"""The attributes of one bpf(2) call: copied, checked, and what their pointers lead to.

A call of user space may point to user memory only, one of a program to the kernel's.

Source: kernel/bpf/syscall.c ``__sys_bpf``, ``bpf_check_uarg_tail_zero``, ``CHECK_ATTR``.

Example:
    >>> attr = Attr.copy(state, Cmd.MAP_FREEZE, MAP_FREEZE, Place(address, 4, is_kernel=False))
    >>> attr["map_fd"]
    5
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import E2BIG, EFAULT, EINVAL
from typing import Final, NamedTuple

from bpfseal.bpf.attr import AttrLayout
from bpfseal.bpf.uapi import Cmd
from bpfseal.kernel.model.memory import MemoryFault
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.state import KernelState
from bpfseal.kernel.model.work import BYTES

PAGE_SIZE: Final = 4096
"""Bytes of the largest attributes that are looked at (``bpf_check_uarg_tail_zero``)."""

_SOURCE = "kernel/bpf/syscall.c __sys_bpf"


class Place(NamedTuple):
    """Where attributes are.

    Attributes:
        address: their address.
        size: how many bytes they are said to be.
        is_kernel: they are a program's, in kernel memory.
    """

    address: int
    size: int
    is_kernel: bool


@dataclass(frozen=True, slots=True)
class Attr:
    """The attributes of one call: the fields by name, and what their pointers lead to."""

    state: KernelState
    place: Place
    layout: AttrLayout
    raw: bytes
    fields: dict[str, int]

    @classmethod
    def copy(cls, state: KernelState, command: Cmd, layout: AttrLayout, place: Place) -> Attr:
        """Copy attributes, cut to the size of the kernel's union.

        Raises:
            KernelError: E2BIG for more than a page, or for bytes behind the union that are not
                zero; EFAULT for bytes that cannot be read; EINVAL for bytes behind the command's
                last field that are not zero.
        """
        known = state.profile.attr_size
        raw = check_tail(state, place, known, "attributes")[:known]
        last = state.profile.last_fields.get(command)
        end = layout.end(last) if last else max(field.end for field in layout.fields.values())
        if any(raw[end:]):
            raise refusal(EINVAL, _SOURCE, "attributes behind the last one known are not zero")
        return cls(state, place, layout, raw, layout.unpack(raw))

    def __getitem__(self, field: str) -> int:
        return self.fields[field]

    def text(self, field: str) -> str:
        """Return a name field."""
        return self.layout.name_field(self.raw, field)

    def describe(self) -> str:
        """Return what the call is about: the name of the new object, a fd or an id."""
        for field in ("map_name", "prog_name"):
            if field in self.layout.fields:
                return self.text(field)
        for field in ("map_fd", "prog_fd", "bpf_fd", "link_fd"):
            if field in self.fields:
                return f"fd {self[field]}"
        for field in ("map_id", "prog_id", "btf_id", "link_id", "start_id"):
            if field in self.fields:
                return f"{field} {self[field]}"
        return f"{self['btf_size']} bytes"

    def bytes_at(self, field: str, size: int) -> bytes:
        """Return the bytes behind a pointer.

        Raises:
            KernelError: EFAULT.
        """
        return read(self.state, self.place, self.fields[field], size, field)

    def up_to(self, field: str, size: int) -> bytes:
        """Return as many of the bytes behind a pointer as can be read."""
        address = self.fields[field]
        region = self.state.memory.region_at(address)
        if region is None or (not self.place.is_kernel and not region.user):
            return b""
        offset = address - region.base
        return bytes(region.data[offset : offset + size])

    def write(self, field: str, data: bytes) -> None:
        """Write bytes to where a pointer leads.

        Raises:
            KernelError: EFAULT.
        """
        write(self.state, self.place, self.fields[field], data, field)

    def give_back(self, field: str, value: int) -> None:
        """Set a field of the caller's attributes, if they reach so far.

        Raises:
            KernelError: EFAULT.
        """
        wanted = self.layout.fields[field]
        if wanted.end <= self.place.size:
            mask = (1 << 8 * wanted.size) - 1
            data = (value & mask).to_bytes(wanted.size, "little")
            write(self.state, self.place, self.place.address + wanted.offset, data, field)


def check_tail(state: KernelState, place: Place, known: int, what: str) -> bytes:
    """Return all bytes at a place after checking that those behind `known` are zero.

    Raises:
        KernelError: E2BIG for more than a page or a tail that is not zero, EFAULT.
    """
    source = "kernel/bpf/syscall.c bpf_check_uarg_tail_zero"
    if place.size > PAGE_SIZE:
        raise refusal(E2BIG, source, f"{what} of {place.size} bytes")
    raw = read(state, place, place.address, place.size, what)
    if any(raw[known:]):
        raise refusal(E2BIG, source, f"{what}: what this kernel does not know is not zero")
    return raw


def read(state: KernelState, place: Place, address: int, size: int, what: str) -> bytes:
    """Return bytes that a call points to.

    Raises:
        KernelError: EFAULT.
    """
    if place.is_kernel:
        state.work.spend(size // BYTES)
    try:
        data = state.memory.read(address, size)
    except MemoryFault as fault:
        raise refusal(EFAULT, _SOURCE, f"{what}: {fault.message}") from fault
    _require_user(state, place, address, size, what)
    return data


def write(state: KernelState, place: Place, address: int, data: bytes, what: str) -> None:
    """Write bytes to where a call points.

    Raises:
        KernelError: EFAULT.
    """
    _require_user(state, place, address, len(data), what)
    try:
        state.memory.write(address, data)
    except MemoryFault as fault:
        raise refusal(EFAULT, _SOURCE, f"{what}: {fault.message}") from fault


def _require_user(state: KernelState, place: Place, address: int, size: int, what: str) -> None:
    region = state.memory.region_at(address)
    if size and not place.is_kernel and region is not None and not region.user:
        raise refusal(EFAULT, _SOURCE, f"{what}: {address:#x} is not user memory")
