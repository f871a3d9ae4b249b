"""Packing and unpacking of ``union bpf_attr``."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfseal.bpf import attr
from bpfseal.bpf.attr import AttrLayout

LAYOUTS = {name: value for name, value in vars(attr).items() if isinstance(value, AttrLayout)}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_fields_do_not_overlap_and_are_aligned(layout: AttrLayout) -> None:
    end = 0
    for field in layout.fields.values():
        assert field.offset >= end
        assert field.is_bytes or field.offset % field.size == 0
        end = field.end
    assert layout.size == end


@given(st.sampled_from(list(LAYOUTS.values())), st.data())
def test_numbers_are_read_back_as_they_were_packed(layout: AttrLayout, data: st.DataObject) -> None:
    values: dict[str, Any] = {
        name: data.draw(
            st.integers(-(1 << 8 * field.size - 1), (1 << 8 * field.size - 1) - 1)
            if field.signed
            else st.integers(0, (1 << 8 * field.size) - 1)
        )
        for name, field in layout.fields.items()
        if not field.is_bytes
    }
    assert layout.unpack(layout.pack(**values)) == values


def test_fields_that_are_not_named_are_zero() -> None:
    packed = attr.PROG_LOAD.pack(insn_cnt=2)
    assert packed == b"\0\0\0\0\2\0\0\0".ljust(attr.PROG_LOAD.size, b"\0")


def test_big_endian_numbers_stand_at_the_same_offsets() -> None:
    assert attr.MAP_CREATE.pack(size=8, byteorder="big", key_size=4).hex() == "0000000000000004"


def test_a_negative_number_is_its_twos_complement() -> None:
    packed = attr.PROG_LOAD.pack(keyring_id=-3)
    assert packed[attr.PROG_LOAD.offset("keyring_id") :] == b"\xfd\xff\xff\xff"
    assert attr.PROG_LOAD.unpack(packed)["keyring_id"] == -3


@pytest.mark.parametrize("value", [1 << 32, -(1 << 31) - 1])
def test_a_number_that_does_not_fit_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="does not fit map_fd"):
        attr.MAP_FREEZE.pack(map_fd=value)


def test_a_field_behind_the_asked_size_is_refused() -> None:
    with pytest.raises(ValueError, match="field map_extra lies behind 64 bytes"):
        attr.MAP_CREATE.pack(size=64, map_extra=1)


def test_a_field_that_the_asked_size_cuts_is_refused() -> None:
    with pytest.raises(ValueError, match="key_size"):
        attr.MAP_CREATE.pack(size=6, key_size=1)


@given(st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"_")))
def test_a_name_is_cut_so_that_a_zero_remains(name: bytes) -> None:
    packed = attr.MAP_CREATE.pack(map_name=name)
    assert packed[28:44] == name[:15].ljust(16, b"\0")


def test_a_name_reads_up_to_its_first_zero() -> None:
    packed = attr.MAP_CREATE.pack(map_name=b"ab\0cd")
    assert attr.MAP_CREATE.name_field(packed, "map_name") == "ab"


@given(st.integers(0, attr.PROG_LOAD.size))
def test_fields_behind_the_end_of_short_data_read_as_zero(size: int) -> None:
    full = attr.PROG_LOAD.unpack(b"\1" * attr.PROG_LOAD.size)
    for name, value in attr.PROG_LOAD.unpack(b"\1" * size).items():
        if attr.PROG_LOAD.end(name) <= size:
            assert value == full[name]
        if attr.PROG_LOAD.offset(name) >= size:
            assert value == 0
