"""What makes BTF malformed, and where the error says it is (kernel/bpf/btf.c)."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from bpfseal.bpf.insn import ByteOrder
from bpfseal.btf.btf import VOID, Btf, BtfType, Member, VarSecinfo
from bpfseal.btf.builder import BtfBuilder
from bpfseal.btf.kinds import INT_CHAR, Kind
from bpfseal.errors import InputError
from support.btf_writer import BtfWriter, every_kind

BEHIND = 99
"""A type id that no small blob has."""


def with_header(raw: bytes, offset: int, layout: str, value: int) -> bytes:
    """Return a blob with one header field changed."""
    changed = bytearray(raw)
    struct.pack_into(layout, changed, offset, value)
    return bytes(changed)


def small() -> bytes:
    writer = BtfWriter()
    writer.add_int("int", 4, signed=True)
    return writer.encode()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "0 bytes are too few"),
        (small()[:23], "23 bytes are too few"),
        (b"\0" * 24, "no BTF magic"),
        (with_header(small(), 2, "<B", 2), "BTF version 2"),
        (with_header(small(), 3, "<B", 1), "flags 0x1"),
        (with_header(small(), 4, "<I", 23), "header of 23 bytes"),
        (with_header(small(), 4, "<I", 4096), "header of 4096 bytes"),
        (with_header(small(), 8, "<I", 2), "type section is misplaced"),
        (with_header(small(), 12, "<I", 6), "type section is misplaced"),
        (with_header(small(), 12, "<I", 0xFFFFFFFC), "type section is misplaced"),
        (with_header(small(), 20, "<I", 100), "string section reaches behind"),
        (with_header(small(), 20, "<I", 0), "does not begin and end with zero"),
        (with_header(small(), 20, "<I", 4), "does not begin and end with zero"),
        (with_header(small()[:-1] + b"!", 0, "<H", 0xEB9F), "does not begin and end with zero"),
        (with_header(small(), 40, "<B", 1), "does not begin and end with zero"),
    ],
)
def test_a_malformed_header_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Btf.from_bytes(raw, "somewhere")
    assert caught.value.where == "somewhere"


def cut_record(writer: BtfWriter) -> None:
    writer._words += [0, Kind.PTR << 24]


def cut_entries(kind: Kind) -> Callable[[BtfWriter], object]:
    """Two entries announced, two words there."""
    return lambda writer: writer.add_raw(kind, 0, (0, 0), vlen=2)


def refers_to_nothing(kind: Kind) -> Callable[[BtfWriter], object]:
    body = (0,) if kind in (Kind.VAR, Kind.DECL_TAG) else ()
    return lambda writer: writer.add_raw(kind, BEHIND, body)


MALFORMED: dict[str, tuple[Callable[[BtfWriter], object], str]] = {
    "cut record": (cut_record, "type 2 is cut off"),
    "kind 0": (lambda w: w.add_raw(Kind.VOID), "type 2 has unknown kind 0"),
    "kind 20": (lambda w: w._words.extend((0, 20 << 24, 0)), "type 2 has unknown kind 20"),
    "cut INT": (lambda w: w.add_raw(Kind.INT, 4), "type 2 reaches behind"),
    "cut ARRAY": (lambda w: w.add_raw(Kind.ARRAY, 0, (1, 1)), "type 2 reaches behind"),
    "cut VAR": (lambda w: w.add_raw(Kind.VAR, 1), "type 2 reaches behind"),
    "cut DECL_TAG": (lambda w: w.add_raw(Kind.DECL_TAG, 1), "type 2 reaches behind"),
    **{
        f"cut {kind.name}": (cut_entries(kind), "reaches behind")
        for kind in (
            Kind.STRUCT,
            Kind.UNION,
            Kind.ENUM,
            Kind.FUNC_PROTO,
            Kind.DATASEC,
            Kind.ENUM64,
        )
    },
    "name": (lambda w: w._words.extend((BEHIND, Kind.PTR << 24, 0)), "type 2 .* name offset"),
    **{
        f"{kind.name} of no type": (
            refers_to_nothing(kind),
            "type 2 has an invalid type reference",
        )
        for kind in (
            Kind.PTR,
            Kind.TYPEDEF,
            Kind.VOLATILE,
            Kind.CONST,
            Kind.RESTRICT,
            Kind.FUNC,
            Kind.FUNC_PROTO,
            Kind.VAR,
            Kind.DECL_TAG,
            Kind.TYPE_TAG,
        )
    },
    "ARRAY element": (lambda w: w.add_array(BEHIND, 1, 1), "type 2 has an invalid element type"),
    "ARRAY index": (lambda w: w.add_array(1, 1, BEHIND), "type 2 has an invalid element type"),
    "member name": (
        lambda w: w.add_raw(Kind.STRUCT, 4, (BEHIND, 1, 0), vlen=1),
        "type 2 has an invalid entry name",
    ),
    "member type": (
        lambda w: w.add_struct("s", 4, [("m", BEHIND, 0)]),
        "type 2 has an invalid entry type",
    ),
    "parameter type": (
        lambda w: w.add_func_proto(1, [("p", BEHIND)]),
        "type 2 has an invalid entry type",
    ),
    "enumerator name": (
        lambda w: w.add_raw(Kind.ENUM, 4, (BEHIND, 0), vlen=1),
        "type 2 has an invalid entry name",
    ),
    "DATASEC entry": (
        lambda w: w.add_datasec(".data", [(BEHIND, 0, 4)]),
        "type 2 has an invalid entry type",
    ),
    "FUNC without prototype": (lambda w: w.add_func("f", 1), "type 2 has an invalid prototype"),
}


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize(("add", "message"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_type_is_refused_with_its_id(
    add: Callable[[BtfWriter], object], message: str, byteorder: ByteOrder
) -> None:
    writer = BtfWriter()
    writer.add_int("int", 4)
    add(writer)
    with pytest.raises(InputError, match=message) as caught:
        Btf.from_bytes(writer.encode(byteorder), ".BTF")
    assert caught.value.where == ".BTF"


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("header_size", [24, 32, 100])
def test_every_kind_is_read_in_both_byte_orders(byteorder: ByteOrder, header_size: int) -> None:
    btf = Btf.from_bytes(every_kind().encode(byteorder, header_size=header_size))
    assert btf.byteorder == byteorder
    assert len(btf) == len(Kind)
    assert [btf.kind_of(kind) for kind in Kind] == list(Kind)
    assert all([t.id for t in btf.types_of_kind(kind)] == [kind] for kind in Kind if kind)
    assert btf.type_by_id(0) == VOID
    assert btf.type_by_id(4) == BtfType(4, "s", Kind.STRUCT, 2, kind_flag=False, third=8)
    assert btf.type_by_id(7) == BtfType(7, "later", Kind.FWD, 0, kind_flag=True, third=0)
    assert btf.members(4) == [Member("a", 1, 0), Member("b", 1, 32)]
    assert btf.secinfos(15) == [VarSecinfo(14, 0, 8)]
    assert [btf.extra_word(3, index) for index in range(3)] == [1, 1, 7]
    assert [len(entry) for entry in btf.entries(19)] == [3]


def test_the_empty_blob_has_void_only() -> None:
    btf = Btf.from_bytes(BtfBuilder().encode())
    assert len(btf) == 1
    assert btf.kind_of(0) is Kind.VOID


@pytest.mark.parametrize("type_id", [-1, 2, 1000])
def test_asking_for_a_type_that_is_not_there_is_refused(type_id: int) -> None:
    with pytest.raises(InputError, match=f"no type with id {type_id}"):
        Btf.from_bytes(small()).type_by_id(type_id)


def test_names_that_are_no_utf8_are_escaped() -> None:
    raw = small().replace(b"int", b"\xff\xfe!")
    assert Btf.from_bytes(raw).type_by_id(1).name == "\\xff\\xfe!"


def test_a_char_is_an_int_with_its_encoding() -> None:
    writer = BtfWriter()
    char = writer.add_encoded_int("char", 1, INT_CHAR)
    assert Btf.from_bytes(writer.encode()).extra_word(char) == INT_CHAR << 24 | 8
