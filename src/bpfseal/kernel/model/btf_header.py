"""The header of a BTF, as kernels check it: its version, and sections without gaps.

Source: ``btf_parse_hdr``, ``btf_check_sec_info``, ``btf_parse_str_sec`` and
``btf_parse_type_sec`` in kernel/bpf/btf.c.

Example:
    >>> check_header(raw, header_size=24)
"""

from __future__ import annotations

import struct
from errno import E2BIG, EINVAL
from typing import Final

from bpfseal.errors import KernelError
from bpfseal.kernel.model.refusal import ENOTSUPP, refusal

_MAGIC: Final = 0xEB9F
_VERSION: Final = 1
_PREFIX: Final = struct.Struct("<HBBI")
_SECTIONS: Final = struct.Struct("<IIII")
_LAYOUT: Final = struct.Struct("<II")
_LAYOUT_ENTRY: Final = 4
"""Bytes of ``struct btf_layout``."""

_WITH_LAYOUT: Final = _PREFIX.size + _SECTIONS.size + _LAYOUT.size


def _refuse(errno: int, log: str) -> KernelError:
    return refusal(errno, "kernel/bpf/btf.c btf_parse_hdr", log)


def check_header(raw: bytes, *, header_size: int) -> None:
    """Check the header and where the sections are.

    Args:
        raw: the whole BTF.
        header_size: bytes of the header that the kernel knows.

    Raises:
        KernelError: EINVAL, E2BIG for a longer header with something in it, ENOTSUPP for another
            version or flags.
    """
    if len(raw) < _PREFIX.size:
        raise _refuse(EINVAL, "hdr_len not found")
    magic, version, flags, length = _PREFIX.unpack_from(raw)
    if len(raw) < length:
        raise _refuse(EINVAL, "btf_header not found")
    if any(raw[header_size:length]):
        raise _refuse(E2BIG, "Unsupported btf_header")
    if magic != _MAGIC:
        raise _refuse(EINVAL, "Invalid magic")
    if version != _VERSION:
        raise _refuse(ENOTSUPP, "Unsupported version")
    if flags:
        raise _refuse(ENOTSUPP, "Unsupported flags")
    if len(raw) == length:
        raise _refuse(EINVAL, "No data")
    header = raw[: min(length, header_size)].ljust(_WITH_LAYOUT, b"\0")
    type_at, type_size, string_at, string_size = _SECTIONS.unpack_from(header, _PREFIX.size)
    layout_at, layout_size = _LAYOUT.unpack_from(header, _PREFIX.size + _SECTIONS.size)
    sections = [(type_at, type_size), (string_at, string_size)]
    knows_layout = length >= _WITH_LAYOUT == header_size
    if knows_layout and layout_size:
        sections.append((layout_at, layout_size))
    _check_sections(sections, len(raw) - length)
    if not knows_layout and string_at + string_size != len(raw) - length:
        raise _refuse(EINVAL, "String section is not at the end")
    strings = raw[length + string_at : length + string_at + string_size]
    if not strings or strings[0] or strings[-1]:
        raise _refuse(EINVAL, "Invalid string section")
    if knows_layout and layout_size and (layout_at % 4 or layout_size % _LAYOUT_ENTRY):
        raise _refuse(EINVAL, "Unaligned layout_off")
    if type_at % 4:
        raise _refuse(EINVAL, "Unaligned type_off")


def _check_sections(sections: list[tuple[int, int]], room: int) -> None:
    """Check that sections follow each other without gaps and fill all there is."""
    end = 0
    for offset, size in sorted(sections):
        if offset > room:
            raise _refuse(EINVAL, "Invalid section offset")
        if offset > end:
            raise _refuse(EINVAL, "Unsupported section found")
        if offset < end:
            raise _refuse(EINVAL, "Section overlap found")
        if size > room - end:
            raise _refuse(EINVAL, "Total section length too long")
        end += size
    if end != room:
        raise _refuse(EINVAL, "Unsupported section found")
