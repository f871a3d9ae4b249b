"""Damaged BTF: only errors of this project come out, and what is accepted can be read whole."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfseal.bpf.insn import ByteOrder
from bpfseal.btf.btf import Btf
from bpfseal.btf.ext import BtfExt
from bpfseal.btf.kinds import FIXED_WORDS, MEMBER_WORDS, Kind
from bpfseal.errors import BpfsealError
from bpfseal.loader.checks import LOADER_BTF
from support.files import EXAMPLE
from support.fuzz import mutations

from .test_ext import sample
from .test_parse import every_kind


def read_everything(btf: Btf) -> None:
    """Use every look-up on every type."""
    for type_id in range(len(btf)):
        described = btf.type_by_id(type_id)
        btf.find(described.name, described.kind)
        if described.kind in (Kind.STRUCT, Kind.UNION):
            btf.members(type_id)
        elif described.kind is Kind.DATASEC:
            btf.secinfos(type_id)
        elif described.kind in MEMBER_WORDS:
            assert len(list(btf.entries(type_id))) == described.vlen
        elif described.kind in FIXED_WORDS:
            btf.extra_word(type_id, FIXED_WORDS[described.kind] - 1)
        for measure in (btf.skip_modifiers, btf.resolve_size, btf.align_of):
            with contextlib.suppress(BpfsealError):
                measure(type_id)


BLOBS = {
    "loader BTF": LOADER_BTF,
    "every kind": every_kind().encode(),
    "every kind, big-endian": every_kind().encode("big"),
}


@pytest.mark.parametrize("name", BLOBS)
def test_damaged_btf_raises_only_our_errors(name: str) -> None:
    accepted = 0
    for damaged in mutations(BLOBS[name], 1500, seed=1):
        with contextlib.suppress(BpfsealError):
            btf = Btf.from_bytes(damaged)
            accepted += 1
            read_everything(btf)
    assert accepted > 50, "the damage is too heavy to reach the look-ups"


def test_damaged_btf_of_a_compiler_raises_only_our_errors() -> None:
    data = EXAMPLE.read_bytes()
    start = data.index(b"\x9f\xeb\1\0")
    whole = data[start:]
    size = 24 + sum(int.from_bytes(whole[at : at + 4], "little") for at in (12, 20))
    for damaged in mutations(whole[:size], 300, seed=2):
        with contextlib.suppress(BpfsealError):
            read_everything(Btf.from_bytes(damaged))


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_damaged_btf_ext_raises_only_our_errors(byteorder: ByteOrder) -> None:
    btf, raw = sample(byteorder)
    for damaged in mutations(raw, 1500, seed=3):
        with contextlib.suppress(BpfsealError):
            BtfExt.from_bytes(damaged, btf)


@given(st.binary(max_size=200))
def test_noise_behind_a_good_header_raises_only_our_errors(noise: bytes) -> None:
    header = b"\x9f\xeb\1\0" + (24).to_bytes(4, "little") + bytes(4)
    size = len(noise) // 2 // 4 * 4
    sizes = (size, size, len(noise) - size)
    with contextlib.suppress(BpfsealError):
        fields = b"".join(value.to_bytes(4, "little") for value in sizes)
        read_everything(Btf.from_bytes(header + fields + noise))
