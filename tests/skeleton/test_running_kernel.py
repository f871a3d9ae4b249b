"""Skeletons on the running kernel: maps, global data, programs that are run, none attached."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bpfseal
from bpfseal.errors import KernelError, UsageError
from bpfseal.skeleton import PerfBuffer, Record, RingBuffer, Skeleton

from .support import needs_root, open_fds, signed, unsigned

pytestmark = needs_root


def lab(**options: Any) -> Skeleton:
    return bpfseal.load(unsigned("maplab"), scheme="unsigned", **options)


@pytest.fixture(scope="module")
def shared() -> Iterator[Skeleton]:
    with lab() as skel:
        yield skel


@pytest.fixture
def skel(shared: Skeleton) -> Skeleton:
    """One skeleton for all tests, with the counters at zero and nothing in the ring."""
    shared.bss.sent = shared.bss.refused = 0
    with RingBuffer(shared.maps.messages) as messages:
        list(messages.read())
    return shared


def send(skel: Skeleton, count: int, discard_every: int = 0) -> int:
    return skel.programs.send.run(ctx=struct.pack("=II", count, discard_every)).retval


# Maps.


def test_a_hash_map_is_a_mapping(skel: Skeleton) -> None:
    shapes = skel.maps.shapes
    shapes[1] = {"name": "box", "color": "GREEN", "corners": [{"x": 3}]}
    shapes[2] = shapes[1]
    assert set(shapes) == {1, 2}
    assert shapes[2].corners[0] == {"x": 3, "y": 0}
    assert 3 not in shapes
    assert len(shapes) == 2
    assert shapes.get(3) is None
    del shapes[1]
    with pytest.raises(KeyError):
        del shapes[1]
    assert shapes.take(2).name == "box"
    assert dict(shapes.items()) == {}


def test_flags_say_whether_a_key_must_be_new(skel: Skeleton) -> None:
    shapes = skel.maps.shapes
    with pytest.raises(KernelError, match="ENOENT"):
        shapes.update(9, {}, flags=2)
    shapes.update(9, {}, flags=1)
    with pytest.raises(KernelError, match="EEXIST"):
        shapes.update(9, {}, flags=1)
    del shapes[9]


def test_keys_may_be_deleted_while_they_are_gone_through(skel: Skeleton) -> None:
    recent = skel.maps.recent
    for number in range(8):
        recent[f"key{number}"] = number
    for key in recent:
        del recent[key]
    assert list(recent) == []


def test_arrays_have_all_their_indices(skel: Skeleton) -> None:
    numbers = skel.maps.numbers
    numbers[3] = -5
    assert dict(numbers) == {index: -5 if index == 3 else 0 for index in range(8)}
    assert len(numbers) == 8
    assert 8 not in numbers
    with pytest.raises(KernelError, match="E2BIG"):
        numbers[8] = 1
    with pytest.raises(KernelError, match="EINVAL"):
        del numbers[3]


def test_per_cpu_maps_have_a_value_for_each_cpu(skel: Skeleton) -> None:
    cpus = skel.kernel.possible_cpus
    points = [{"x": number, "y": -number} for number in range(cpus)]
    skel.maps.per_cpu_points[7] = points
    assert skel.maps.per_cpu_points[7] == tuple(points)
    skel.maps.per_cpu[3] = range(cpus)
    assert skel.maps.per_cpu[3] == tuple(range(cpus))
    assert len(skel.maps.per_cpu.raw[struct.pack("=I", 3)]) == 8 * cpus
    with pytest.raises(UsageError, match=f"each of {cpus} CPUs"):
        skel.maps.per_cpu[3] = 1


def test_the_longest_prefix_matches(skel: Skeleton) -> None:
    routes = skel.maps.routes
    routes[{"length": 8, "address": [10]}] = 8
    routes[{"length": 24, "address": b"\x0a\x01\x02"}] = 24
    assert routes[{"length": 32, "address": [10, 1, 2, 3]}] == 24
    assert routes[{"length": 32, "address": [10, 9, 2, 3]}] == 8
    assert routes.lookup({"length": 32, "address": [11, 9, 2, 3]}) is None


def test_queues_and_stacks_have_ends_instead_of_keys(skel: Skeleton) -> None:
    queue, stack = skel.maps.queue, skel.maps.stack
    queue.value, stack.value = skel.codec("__u32"), skel.codec("point")
    for number in (4, 5):
        queue.push(number)
        stack.push({"x": number})
    assert (queue.peek(), queue.take(), queue.take()) == (4, 4, 5)
    assert (stack.peek().x, stack.take().x, stack.take().x) == (5, 5, 4)
    with pytest.raises(KeyError, match="queue is empty"):
        queue.take()
    with pytest.raises(UsageError, match="push, take and peek"):
        queue[0]
    with pytest.raises(UsageError, match="takes no such call"):
        skel.maps.numbers.peek()


def test_values_of_maps_of_maps_and_programs_are_given_as_objects(skel: Skeleton) -> None:
    skel.maps.tables[2] = skel.maps.numbers
    skel.maps.jumps[1] = skel.programs.keep
    assert list(skel.maps.tables) == [2]
    assert list(skel.maps.jumps) == [1]
    assert len(skel.maps.jumps) == 1
    del skel.maps.jumps[1]
    assert len(skel.maps.jumps) == 0


def test_a_map_that_is_memory_has_no_elements(skel: Skeleton) -> None:
    with pytest.raises(UsageError, match="read it with RingBuffer"):
        skel.maps.messages[0]


def test_raw_elements_are_bytes_of_the_right_size(skel: Skeleton) -> None:
    raw = skel.maps.numbers.raw
    raw[bytes(4)] = b"12345678"
    assert skel.maps.numbers[0] == int.from_bytes(b"12345678", sys.byteorder)
    with pytest.raises(UsageError, match="8 bytes of value, not 2"):
        raw[bytes(4)] = b"12"
    with pytest.raises(UsageError, match="4 bytes of key, not 1"):
        raw[b"1"]


# Global data.


def test_variables_are_live_in_both_directions(skel: Skeleton) -> None:
    assert send(skel, 3) == 0
    assert skel.bss.sent == 3
    skel.bss.sent = 40
    assert send(skel, 2) == 0
    assert skel.bss["sent"] == 42
    assert isinstance(skel.data.last, Record)
    skel.data.last = {"name": "disc"}
    assert skel.data.last.name == "disc"
    skel.data_filter.kept_bytes = 20
    assert skel.programs.keep.run(bytes(64)).retval == 20
    with pytest.raises(AttributeError, match="no variable 'snt'; there are: "):
        skel.bss.snt = 1


def test_read_only_variables_are_set_before_the_load() -> None:
    values = {"first_number": 100, "greeting": "hey"}
    with lab(rodata=values) as skel, RingBuffer(skel.maps.messages, "message") as messages:
        assert dict(skel.rodata) == values
        send(skel, 1)
        (message,) = messages.read()
        assert (message.number, message.text) == (100, "hey")
        with pytest.raises(UsageError, match="read-only since the load"):
            skel.rodata.first_number = 3


def test_sizes_of_maps_are_set_before_the_load() -> None:
    with lab(max_entries={"numbers": 3, "messages": 8192}) as skel:
        assert len(skel.maps.numbers) == len(dict(skel.maps.numbers)) == 3
        with RingBuffer(skel.maps.messages) as messages:
            assert send(skel, 255) == 0
            assert sum(1 for _ in messages.read()) == 255


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"rodata": {"sent": 1}}, "no read-only variable sent"),
        ({"rodata": {"first_number": -1}}, "first_number: -1 does not fit 32 unsigned bits"),
        ({"max_entries": {"nothing": 1}}, "no map 'nothing'"),
        ({"max_entries": {"numbers": 0}}, "cannot have 0 entries"),
    ],
)
def test_host_values_are_checked_before_the_load(options: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        lab(**options)


@pytest.mark.parametrize("scheme", ["loadtime", "inline"])
def test_a_signature_that_fixes_the_values_is_not_passed_over(scheme: str) -> None:
    with pytest.raises(UsageError, match=f"a loader of scheme {scheme} takes no values"):
        bpfseal.load(signed("maplab", scheme), scheme=scheme, rodata={"first_number": 2})


# Ring buffer.


def test_records_come_in_order_without_those_discarded(skel: Skeleton) -> None:
    with RingBuffer(skel.maps.messages, "message") as messages:
        send(skel, 7, 3)
        assert [message.number for message in messages.read()] == [2, 3, 5, 6]
        assert list(messages.read()) == []


def test_records_are_whole_where_the_ring_wraps(skel: Skeleton) -> None:
    with RingBuffer(skel.maps.messages, "message") as messages:
        for _ in range(100):  # 24 bytes each, 4096 bytes of ring
            assert send(skel, 113) == 0
            assert [message.number for message in messages.read()] == list(range(1, 114))


def test_a_full_ring_refuses_until_somebody_reads(skel: Skeleton) -> None:
    with RingBuffer(skel.maps.messages) as messages:
        assert send(skel, 200) == 1
        assert skel.bss.refused == 1
        assert sum(1 for _ in messages.read()) == skel.bss.sent
        assert send(skel, 10) == 0


def test_poll_waits_and_counts(skel: Skeleton) -> None:
    with RingBuffer(skel.maps.messages, "message") as messages:
        seen: list[Record] = []
        assert messages.poll(seen.append, timeout=0.01) == 0
        send(skel, 5)
        assert messages.poll(seen.append, timeout=5) == 5
        assert seen[4].number == 5


def test_an_iterator_goes_on_for_ever(skel: Skeleton) -> None:
    with RingBuffer(skel.maps.messages, "message") as messages:
        numbers = []
        send(skel, 2)
        for message in messages:
            numbers.append(message.number)
            if len(numbers) == 2:
                send(skel, 1)
            if len(numbers) == 3:
                break
        assert numbers == [1, 2, 1]


def test_asyncio_lets_other_tasks_run(skel: Skeleton) -> None:
    async def collect() -> list[int]:
        async def act() -> None:
            for _ in range(3):
                await asyncio.sleep(0.01)
                send(skel, 2)

        task = asyncio.create_task(act())
        numbers = []
        async for message in messages:
            numbers.append(message.number)
            if len(numbers) == 6:
                break
        await task
        return numbers

    with RingBuffer(skel.maps.messages, "message") as messages:
        assert asyncio.run(asyncio.wait_for(collect(), 10)) == [1, 2] * 3


def test_a_reader_wants_its_type_of_map_and_a_known_struct(skel: Skeleton) -> None:
    before = open_fds()
    with pytest.raises(UsageError, match="numbers is a ARRAY, not a RINGBUF"):
        RingBuffer(skel.maps.numbers)
    with pytest.raises(UsageError, match="no type 'massage'"):
        RingBuffer(skel.maps.messages, "massage")
    with pytest.raises(UsageError, match="not a PERF_EVENT_ARRAY"):
        PerfBuffer(skel.maps.messages)
    with pytest.raises(UsageError, match="3 pages are no power of two"):
        PerfBuffer(skel.maps.samples, pages=3)
    assert open_fds() == before


# Perf buffer: a socket filter that is run sends samples.


def test_samples_come_with_their_cpu(skel: Skeleton) -> None:
    with PerfBuffer(skel.maps.samples, "message") as samples:
        skel.programs.keep.run(bytes(100), repeat=3)
        seen = list(samples.read())
        assert [sample.value.number for sample in seen] == [86] * 3
        assert all(sample.cpu == sample.value.cpu for sample in seen)
        assert samples.poll(seen.append, timeout=0.01) == 0


def test_samples_are_whole_where_the_ring_wraps_and_lost_ones_are_counted(skel: Skeleton) -> None:
    with PerfBuffer(skel.maps.samples, "message", pages=1) as samples:
        for _ in range(20):
            skel.programs.keep.run(bytes(100), repeat=50)
            assert [sample.value.text for sample in samples.read()] == ["hello"] * 50
        assert samples.lost == 0
        skel.programs.keep.run(bytes(100), repeat=1000)
        kept = sum(1 for _ in samples.read())
        skel.programs.keep.run(bytes(100))
        kept += sum(1 for _ in samples.read())
        assert kept + samples.lost == 1001
        assert samples.lost > 0


# Life and death.


def test_closing_gives_everything_back_and_may_be_repeated() -> None:
    before = open_fds()
    for _ in range(20):
        with lab() as skel:
            dict(skel.bss)
            skel.maps.numbers[0] = 1
            reader = RingBuffer(skel.maps.messages)
            list(reader.read())
            reader.close()
            reader.close()
        skel.close()
    assert open_fds() == before


def test_a_program_that_no_link_attaches_says_so(skel: Skeleton) -> None:
    with pytest.raises(UsageError, match="type SOCKET_FILTER is not attached by a link"):
        skel.programs.keep.attach()
    assert skel.attach() == ()


def test_pins_outlive_the_skeleton(tmp_path: Path) -> None:
    with lab() as skel, pytest.raises(BaseException, match="bpffs"):
        skel.pin(tmp_path / "pins")
    assert list(tmp_path.iterdir()) == []
    script = (
        "import os, sys; from pathlib import Path; import bpfseal\n"
        "from skeleton.test_running_kernel import lab\n"
        "with lab() as skel:\n"
        "    kernel, paths = skel.kernel, skel.pin(sys.argv[1] + '/lab')\n"
        "    skel.bss.sent = 7\n"
        "fd = kernel.open_pinned(sys.argv[1] + '/lab/maps/bss')\n"
        "print(len(paths), (7).to_bytes(8, sys.byteorder) in kernel.map_lookup(fd, bytes(4), 24))\n"
    )
    command = f'mount -t bpf bpf {tmp_path} && exec "$0" -c "$1" {tmp_path}'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command, sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"no bpffs of its own can be mounted: {done.stderr.strip()}")
    assert done.stdout == "19 True\n", done.stderr
