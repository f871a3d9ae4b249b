"""Damaged objects: only errors of this project come out, of reading and of generating."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from bpfseal.errors import BpfsealError
from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.object.target import TargetValues
from support.files import EXAMPLE
from support.fuzz import mutations
from support.samples import everything

TARGET = TargetValues(kconfig={"CONFIG_HZ": "250"})

OBJECTS: dict[str, tuple[Callable[[], bytes], int]] = {
    "example": (EXAMPLE.read_bytes, 700),
    "everything": (lambda: everything().encode(), 700),
    "everything, big-endian": (lambda: everything("big").encode(), 400),
}


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("seed", range(2))
def test_damaged_objects_raise_only_our_errors(name: str, seed: int) -> None:
    make, count = OBJECTS[name]
    generated = 0
    for damaged in mutations(make(), count, seed):
        with contextlib.suppress(BpfsealError):
            generate(read_object(damaged, "damaged.bpf.o", TARGET), "kfunc")
            generated += 1
    assert generated > count // 10, "the damage is too heavy to reach the generator"
