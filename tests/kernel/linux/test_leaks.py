"""After many loads, and after processes that died in one, the running kernel holds what it held.

Unsigned loaders with a socket filter and maps only; nothing attaches.
"""

from __future__ import annotations

import os
import random
import time
from functools import partial

import pytest

from bpfseal.bpf.uapi import MapType
from bpfseal.bundle.model import SignedLoader
from bpfseal.errors import KernelError
from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.loader import generate
from support.kernel_objects import (
    doomed,
    kernel_objects,
    killed_child,
    left_behind,
    load_and_close,
    open_fds,
)
from support.object_writer import ObjectWriter

CYCLES = 200
RANDOM_KILLS = 30


@pytest.fixture(scope="module")
def signed() -> SignedLoader:
    writer = ObjectWriter()
    writer.add_program("socket", "filter")
    writer.add_map("leaks_hash", type=MapType.HASH, key_size=4, value_size=8, max_entries=4)
    writer.add_map("leaks_ring", type=MapType.RINGBUF, max_entries=4096)
    writer.add_variable("level", ".rodata", (7).to_bytes(4, "little"))
    loader = SignedLoader(generate(writer.read(), "unsigned"))
    try:
        load_and_close(LinuxKernel(), loader)
    except KernelError as error:
        pytest.skip(f"this process may not load BPF programs ({error.errno_name})")
    return loader


def load_forever(signed: SignedLoader) -> None:
    kernel = LinuxKernel()
    while True:
        load_and_close(kernel, signed)


def test_200_loads_leave_nothing_behind(signed: SignedLoader) -> None:
    before, fds, kernel = kernel_objects(), open_fds(), LinuxKernel()
    for _ in range(CYCLES):
        load_and_close(kernel, signed)
    assert open_fds() == fds
    assert left_behind(before) == []


def test_what_is_loaded_is_seen_until_it_is_closed(signed: SignedLoader) -> None:
    """The counting does see the maps and programs of a load."""
    before = kernel_objects()
    kinds: list[str] = []

    class Watched(LinuxKernel):
        def close(self, fd: int) -> None:
            kinds.extend(sorted(kernel_objects() - before))
            super().close(fd)

    load_and_close(Watched(), signed)
    assert {kind.split()[0] for kind in kinds} >= {"map", "prog", "btf"}


def test_a_process_killed_behind_any_call_leaves_nothing_behind(signed: SignedLoader) -> None:
    before = kernel_objects()
    calls = 0
    while killed_child(partial(load_and_close, doomed(LinuxKernel(), calls + 1), signed)):
        calls += 1
    assert calls >= 5
    assert left_behind(before) == []


def test_a_process_killed_at_any_moment_leaves_nothing_behind(signed: SignedLoader) -> None:
    before = kernel_objects()
    started = time.perf_counter()
    load_and_close(LinuxKernel(), signed)
    usual = time.perf_counter() - started
    chance = random.Random(7)  # noqa: S311 (nothing secret)
    moments = [0.01 + chance.uniform(0, 2 * usual) for _ in range(RANDOM_KILLS)]
    assert all(killed_child(partial(load_forever, signed), after=moment) for moment in moments)
    assert left_behind(before) == []


def test_this_process_is_not_the_one_that_is_killed() -> None:
    assert not killed_child(lambda: None)
    assert killed_child(lambda: os.kill(os.getpid(), 9))
