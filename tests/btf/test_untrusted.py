"""Damaged BTF: only errors of this project come out, and what is accepted can be read whole."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfseal.btf.btf import Btf
from bpfseal.errors import BpfsealError
from fuzz.limits import Kind
from support.btf_reading import read_everything
from support.fuzzing import require_no_findings

COUNT = 1500


@pytest.mark.parametrize("name", ["btf", "btf-types", "btf-ext"])
def test_damaged_btf_raises_only_our_errors(name: str) -> None:
    kinds = require_no_findings(name, COUNT, seed=100)
    assert kinds[Kind.ACCEPTED] > COUNT // 20, "the damage is too heavy to reach the look-ups"


@given(st.binary(max_size=200))
def test_noise_behind_a_good_header_raises_only_our_errors(noise: bytes) -> None:
    header = b"\x9f\xeb\1\0" + (24).to_bytes(4, "little") + bytes(4)
    size = len(noise) // 2 // 4 * 4
    sizes = (size, size, len(noise) - size)
    with contextlib.suppress(BpfsealError):
        fields = b"".join(value.to_bytes(4, "little") for value in sizes)
        read_everything(Btf.from_bytes(header + fields + noise))
