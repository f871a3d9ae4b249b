"""The helpers of ring buffers.

Source: kernel/bpf/ringbuf.c ``bpf_ringbuf_reserve`` and its neighbours.

Example:
    >>> ring_helpers(map_at)[Helper.RINGBUF_QUERY](machine, address, RING_SIZE, 0, 0, 0)
    4096
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EAGAIN, EINVAL
from typing import Final

from bpfseal.bpf.uapi import Helper
from bpfseal.kernel.model.machine import HelperFunction, Machine
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.memory import Region
from bpfseal.kernel.model.processor import Trap
from bpfseal.kernel.model.ring import RingBuffer

AVAIL_DATA: Final = 0
RING_SIZE: Final = 1
CONS_POS: Final = 2
PROD_POS: Final = 3
"""Questions of ``bpf_ringbuf_query`` (include/uapi/linux/bpf.h)."""

_WAKEUP_FLAGS: Final = 3


def ring_helpers(map_at: Callable[[int], ModelMap]) -> dict[int, HelperFunction]:
    """Return these helpers, by id.

    Args:
        map_at: finds the map of an address.
    """

    def ring_at(address: int) -> RingBuffer:
        ring = map_at(address).ring
        if ring is None:
            raise Trap("r1 is no ring buffer")
        return ring

    reserved: dict[int, tuple[RingBuffer, Region]] = {}

    def reserve(machine: Machine, map_address: int, size: int, flags: int, *_unused: int) -> int:
        ring = ring_at(map_address)
        if flags or not ring.take(size):
            return 0
        record = machine.memory.map("record of a ring buffer", bytearray(size))
        reserved[record.base] = ring, record
        return record.base

    def give_back(machine: Machine, address: int) -> tuple[RingBuffer, bytes]:
        if address not in reserved:
            raise Trap("r1 is no record of a ring buffer")
        ring, record = reserved.pop(address)
        machine.memory.unmap(record)
        return ring, bytes(record.data)

    def submit(machine: Machine, address: int, *_unused: int) -> int:
        ring, record = give_back(machine, address)
        ring.records.append(record)
        return 0

    def discard(machine: Machine, address: int, *_unused: int) -> int:
        give_back(machine, address)
        return 0

    def output(
        machine: Machine, map_address: int, data_at: int, size: int, flags: int, *_unused: int
    ) -> int:
        ring = ring_at(map_address)
        if flags & ~_WAKEUP_FLAGS:
            return -EINVAL
        if not ring.take(size):
            return -EAGAIN
        ring.records.append(machine.memory.read(data_at, size))
        return 0

    def query(_machine: Machine, map_address: int, question: int, *_unused: int) -> int:
        ring = ring_at(map_address)
        answers = {AVAIL_DATA: ring.used, RING_SIZE: ring.size, CONS_POS: 0, PROD_POS: ring.used}
        return answers.get(question, 0)

    return {
        Helper.RINGBUF_RESERVE: reserve,
        Helper.RINGBUF_SUBMIT: submit,
        Helper.RINGBUF_DISCARD: discard,
        Helper.RINGBUF_OUTPUT: output,
        Helper.RINGBUF_QUERY: query,
    }
