"""Values of kernel configuration (``set_kcfg_value_*`` in tools/lib/bpf/libbpf.c)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bpfseal.bpf.insn import ByteOrder
from bpfseal.btf.kinds import INT_BOOL, INT_CHAR, INT_SIGNED
from bpfseal.errors import InputError, UnsupportedError
from bpfseal.object.target import TargetValues
from support.btf_writer import BtfWriter
from support.object_writer import ObjectWriter

AddType = Callable[[BtfWriter], int]

TYPES: dict[str, tuple[AddType, int]] = {
    "bool": (lambda w: w.add_encoded_int("_Bool", 1, INT_BOOL), 1),
    "char": (lambda w: w.add_encoded_int("char", 1, INT_CHAR | INT_SIGNED), 1),
    "u8": (lambda w: w.add_int("u8", 1), 1),
    "u16": (lambda w: w.add_int("u16", 2), 2),
    "s32": (lambda w: w.add_int("s32", 4, signed=True), 4),
    "u64": (lambda w: w.add_int("u64", 8), 8),
    "u128": (lambda w: w.add_int("u128", 16), 16),
    "tristate": (lambda w: w.add_enum("libbpf_tristate", {"NO": 0, "YES": 1, "MODULE": 2}), 4),
    "enum": (lambda w: w.add_enum("other", {"NO": 0}), 4),
    "text": (lambda w: w.add_array(w.add_int("char", 1), 5), 5),
    "no text": (lambda w: w.add_array(w.add_int("char", 1), 0), 0),
}


def value_of(
    type_name: str, text: str | None, byteorder: ByteOrder = "little", name: str = "CONFIG_X"
) -> bytes | None:
    """Return the contents of the map of an object with one value, given as in a .config."""
    add, size = TYPES[type_name]
    writer = ObjectWriter(byteorder)
    writer.add_kconfig(name, writer.btf.add_typedef("t", add(writer.btf)), size)
    target = TargetValues(kconfig={} if text is None else {name: text})
    return writer.read(target=target).maps[-1].initial_value


@pytest.mark.parametrize(
    ("type_name", "text", "value"),
    [
        ("bool", "y", b"\1"),
        ("bool", "n", b"\0"),
        ("bool", "1", b"\1"),
        ("char", "y", b"y"),
        ("char", "m", b"m"),
        ("char", "n", b"n"),
        ("tristate", "n", b"\0\0\0\0"),
        ("tristate", "y", b"\1\0\0\0"),
        ("tristate", "m", b"\2\0\0\0"),
        ("u8", "255", b"\xff"),
        ("u16", "0x1234", b"\x34\x12"),
        ("s32", "-2", b"\xfe\xff\xff\xff"),
        ("u64", "18446744073709551615", b"\xff" * 8),
        ("text", '"abc"', b"abc\0\0"),
        ("text", '""', b"\0\0\0\0\0"),
        ("text", '"abcdefg"', b"abcd\0"),
        ("no text", '"abc"', b""),
    ],
)
def test_values_are_written_as_their_type_says(type_name: str, text: str, value: bytes) -> None:
    assert value_of(type_name, text) == value


@pytest.mark.parametrize(
    ("type_name", "text", "value"),
    [("u16", "0x1234", b"\x12\x34"), ("tristate", "m", b"\0\0\0\2")],
)
def test_values_have_the_byte_order_of_the_object(type_name: str, text: str, value: bytes) -> None:
    assert value_of(type_name, text, "big") == value


@pytest.mark.parametrize(
    ("type_name", "text", "message"),
    [
        ("bool", "m", "m does not fit a bool"),
        ("bool", "2", "2 does not fit 1 bytes"),
        ("u8", "256", "256 does not fit"),
        ("u8", "-1", "-1 does not fit"),
        ("s32", "2147483648", "does not fit"),
        ("s32", "y", "y needs a bool, char or tristate"),
        ("enum", "y", "y needs a bool, char or tristate"),
        ("u8", "abc", "abc is no number"),
        ("u8", "", "is no number"),
        ("text", "abc", "abc is no string in quotes"),
        ("text", '"', "is no string in quotes"),
    ],
)
def test_values_that_do_not_fit_are_refused(type_name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        value_of(type_name, text)
    assert "extern 'CONFIG_X'" in caught.value.where


@pytest.mark.parametrize("type_name", ["enum", "u128"])
def test_a_number_needs_an_integer(type_name: str) -> None:
    with pytest.raises(UnsupportedError, match="needs an integer variable"):
        value_of(type_name, "1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LINUX_KERNEL_VERSION", 6 << 16 | 18 << 8),
        ("LINUX_HAS_BPF_COOKIE", 1),
        ("LINUX_HAS_SYSCALL_WRAPPER", 1),
    ],
)
def test_virtual_values_are_stated_not_looked_up(name: str, value: int) -> None:
    assert value_of("s32", None, name=name) == value.to_bytes(4, "little")


def test_a_strong_value_that_nobody_gives_is_refused() -> None:
    with pytest.raises(InputError, match="nothing says which value it has") as caught:
        value_of("s32", None)
    assert caught.value.hint == "give it, or declare it __weak"


@pytest.mark.parametrize("name", ["CONFIG_HZ", "LINUX_SOMETHING"])
def test_a_weak_value_that_nobody_gives_is_zero(name: str) -> None:
    writer = ObjectWriter()
    writer.add_kconfig(name, writer.int_id, 4, weak=True)
    assert writer.read().maps[-1].initial_value == bytes(4)


def test_a_weak_value_of_another_name_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_kconfig("SOMETHING", writer.int_id, 4, weak=True)
    with pytest.raises(InputError, match="nothing says which value it has"):
        writer.read()
