"""Elements of maps: the model answers as this machine's kernel does, call by call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from bpfseal.bpf.uapi import MapFlag, MapType
from bpfseal.errors import KernelError, errno_name
from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.kernel.protocol import MapCreate, MapKernel

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="making BPF maps needs root")

ANY, NOEXIST, EXIST = 0, 1, 2
KEYS = [number.to_bytes(4, "little") for number in range(4)]
NO_KEY = b""

MAPS: dict[str, MapCreate] = {
    "array": MapCreate(MapType.ARRAY, "m", 4, 5, 3),
    "array of one": MapCreate(MapType.ARRAY, "m", 4, 8, 1, MapFlag.MMAPABLE),
    "percpu array": MapCreate(MapType.PERCPU_ARRAY, "m", 4, 5, 3),
    "hash": MapCreate(MapType.HASH, "m", 4, 8, 3),
    "hash without room": MapCreate(MapType.HASH, "m", 4, 8, 1),
    "percpu hash": MapCreate(MapType.PERCPU_HASH, "m", 4, 12, 3),
    "lru hash": MapCreate(MapType.LRU_HASH, "m", 4, 8, 64),
    "trie": MapCreate(MapType.LPM_TRIE, "m", 8, 4, 3, MapFlag.NO_PREALLOC),
    "queue": MapCreate(MapType.QUEUE, "m", 0, 4, 2),
    "stack": MapCreate(MapType.STACK, "m", 0, 4, 2),
    "ring buffer": MapCreate(MapType.RINGBUF, "m", 0, 0, 4096),
    "user ring buffer": MapCreate(MapType.USER_RINGBUF, "m", 0, 0, 4096),
    "bloom filter": MapCreate(MapType.BLOOM_FILTER, "m", 0, 4, 2),
    "program array": MapCreate(MapType.PROG_ARRAY, "m", 4, 4, 2),
    "event array": MapCreate(MapType.PERF_EVENT_ARRAY, "m", 4, 4, 2),
    "cgroup array": MapCreate(MapType.CGROUP_ARRAY, "m", 4, 4, 2),
    "stacks": MapCreate(MapType.STACK_TRACE, "m", 4, 64, 2),
    "read-only": MapCreate(MapType.HASH, "m", 4, 8, 3, MapFlag.RDONLY),
    "write-only": MapCreate(MapType.HASH, "m", 4, 8, 3, MapFlag.WRONLY),
}


def told(call: Callable[[], object]) -> str:
    """Return what a call came to, as text."""
    try:
        answer = call()
    except KernelError as error:
        return errno_name(error.errno)
    return answer.hex() if isinstance(answer, bytes) else str(answer)


def answers(kernel: MapKernel, request: MapCreate) -> Iterator[str]:
    """Yield what each call of a fixed list comes to."""
    fd = kernel.map_create(request)
    is_percpu = request.type in (MapType.PERCPU_ARRAY, MapType.PERCPU_HASH)
    copies = kernel.possible_cpus if is_percpu else 1
    unit = (request.value_size + 7) & ~7 if is_percpu else request.value_size
    size = unit * copies
    keys = KEYS if request.key_size else [NO_KEY]
    if request.type == MapType.LPM_TRIE:
        keys = [(8).to_bytes(4, "little") + key for key in KEYS]
        keys.append((33).to_bytes(4, "little") + KEYS[0])
    values = [bytes([number] * unit) * copies for number in range(1, 4)]

    def look(key: bytes) -> bytes | None:
        return _first(kernel.map_lookup(fd, key, size), unit)

    def pop(key: bytes) -> bytes | None:
        return _first(kernel.map_lookup_and_delete(fd, key, size), unit)

    def has_first() -> bool:
        return kernel.map_next_key(fd, None, max(request.key_size, 4)) is not None

    calls: list[tuple[str, Callable[[], object]]] = []
    for key in keys:
        for flags in (EXIST, ANY, NOEXIST, 3):
            update = partial(kernel.map_update, fd, key, values[flags % 3], flags)
            calls.append((f"update {key.hex()} {flags}", update))
        calls.append((f"lookup {key.hex()}", partial(look, key)))
    calls.append(("first key", has_first))
    if request.type in (MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.PROG_ARRAY):
        calls += [(f"next {key.hex()}", partial(kernel.map_next_key, fd, key, 4)) for key in keys]
    for key in keys[:2]:
        calls.append((f"pop {key.hex()}", partial(pop, key)))
        calls.append((f"delete {key.hex()}", partial(kernel.map_delete, fd, key)))
        calls.append((f"lookup {key.hex()}", partial(look, key)))
    calls += [
        ("freeze", partial(kernel.map_freeze, fd)),
        ("update when frozen", partial(kernel.map_update, fd, keys[0], values[0])),
        ("pop when frozen", partial(pop, keys[0])),
    ]
    for name, call in calls:
        yield f"{name}: {told(call)}"
    kernel.close(fd)


def _first(value: bytes | None, unit: int) -> bytes | None:
    """Return the value of the first CPU: machines have different numbers of them."""
    return value if value is None else value[:unit]


@pytest.mark.parametrize("request_", MAPS.values(), ids=MAPS)
def test_the_model_answers_as_this_machines_kernel(request_: MapCreate) -> None:
    model = ModelKernel(profile=PROFILES["6.18"])
    assert list(answers(model, request_)) == list(answers(LinuxKernel(), request_))


def test_maps_of_maps_are_written_as_fds_and_read_as_ids() -> None:
    def run(kernel: MapKernel, inner_size: int) -> list[str]:
        with ExitStack() as stack:

            def make(request: MapCreate) -> int:
                fd = kernel.map_create(request)
                stack.callback(kernel.close, fd)
                return fd

            inner = make(MapCreate(MapType.ARRAY, "i", 4, inner_size, 1))
            programs = make(MapCreate(MapType.PROG_ARRAY, "p", 4, 4, 2))
            value = inner.to_bytes(4, "little")
            return [
                told(lambda: kernel.map_update(programs, KEYS[0], value)),
                told(lambda: kernel.map_lookup(programs, KEYS[0], 4)),
                told(lambda: kernel.map_delete(programs, KEYS[0])),
                told(lambda: kernel.map_delete(programs, KEYS[3])),
            ]

    assert run(ModelKernel(), 8) == run(LinuxKernel(), 8)
