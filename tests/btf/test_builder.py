"""Building BTF: the bytes of the reference library."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from bpfseal.btf.btf import Btf
from bpfseal.btf.builder import BtfBuilder
from bpfseal.btf.kinds import Kind, Linkage
from bpfseal.loader.checks import LOADER_BTF, VERIFY_KFUNC_ID

NAMES = st.text("abcxyz_", min_size=1, max_size=6)


def test_the_loader_btf_has_this_layout() -> None:
    strings = b"\0int\0map\0hash\0bpf_loader_verify_metadata\0"
    header = struct.pack("<HBBIIIIIII", 0xEB9F, 1, 0, 32, 0, 68, 68, 41, 0, 0)
    types = struct.pack(
        "<17I",
        *(1, Kind.INT << 24, 4, 1 << 24 | 32),
        *(0, Kind.PTR << 24, 0),
        *(0, Kind.FUNC_PROTO << 24 | 2, 1, 5, 2, 9, 2),
        *(14, Kind.FUNC << 24 | Linkage.GLOBAL, 3),
    )
    assert header + types + strings == LOADER_BTF
    assert len(LOADER_BTF) == 141
    assert VERIFY_KFUNC_ID == 4


def test_the_empty_builder_makes_a_header_and_one_zero() -> None:
    assert (
        BtfBuilder().encode() == struct.pack("<HBB7I", 0xEB9F, 1, 0, 32, *[0] * 3, 1, 0, 0) + b"\0"
    )


def test_a_string_is_stored_once() -> None:
    builder = BtfBuilder()
    builder.add_typedef("name", builder.add_int("name", 4))
    assert Btf.from_bytes(builder.encode()).strings == b"\0name\0"


@given(st.lists(st.tuples(NAMES, st.integers(1, 16)), max_size=10))
def test_what_is_built_is_read_back(wanted: list[tuple[str, int]]) -> None:
    builder = BtfBuilder()
    numbers = [builder.add_int(name, size) for name, size in wanted]
    members = [
        (name, type_id, 64 * at)
        for at, ((name, _), type_id) in enumerate(zip(wanted, numbers, strict=True))
    ]
    struct_id = builder.add_struct("all", 64, members)
    params = [(name, type_id) for name, type_id, _ in members]
    func = builder.add_func("f", builder.add_func_proto(struct_id, params), Linkage.EXTERN)
    alias = builder.add_typedef("alias", builder.add_ptr(struct_id))
    btf = Btf.from_bytes(builder.encode())
    assert [(t.name, t.third) for t in btf.types_of_kind(Kind.INT)] == wanted
    assert [tuple(member) for member in btf.members(struct_id)] == members
    proto = btf.type_by_id(btf.type_by_id(func).third)
    assert [(btf.string(name), type_id) for name, type_id in btf.entries(proto.id)] == params
    assert btf.type_by_id(func)[1:4] == ("f", Kind.FUNC, Linkage.EXTERN)
    assert btf.type_by_id(btf.skip_modifiers(alias).third).name == "all"
