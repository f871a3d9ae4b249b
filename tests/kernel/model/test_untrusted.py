"""Loaders from anywhere: whatever they hold, only bpfseal's own errors come out."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from bpfseal.bpf.uapi import MapType
from bpfseal.bundle.model import SignedLoader
from bpfseal.errors import BpfsealError, KernelError
from bpfseal.kernel.load import load
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.protocol import MapCreate
from bpfseal.loader import generate
from bpfseal.loader.model import Loader
from bpfseal.object import read_object

from ..support import make_loader

EXAMPLE = Path(__file__).parents[3] / "examples" / "exectrace.bpf.o"
CHANCE = random.Random(20260522)  # noqa: S311 - not for keys


def without_check(loader: Loader) -> Loader:
    """Return a loader whose kfunc call is a plain success, so that its body runs unsigned."""
    insns = bytearray(loader.insns)
    for at in range(0, len(insns), 8):
        if insns[at] == 0x85 and insns[at + 1] >> 4 == 3:
            insns[at : at + 8] = bytes.fromhex("b700000000000000")
    return replace(loader, insns=bytes(insns))


@pytest.fixture(scope="module")
def example() -> Loader:
    return without_check(generate(read_object(EXAMPLE.read_bytes(), EXAMPLE.name), "kfunc"))


def flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(CHANCE.randrange(1, 4)):
        changed[CHANCE.randrange(len(changed))] = CHANCE.choice((0, 1, 0x7F, 0x80, 0xFF))
    return bytes(changed)


def attempt(loader: Loader) -> None:
    """Load unsigned; an error must be bpfseal's own."""
    kernel = ModelKernel()
    with suppress(BpfsealError):
        load(kernel, SignedLoader(loader), unsigned=True, check_metadata=False)


def test_without_its_check_the_example_loads_unsigned(example: Loader) -> None:
    kernel = ModelKernel()
    load(kernel, SignedLoader(example), unsigned=True, check_metadata=False)
    assert [program.name for program in kernel.programs[1:]] == ["on_exec", "on_exit"]


def test_changed_metadata_of_a_real_loader(example: Loader) -> None:
    for _ in range(150):
        attempt(replace(example, metadata=flipped(example.metadata)))


def test_changed_insns_of_a_real_loader(example: Loader) -> None:
    for _ in range(150):
        attempt(replace(example, insns=flipped(example.insns)))


def test_random_insns() -> None:
    for _ in range(200):
        insns = CHANCE.randbytes(8 * CHANCE.randrange(1, 30))
        attempt(make_loader(insns))


def test_changed_loader_btf() -> None:
    good = make_loader()
    for _ in range(100):
        attempt(replace(good, btf=flipped(good.btf)))


def test_an_array_that_is_larger_than_the_model_keeps_is_enomem() -> None:
    kernel = ModelKernel()
    fd = kernel.map_create(MapCreate(MapType.ARRAY, "large", 4, 64 << 20, 1000))
    with pytest.raises(KernelError) as refused:
        kernel.map_update(fd, bytes(4), bytes(64 << 20))
    assert refused.value.errno_name == "ENOMEM"
