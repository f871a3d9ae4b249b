"""After the end nothing acts on a fd: its number belongs to another file by then."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable
from typing import Any

import pytest

import bpfseal
from bpfseal.bpf.uapi import MapType
from bpfseal.errors import UsageError
from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.protocol import MapCreate
from bpfseal.skeleton import PerfBuffer, RingBuffer, Skeleton

from .support import KEY, needs_root, signed, unsigned

Operation = Callable[[Any], object]

OPERATIONS: dict[str, Operation] = {
    "map_fds": lambda skel: skel.map_fds,
    "prog_fds": lambda skel: skel.prog_fds,
    "attach": lambda skel: skel.attach(),
    "pin": lambda skel: skel.pin("/sys/fs/bpf/never"),
    "a variable is read": lambda skel: skel.bss.seen,
    "a variable is set": lambda skel: setattr(skel.bss, "seen", 1),
    "all variables": lambda skel: dict(skel.rodata),
    "map.fd": lambda skel: skel.maps.started.fd,
    "map.fileno": lambda skel: skel.maps.started.fileno(),
    "lookup": lambda skel: skel.maps.started.lookup(1),
    "get": lambda skel: skel.maps.started.get(1),
    "contains": lambda skel: 1 in skel.maps.started,
    "set": lambda skel: skel.maps.started.update(1, 2),
    "delete": lambda skel: skel.maps.started.pop(1, None),
    "iterate": lambda skel: list(skel.maps.started),
    "items": lambda skel: list(skel.maps.started.items()),
    "length": lambda skel: len(skel.maps.started),
    "take": lambda skel: skel.maps.started.take(1),
    "push": lambda skel: skel.maps.started.push(1),
    "raw": lambda skel: skel.maps.started.raw.lookup(bytes(4)),
    "raw iterate": lambda skel: list(skel.maps.started.raw),
    "raw set": lambda skel: skel.maps.started.raw.update(bytes(4), bytes(8)),
    "ring buffer": lambda skel: RingBuffer(skel.maps.events),
    "program.fd": lambda skel: skel.programs.on_exec.fd,
    "program.fileno": lambda skel: skel.programs.on_exec.fileno(),
    "program.attach": lambda skel: skel.programs.on_exec.attach(),
    "program.run": lambda skel: skel.programs.on_exec.run(),
}


def on_model() -> Skeleton:
    kernel = ModelKernel()
    kernel.keyrings.add_key(-3, KEY.certificate_der)
    return bpfseal.load(signed("exectrace", "kfunc"), kernel)


@pytest.mark.parametrize("touched_before", [False, True], ids=["new", "used"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_of_a_closed_skeleton_raises(name: str, *, touched_before: bool) -> None:
    skel = on_model()
    if touched_before:
        _ = (skel.maps, skel.sections, skel.bss.seen)
    skel.close()
    skel.close()
    kernel = skel.kernel
    assert isinstance(kernel, ModelKernel)
    before = len(kernel.trace)
    with pytest.raises(UsageError, match="is closed"):
        OPERATIONS[name](skel)
    assert len(kernel.trace) == before, "the kernel was asked about a fd that is not ours"


def test_an_iteration_that_goes_on_behind_the_end_raises() -> None:
    skel = on_model()
    skel.maps.started[1] = skel.maps.started[2] = 3
    keys = iter(skel.maps.started)
    next(keys)
    skel.close()
    with pytest.raises(UsageError, match="map started is closed"):
        next(keys)


@pytest.mark.parametrize("operation", ["fileno", "detach", "open", "read", "pin"])
def test_every_operation_of_a_closed_link_raises(operation: str) -> None:
    skel = on_model()
    link = skel.programs.on_exec.attach()
    skel.close()
    arguments = ("/sys/fs/bpf/never",) if operation == "pin" else ()
    with pytest.raises(UsageError, match=r"is closed|is no iterator"):
        getattr(link, operation)(*arguments)
    link.close()


def lab() -> Skeleton:
    return bpfseal.load(unsigned("maplab"), scheme="unsigned")


@needs_root
def test_the_number_of_a_closed_map_is_that_of_another_one_and_is_left_alone() -> None:
    kernel = LinuxKernel()
    skel = lab()
    numbers = skel.maps.numbers
    fd = numbers.fd
    skel.close()
    opened = []
    while fd not in opened:
        opened.append(kernel.map_create(MapCreate(MapType.ARRAY, "other", 4, 8, 8)))
    try:
        with pytest.raises(UsageError, match="map numbers is closed"):
            numbers[3] = 7
        with pytest.raises(UsageError, match="map numbers is closed"):
            _ = numbers[3]
        skel.close()
        assert kernel.map_lookup(fd, struct.pack("=I", 3), 8) == bytes(8)
    finally:
        for each in opened:
            kernel.close(each)


@needs_root
@pytest.mark.parametrize("what", ["reader", "skeleton"])
def test_every_operation_of_a_closed_ring_buffer_raises(what: str) -> None:
    skel = lab()
    messages = RingBuffer(skel.maps.messages)
    started = messages.read()
    skel.programs.send.run(ctx=struct.pack("=II", 3, 0))
    going_on = messages.read()
    next(going_on)
    (messages if what == "reader" else skel).close()
    for operation in (
        lambda: next(started),
        lambda: next(going_on),
        messages.read,
        messages.fileno,
        lambda: messages.wait(0),
        lambda: messages.poll(print, 0),
        lambda: next(iter(messages)),
    ):
        with pytest.raises(UsageError, match="is closed"):
            operation()
    messages.close()
    skel.close()


@needs_root
def test_who_waits_for_records_learns_of_the_end() -> None:
    async def main() -> None:
        with lab() as skel:
            messages = RingBuffer(skel.maps.messages)

            async def wait() -> None:
                async for _ in messages:
                    pass

            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0)
            number = messages.fileno()
            await asyncio.sleep(0)
            messages.close()
            with pytest.raises(UsageError, match="is closed"):
                await asyncio.wait_for(waiting, 5)
            assert not asyncio.get_running_loop().remove_reader(number)

    asyncio.run(main())


@needs_root
def test_every_operation_of_a_closed_perf_buffer_raises() -> None:
    with lab() as skel:
        names = [each.name for each in skel.maps.values() if each.type is MapType.PERF_EVENT_ARRAY]
        if not names or not os.access("/proc/self/fd", os.R_OK):
            pytest.skip("the example has no perf event array")
        samples = PerfBuffer(skel.maps[names[0]])
        started = samples.read()
        samples.close()
        for operation in (lambda: next(started), samples.read, samples.fileno):
            with pytest.raises(UsageError, match="is closed"):
                operation()
