"""The contents of the .kconfig map: kernel configuration as the object asks for it.

Source of the rules: ``bpf_object__resolve_externs`` and ``set_kcfg_value_*`` in
tools/lib/bpf/libbpf.c.
"""

from __future__ import annotations

from collections.abc import Iterable

from bpfseal.bpf.insn import ByteOrder
from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import INT_BOOL, INT_SIGNED, Kind
from bpfseal.errors import InputError, UnsupportedError
from bpfseal.object.model import Extern, ExternKind
from bpfseal.object.target import TargetValues

_TRISTATE = {"n": 0, "y": 1, "m": 2}
_TRISTATE_ENUM = "libbpf_tristate"
_MAX_NUMBER = 80
"""Characters of the longest number; 64 bits fit in any notation."""


def kconfig_value(
    externs: Iterable[Extern], btf: Btf, target: TargetValues, byteorder: ByteOrder
) -> bytes | None:
    """Return the contents of the .kconfig map, or ``None`` if the object needs none.

    Raises:
        InputError: a value that does not fit its variable, or a strong extern without one.
        UnsupportedError: a variable of a type that configuration cannot have.
    """
    wanted = [extern for extern in externs if extern.kind is ExternKind.KCONFIG]
    if not wanted:
        return None
    data = bytearray(wanted[-1].offset + wanted[-1].size)
    for extern in wanted:
        value = _value(extern, btf, target, byteorder)
        data[extern.offset : extern.offset + extern.size] = value
    return bytes(data)


def _value(extern: Extern, btf: Btf, target: TargetValues, byteorder: ByteOrder) -> bytes:
    where = f"extern '{extern.name}'"
    virtual = {
        "LINUX_KERNEL_VERSION": target.kernel_version,
        # Every kernel that takes signed loaders has both.
        "LINUX_HAS_BPF_COOKIE": 1,
        "LINUX_HAS_SYSCALL_WRAPPER": 1,
    }
    if extern.name in virtual:
        return _number(extern, btf, virtual[extern.name], byteorder, where)
    text = target.kconfig.get(extern.name)
    if text is None:
        if extern.is_weak and extern.name.startswith(("CONFIG_", "LINUX_")):
            return bytes(extern.size)
        raise InputError(
            "nothing says which value it has", where=where, hint="give it, or declare it __weak"
        )
    kind = btf.kind_of(extern.type_id)
    if kind is Kind.ARRAY:
        if len(text) < 2 or not (text[0] == text[-1] == '"'):
            raise InputError(f"its value {text} is no string in quotes", where=where)
        return text[1:-1].encode()[: max(extern.size - 1, 0)].ljust(extern.size, b"\0")
    if text in _TRISTATE:
        return _tristate(extern, btf, text, byteorder, where)
    try:
        number = int(text if len(text) <= _MAX_NUMBER else "", 0)
    except ValueError:
        raise InputError(f"its value {text[:_MAX_NUMBER]} is no number", where=where) from None
    return _number(extern, btf, number, byteorder, where)


def _tristate(extern: Extern, btf: Btf, text: str, byteorder: ByteOrder, where: str) -> bytes:
    described = btf.type_by_id(extern.type_id)
    if described.kind in (Kind.ENUM, Kind.ENUM64) and described.name == _TRISTATE_ENUM:
        return _TRISTATE[text].to_bytes(extern.size, byteorder)
    if described.kind is Kind.INT and extern.size == 1:
        if btf.extra_word(described.id) >> 24 & INT_BOOL:
            if text == "m":
                raise InputError("its value m does not fit a bool", where=where)
            return bytes([_TRISTATE[text]])
        return text.encode()
    raise InputError(f"its value {text} needs a bool, char or tristate", where=where)


def _number(extern: Extern, btf: Btf, value: int, byteorder: ByteOrder, where: str) -> bytes:
    if btf.kind_of(extern.type_id) is not Kind.INT or extern.size > 8:
        raise UnsupportedError("a number needs an integer variable", where=where)
    encoding = btf.extra_word(extern.type_id) >> 24
    bits = 1 if encoding & INT_BOOL else 8 * extern.size
    signed = bool(encoding & INT_SIGNED)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not low <= value <= high:
        raise InputError(f"its value {value} does not fit {extern.size} bytes", where=where)
    return value.to_bytes(extern.size, byteorder, signed=value < 0)
