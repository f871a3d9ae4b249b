"""Helpers of the model that call functions of the program that runs.

Each is a generator: it gives a call, gets what the function returned, and returns its own result.

Source: kernel/bpf/bpf_iter.c ``bpf_loop`` and ``bpf_for_each_map_elem``, kernel/bpf/arraymap.c
``bpf_for_each_array_elem``.

Example:
    >>> calls = loop(machine, 2, target, context, 0, 0)
    >>> next(calls).arguments[0], calls.send(0).arguments[0]
    (0, 1)
"""

from __future__ import annotations

from collections.abc import Callable
from errno import E2BIG, EINVAL
from typing import Final

from bpfseal.kernel.model.machine import HelperFunction, Machine
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.processor import Callback, Callbacks

MAX_LOOPS: Final = 8 * 1024 * 1024
"""The most calls of one ``bpf_loop``, BPF_MAX_LOOPS (include/linux/bpf.h)."""

_U32: Final = 0xFFFFFFFF


def loop(
    _machine: Machine, count: int, target: int, context: int, flags: int, *_unused: int
) -> Callbacks:
    """Call a function with 0, 1, 2 and so on until it returns 1; return how often it was called."""
    count &= _U32
    if flags:
        return -EINVAL
    if count > MAX_LOOPS:
        return -E2BIG
    for number in range(count):
        if (yield Callback(target, (number, context, 0, 0, 0))):
            return number + 1
    return count


def for_each_map_elem(map_at: Callable[[int], ModelMap]) -> HelperFunction:
    """Return the helper that calls a function with each element of an array.

    Args:
        map_at: finds the map of an address.
    """

    def for_each(
        machine: Machine, map_address: int, target: int, context: int, flags: int, *_unused: int
    ) -> Callbacks:
        if flags:
            return -EINVAL
        used = map_at(map_address)
        count = used.attributes.max_entries
        key = machine.memory.map("key", bytearray(used.attributes.key_size), writable=False)
        try:
            for number in range(count):
                key.data[:] = number.to_bytes(len(key.data), "little")
                value = used.element_address(bytes(key.data)) or 0
                if (yield Callback(target, (map_address, key.base, value, context, 0))):
                    return number + 1
        finally:
            machine.memory.unmap(key)
        return count

    return for_each
