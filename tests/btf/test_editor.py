"""Editing BTF: in place as long as no type is added."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfseal.bpf.insn import ByteOrder
from bpfseal.btf.btf import Btf, VarSecinfo
from bpfseal.btf.builder import BtfEditor
from bpfseal.btf.kinds import Kind, Linkage
from support.btf_writer import BtfWriter

BYTE_ORDERS = ("little", "big")


def sample(byteorder: ByteOrder, header_size: int = 24) -> tuple[Btf, int, int, int]:
    """A blob with an INT, a VAR, a FUNC and a DATASEC; returns the ids of the last three."""
    writer = BtfWriter()
    number = writer.add_int("int", 4)
    var = writer.add_var("v", number, Linkage.EXTERN)
    func = writer.add_func("f", writer.add_func_proto(0, []), Linkage.EXTERN)
    datasec = writer.add_datasec(".data", [(var, 0, 4), (var, 0, 4)])
    raw = writer.encode(byteorder, header_size=header_size)
    return Btf.from_bytes(raw), var, func, datasec


def assert_reads_back(edited: Btf) -> None:
    """The bytes of an edited blob say the same as the value does."""
    parsed = Btf.from_bytes(edited.raw)
    assert list(parsed.words) == list(edited.words)
    assert list(parsed.starts) == list(edited.starts)
    assert parsed.strings == edited.strings
    assert [parsed.kind_of(i) for i in range(len(parsed))] == [
        edited.kind_of(i) for i in range(len(edited))
    ]


@pytest.mark.parametrize("byteorder", BYTE_ORDERS)
@pytest.mark.parametrize("header_size", [24, 32])
def test_without_edits_the_bytes_stay(byteorder: ByteOrder, header_size: int) -> None:
    btf, *_ = sample(byteorder, header_size)
    assert BtfEditor(btf).finish().raw == btf.raw


@pytest.mark.parametrize("byteorder", BYTE_ORDERS)
def test_edits_in_place_change_only_the_words_concerned(byteorder: ByteOrder) -> None:
    btf, var, func, datasec = sample(byteorder)
    editor = BtfEditor(btf)
    editor.set_vlen(func, Linkage.GLOBAL)
    editor.set_var_linkage(var, Linkage.GLOBAL)
    editor.set_third(datasec, 8)
    editor.set_secinfos(datasec, [(var, 0, 4), (var, 4, 4)])
    edited = editor.finish()
    assert_reads_back(edited)
    assert edited.type_by_id(func).vlen == Linkage.GLOBAL
    assert edited.extra_word(var) == Linkage.GLOBAL
    assert edited.type_by_id(datasec).third == 8
    assert edited.secinfos(datasec) == [VarSecinfo(var, 0, 4), VarSecinfo(var, 4, 4)]
    changed = [old != new for old, new in zip(btf.words, edited.words, strict=True)]
    assert sum(changed) == 4
    assert edited.raw[: btf.types_offset] == btf.raw[: btf.types_offset]
    assert edited.strings == btf.strings


def test_the_edited_btf_stays_as_it_was() -> None:
    btf, var, _, _ = sample("little")
    before = btf.raw, list(btf.words)
    editor = BtfEditor(btf)
    editor.set_third(var, 0)
    editor.add_var("new", 1, Linkage.GLOBAL)
    editor.finish()
    assert (btf.raw, list(btf.words)) == before


@pytest.mark.parametrize("byteorder", BYTE_ORDERS)
@pytest.mark.parametrize("header_size", [24, 32])
def test_an_added_var_follows_the_other_types(byteorder: ByteOrder, header_size: int) -> None:
    btf, *_ = sample(byteorder, header_size)
    editor = BtfEditor(btf)
    added = editor.add_var("dummy_ksym", 1, Linkage.GLOBAL)
    edited = editor.finish()
    assert added == len(btf)
    assert_reads_back(edited)
    assert edited.type_by_id(added).name == "dummy_ksym"
    assert edited.type_by_id(added).kind is Kind.VAR
    assert edited.extra_word(added) == Linkage.GLOBAL
    assert edited.types_offset == header_size
    assert edited.strings == btf.strings + b"dummy_ksym\0"
    assert len(edited.raw) == header_size + 4 * len(edited.words) + len(edited.strings)


def test_an_added_var_uses_a_name_that_is_there() -> None:
    btf, *_ = sample("little")
    editor = BtfEditor(btf)
    added = editor.add_var("f", 1, Linkage.GLOBAL)
    edited = editor.finish()
    assert edited.strings == btf.strings
    assert edited.type_by_id(added).name == "f"


def test_the_end_of_another_name_is_no_name() -> None:
    writer = BtfWriter()
    writer.add_int("uint", 4)
    editor = BtfEditor(Btf.from_bytes(writer.encode()))
    added = editor.add_var("int", 1, Linkage.GLOBAL)
    assert editor.finish().strings == b"\0uint\0int\0"
    assert added == 2


@given(st.integers(0, 0xFFFFFF), st.sampled_from(BYTE_ORDERS))
def test_setting_vlen_keeps_kind_and_flag(vlen: int, byteorder: ByteOrder) -> None:
    btf, _, func, _ = sample(byteorder)
    editor = BtfEditor(btf)
    editor.words[editor.start(func) + 1] |= 1 << 31
    editor.set_vlen(func, vlen)
    described = editor.finish().type_by_id(func)
    assert (described.kind, described.vlen, described.kind_flag) == (Kind.FUNC, vlen, True)
