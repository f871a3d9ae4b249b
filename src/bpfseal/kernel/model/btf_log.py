"""The log of BPF_BTF_LOAD: the header, each type, and what is wrong with one.

Source: kernel/bpf/btf.c ``btf_verifier_log_hdr``, ``btf_verifier_log_type`` and the ``*_log``
functions of the kinds.

Example:
    >>> btf_log(raw, None).splitlines()[-1]
    '[1] INT int size=4 bits_offset=0 nr_bits=32 encoding=SIGNED'
"""

from __future__ import annotations

import re
import struct
from typing import Final

from bpfseal.btf.btf import Btf, BtfType
from bpfseal.btf.kinds import INT_BOOL, INT_CHAR, INT_SIGNED, Kind
from bpfseal.errors import InputError, KernelError

_ENCODINGS: Final = {0: "(none)", INT_SIGNED: "SIGNED", INT_CHAR: "CHAR", INT_BOOL: "BOOL"}
_SIZED: Final = frozenset({Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.DATASEC})
_ABOUT_A_TYPE: Final = re.compile(r".*: type (\d+): (.*)", re.DOTALL)
_BEFORE_HEADER: Final = ("hdr_len not found", "btf_header not found", "Unsupported btf_header")
_HEADER: Final = struct.Struct("<HBBIIIII")


def btf_log(raw: bytes, error: KernelError | None) -> str:
    """Return what the kernel writes of a BTF, with what it was refused for."""
    rule = error.rule if error is not None else ""
    about = _ABOUT_A_TYPE.fullmatch(rule)
    reason = rule.rpartition(": ")[2] if error is not None else ""
    if reason in _BEFORE_HEADER:
        return reason
    lines = _header(raw)
    try:
        btf = Btf.from_bytes(raw, "btf")
    except InputError:
        return "".join(f"{line}\n" for line in lines) + reason
    if error is not None and about is None:
        return "".join(f"{line}\n" for line in lines) + (reason if len(lines) else "")
    last = int(about[1]) if about is not None else len(btf) - 1
    for type_id in range(1, last + 1):
        text = _type(btf, btf.type_by_id(type_id))
        lines.append(f"{text} {about[2]}" if about is not None and type_id == last else text)
        if about is None or type_id < last:
            lines += _parts(btf, btf.type_by_id(type_id))
    return "".join(f"{line}\n" for line in lines)


def _header(raw: bytes) -> list[str]:
    names = ("hdr_len", "type_off", "type_len", "str_off", "str_len")
    magic, version, flags, *numbers = _HEADER.unpack(raw[: _HEADER.size].ljust(_HEADER.size, b"\0"))
    return [
        f"magic: {magic:#x}",
        f"version: {version}",
        f"flags: {flags:#x}",
        *(f"{name}: {number}" for name, number in zip(names, numbers, strict=True)),
        f"btf_total_size: {len(raw)}",
    ]


def _type(btf: Btf, found: BtfType) -> str:
    details = _details(btf, found)
    text = f"[{found.id}] {found.kind.name} {found.name or '(anon)'}"
    return f"{text} {details}" if details else text


def _details(btf: Btf, found: BtfType) -> str:
    match found.kind:
        case Kind.INT:
            word = btf.extra_word(found.id)
            encoding = _ENCODINGS.get(word >> 24 & 0xF, "UNKN")
            offset, bits = word >> 16 & 0xFF, word & 0xFF
            return f"size={found.third} bits_offset={offset} nr_bits={bits} encoding={encoding}"
        case Kind.ARRAY:
            element, index, count = (btf.extra_word(found.id, n) for n in range(3))
            return f"type_id={element} index_type_id={index} nr_elems={count}"
        case Kind.FLOAT:
            return f"size={found.third}"
        case Kind.FWD:
            return "union" if found.kind_flag else "struct"
        case Kind.VAR:
            return f"type_id={found.third} linkage={btf.extra_word(found.id)}"
        case Kind.DECL_TAG:
            index = btf.extra_word(found.id)
            index -= (1 << 32) if index >> 31 else 0
            return f"type={found.third} component_idx={index}"
        case Kind.FUNC_PROTO:
            return f"return={found.third} args=({_arguments(btf, found)})"
        case _ if found.kind in _SIZED:
            return f"size={found.third} vlen={found.vlen}"
        case _:
            return f"type_id={found.third}"


def _arguments(btf: Btf, found: BtfType) -> str:
    arguments = list(btf.entries(found.id))
    if not arguments:
        return "void"
    return ", ".join(
        f"{type_id} {btf.string(name_off) or '(anon)'}" if type_id else "vararg"
        for name_off, type_id in arguments
    )


def _parts(btf: Btf, found: BtfType) -> list[str]:
    """Return the lines of members, enumerators and variables."""
    if found.kind in (Kind.STRUCT, Kind.UNION):
        return [_member(found, *each) for each in btf.members(found.id)]
    if found.kind is Kind.DATASEC:
        return [
            f"\t type_id={each.type_id} offset={each.offset} size={each.size}"
            for each in btf.secinfos(found.id)
        ]
    if found.kind in (Kind.ENUM, Kind.ENUM64):
        return [_enumerator(btf, found, entry) for entry in btf.entries(found.id)]
    return []


def _member(found: BtfType, name: str, type_id: int, placed: int) -> str:
    start = f"\t{name or '(anon)'} type_id={type_id}"
    if found.kind_flag:
        return f"{start} bitfield_size={placed >> 24} bits_offset={placed & 0xFFFFFF}"
    return f"{start} bits_offset={placed}"


def _enumerator(btf: Btf, found: BtfType, entry: tuple[int, ...]) -> str:
    bits = 32 if found.kind is Kind.ENUM else 64
    value = entry[1] if bits == 32 else entry[1] | entry[2] << 32
    if found.kind_flag and value >> bits - 1:
        value -= 1 << bits
    return f"\t{btf.string(entry[0])} val={value}"
