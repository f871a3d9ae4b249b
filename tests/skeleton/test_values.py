"""Values of C types become Python values and come back as the same bytes."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import INT_BOOL, INT_SIGNED, Kind
from bpfseal.errors import BpfsealError, InputError, UsageError
from bpfseal.skeleton.records import Record
from bpfseal.skeleton.types import MAX_PARTS, Types, codec_of
from bpfseal.skeleton.values import Codec, RawCodec
from support.btf_writer import KIND_FLAG, BtfWriter

from .support import unsigned

INTEGERS = [(size, signed) for size in (1, 2, 4, 8, 16) for signed in (False, True)]


def made(writer: BtfWriter, type_id: int) -> Codec:
    return codec_of(Btf.from_bytes(writer.encode()), type_id)


def add_struct(
    writer: BtfWriter,
    name: str,
    size: int,
    members: list[tuple[str, int, int]],
    *,
    kind: Kind = Kind.STRUCT,
    bitfields: bool = False,
) -> int:
    body = [word for text, *words in members for word in (writer.string(text), *words)]
    vlen = len(members) | (KIND_FLAG if bitfields else 0)
    return writer.add_raw(kind, size, body, name=name, vlen=vlen)


def example(name: str) -> Codec:
    from bpfseal.skeleton.description import Description

    return Description(unsigned("maplab").variants[0].loader).named(name)


@pytest.mark.parametrize(("size", "signed"), INTEGERS)
def test_integers_come_back(size: int, signed: bool) -> None:
    writer = BtfWriter()
    number = writer.add_encoded_int("number", size, INT_SIGNED if signed else 0)
    codec = made(writer, number)
    lowest = -(1 << 8 * size - 1) if signed else 0
    highest = lowest + (1 << 8 * size) - 1
    for value in (lowest, highest, 0, 1):
        assert codec.decode(codec.encode(value)) == value
    for value in (lowest - 1, highest + 1):
        with pytest.raises(UsageError, match="does not fit"):
            codec.encode(value)
    with pytest.raises(UsageError, match="wanted an integer"):
        codec.encode("1")


def test_bools_and_floats() -> None:
    writer = BtfWriter()
    flag = writer.add_encoded_int("_Bool", 1, INT_BOOL)
    double = writer.add_raw(Kind.FLOAT, 8, name="double")
    assert made(writer, flag).decode(b"\1") is True
    assert made(writer, flag).encode(False) == b"\0"
    with pytest.raises(UsageError, match="wanted a bool"):
        made(writer, flag).encode(2)
    assert made(writer, double).decode(struct.pack("<d", 2.5)) == 2.5
    with pytest.raises(UsageError):
        made(writer, double).encode("2.5")


def test_an_enum_has_names_and_takes_them() -> None:
    color = example("color")
    green = color.decode(color.encode("GREEN"))
    assert (green, green.name) == (5, "GREEN")
    assert color.decode(color.encode("BLUE")).name == "BLUE"
    unknown = color.decode(color.encode(77))
    assert (unknown, unknown.name) == (77, "")
    with pytest.raises(UsageError, match="there are: RED, GREEN, BLUE"):
        color.encode("PINK")


def test_wide_enums_have_all_their_bits() -> None:
    writer = BtfWriter()
    codec = made(writer, writer.add_enum64("wide", {"A": 1 << 40, "B": 3}))
    assert codec.decode(codec.encode("A")) == 1 << 40


def test_char_arrays_are_text_and_byte_arrays_bytes() -> None:
    writer = BtfWriter()
    char = writer.add_encoded_int("char", 1, INT_SIGNED)
    byte = writer.add_int("unsigned char", 1)
    text = made(writer, writer.add_array(char, 4))
    raw = made(writer, writer.add_array(byte, 4))
    assert text.decode(b"ab\0x") == "ab"
    assert text.decode(b"\xffabc") == "\udcffabc"
    assert text.encode("\udcff") == b"\xff\0\0\0"
    assert text.encode("abcd") == b"abcd"
    with pytest.raises(UsageError, match="5 bytes for an array of 4"):
        text.encode("abcde")
    assert raw.decode(b"ab\0x") == b"ab\0x"
    assert raw.encode([1, 2]) == b"\1\2\0\0"
    with pytest.raises(UsageError, match="are no bytes"):
        raw.encode([256])


def test_a_record_has_members_as_attributes_and_by_name_and_cannot_change() -> None:
    shape = example("shape")
    record = shape.decode(shape.encode({"name": "box", "corners": [{"x": 1}], "layer": -2}))
    assert (record.name, record["layer"], record.corners[0].x) == ("box", -2, 1)
    assert len(record.corners) == 3
    assert shape.encode(record) == bytes(record)
    assert shape.decode(shape.encode(dict(record) | {"name": "sphere"})).name == "sphere"
    with pytest.raises(AttributeError, match="cannot be changed"):
        record.name = "circle"
    with pytest.raises(AttributeError, match="no member 'radius'; there are: name, color"):
        _ = record.radius


def test_a_wrong_member_is_named_with_its_path() -> None:
    writer = BtfWriter()
    u8 = writer.add_int("u8", 1)
    inner = add_struct(writer, "inner", 1, [("value", u8, 0)])
    codec = made(writer, add_struct(writer, "outer", 1, [("part", inner, 0)]))
    with pytest.raises(UsageError) as refused:
        codec.encode({"part": {"value": 256}})
    assert refused.value.where == "part.value"
    with pytest.raises(UsageError, match="struct outer has no member other"):
        codec.encode({"other": 1})


def test_members_of_anonymous_structs_are_the_structs_own() -> None:
    shape = example("shape")
    record = shape.decode(shape.encode({"id": 258}))
    assert (record.id, record.id_bytes[:2]) == (258, b"\2\1")
    assert shape.encode({"id_bytes": b"\2\1"}) == shape.encode({"id": 258})


def test_bytes_of_the_right_size_stand_for_themselves() -> None:
    point = example("point")
    assert point.encode(b"\1\0\0\0\2\0\0\0") == b"\1\0\0\0\2\0\0\0"
    with pytest.raises(UsageError, match="wanted a mapping"):
        point.encode(b"\1")
    with pytest.raises(UsageError, match="3 bytes for a value of 8"):
        point.decode(b"abc")


C_PROGRAM = """
#include <stdio.h>
#include <string.h>
typedef unsigned int __u32; typedef int __s32; typedef unsigned long long __u64;
typedef unsigned char __u8;
%s
int main(void)
{
	struct shape shape;
	memset(&shape, 0, sizeof(shape));
	strcpy(shape.name, "triangle");
	shape.color = BLUE;
	shape.filled = 1;
	shape.layer = -37;
	shape.corners_used = 0xabcd;
	shape.corners[2].y = -9;
	shape.id = 0x1122334455667788;
	shape.visible = 1;
	fwrite(&shape, sizeof(shape), 1, stdout);
	return 0;
}
"""


def test_the_c_compiler_lays_a_struct_out_in_the_same_way(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    source = Path(__file__).parents[2] / "examples" / "maplab.bpf.c"
    text = source.read_text()
    declared = text[text.index("enum color") : text.index("struct message")]
    (tmp_path / "shape.c").write_text(C_PROGRAM % declared)
    program = tmp_path / "shape"
    subprocess.run(["gcc", "-o", program, tmp_path / "shape.c"], check=True)
    written = subprocess.run([program], check=True, capture_output=True).stdout
    values = {
        "name": "triangle",
        "color": "BLUE",
        "filled": 1,
        "layer": -37,
        "corners_used": 0xABCD,
        "corners": [{}, {}, {"y": -9}],
        "id": 0x1122334455667788,
        "visible": True,
    }
    shape = example("shape")
    assert shape.encode(values) == written
    record = shape.decode(written)
    assert record.color.name == "BLUE"
    assert record.corners[2].y == -9
    for name in ("name", "filled", "layer", "corners_used", "id", "visible"):
        assert record[name] == values[name]


@st.composite
def types(draw: st.DrawFn) -> Codec:
    """A codec of a struct with members of all kinds, nested and with gaps."""
    writer = BtfWriter()
    leaves = [
        writer.add_encoded_int(f"i{size}{signed}", size, INT_SIGNED if signed else 0)
        for size, signed in INTEGERS
    ]
    leaves.append(writer.add_enum("enum", {"A": 1, "B": 2}))
    leaves.append(writer.add_ptr(0))
    known = list(leaves)
    sizes = {**dict(zip(known, [size for size, _ in INTEGERS] + [4, 8], strict=True))}
    for number in range(draw(st.integers(1, 4))):
        inside = draw(st.lists(st.sampled_from(known), min_size=1, max_size=4))
        if draw(st.booleans()):
            count = draw(st.integers(0, 4))
            new = writer.add_array(inside[0], count)
            sizes[new] = sizes[inside[0]] * count
        else:
            members, at = [], 0
            for index, part in enumerate(inside):
                at += draw(st.integers(0, 3))
                members.append((f"m{index}", part, 8 * at))
                at += sizes[part]
            new = add_struct(writer, f"s{number}", at, members)
            sizes[new] = at
        known.append(new)
    return made(writer, known[-1])


def plain(value: Any) -> Any:
    """A value without what came with its bytes: records as dicts."""
    if isinstance(value, Record):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


@given(types(), st.data())
def test_every_value_comes_back(codec: Codec, data: st.DataObject) -> None:
    raw = data.draw(st.binary(min_size=codec.size, max_size=codec.size))
    value = codec.decode(raw)
    assert codec.encode(value) == raw or not isinstance(value, Record)
    again = codec.encode(plain(value))
    assert plain(codec.decode(again)) == plain(value)


@given(st.integers(1, 31), st.integers(0, 32), st.booleans(), st.data())
def test_bitfields_touch_their_own_bits_only(
    bits: int, start: int, signed: bool, data: st.DataObject
) -> None:
    writer = BtfWriter()
    number = writer.add_encoded_int("int", 4, INT_SIGNED if signed else 0)
    codec = made(
        writer,
        add_struct(writer, "s", 8, [("field", number, bits << 24 | start)], bitfields=True),
    )
    lowest = -(1 << bits - 1) if signed else 0
    value = data.draw(st.integers(lowest, lowest + (1 << bits) - 1))
    raw = codec.encode({"field": value})
    mask = (1 << bits) - 1
    assert int.from_bytes(raw, "little") == (value & mask) << start
    assert codec.decode(raw).field == value
    noise = int.from_bytes(raw, "little") | ~(mask << start) & (1 << 64) - 1
    assert codec.decode(noise.to_bytes(8, "little")).field == value
    with pytest.raises(UsageError, match="does not fit a bitfield"):
        codec.encode({"field": lowest + (1 << bits)})


# What a BTF may say, and what is made of it.


def test_a_struct_that_contains_itself_is_refused() -> None:
    writer = BtfWriter()
    with pytest.raises(InputError, match="nested too deeply"):
        made(writer, add_struct(writer, "s", 8, [("again", 1, 0)]))


def test_a_member_outside_of_its_struct_is_refused() -> None:
    writer = BtfWriter()
    number = writer.add_int("int", 4)
    with pytest.raises(InputError, match="lies outside"):
        made(writer, add_struct(writer, "s", 4, [("far", number, 8)]))


@pytest.mark.parametrize("name", ["", "part"])
@pytest.mark.parametrize("is_empty", [True, False])
def test_a_type_with_too_many_parts_is_carried_as_bytes(name: str, is_empty: bool) -> None:
    writer = BtfWriter()
    leaf = writer.add_int("u8", 1)
    inner = add_struct(writer, "s", 1, [] if is_empty else [("leaf", leaf, 0)])
    for level in range(28):
        members = [(name and f"{name}{number}", inner, 0) for number in range(2)]
        inner = add_struct(writer, f"u{level}", 1, members, kind=Kind.UNION)
    codec = made(writer, inner)
    assert MAX_PARTS < 2**28
    value = codec.decode(b"\7")
    assert codec.encode(value) == b"\7"


def test_an_array_of_nothing_is_carried_as_bytes() -> None:
    writer = BtfWriter()
    number = writer.add_int("int", 4)
    empty = writer.add_array(number, 0)
    codec = made(writer, writer.add_array(empty, 0xFFFFFFFF))
    assert codec == RawCodec(0)


@settings(deadline=None)  # one run reads every type of a BTF
@given(st.integers(0, 1 << 16), st.integers(0, 255))
def test_a_changed_btf_raises_our_errors_only(at: int, byte: int) -> None:
    from bpfseal.skeleton.description import Description

    btf = Description(unsigned("maplab").variants[0].loader)._btf
    assert btf
    raw = bytearray(btf.raw)
    raw[at % len(raw)] = byte
    try:
        changed = Btf.from_bytes(bytes(raw))
        codecs = Types(changed)
        for type_id in range(len(changed)):
            try:
                codec = codecs.codec(type_id)
                if codec.size < 4096:
                    codec.decode(bytes(codec.size))
            except BpfsealError:
                continue
    except BpfsealError:
        return
