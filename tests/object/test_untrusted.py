"""Damaged objects: only errors of this project come out, of reading and of generating."""

from __future__ import annotations

import pytest

from fuzz.limits import Kind
from support.fuzzing import require_no_findings

COUNT = 800


@pytest.mark.parametrize("seed", range(2))
def test_damaged_objects_raise_only_our_errors(seed: int) -> None:
    kinds = require_no_findings("object-kfunc", COUNT, seed + 100)
    assert kinds[Kind.ACCEPTED] > COUNT // 10, "the damage is too heavy to reach the generator"
