"""Helpers of the model that loaders do not call and other SYSCALL programs may.

What is chance or time on a real machine is the same in every run here: a clock that moves one
microsecond at each question, numbers from a generator with a fixed seed, one process with one task
on one CPU.

Source: kernel/bpf/helpers.c and kernel/trace/bpf_trace.c.

Example:
    >>> common_helpers(state, random.Random(0))[Helper.GET_SMP_PROCESSOR_ID](machine, 0, 0, 0, 0, 0)
    0
"""

from __future__ import annotations

import random
from collections.abc import Callable
from errno import E2BIG, EEXIST, EFAULT, EINVAL, ERANGE
from itertools import count
from typing import Final

from bpfseal.bpf.uapi import Helper, MapType
from bpfseal.errors import KernelError
from bpfseal.kernel.model.callback_helpers import for_each_map_elem, loop
from bpfseal.kernel.model.machine import HelperFunction, Machine
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.memory import MemoryFault
from bpfseal.kernel.model.processor import Trap
from bpfseal.kernel.model.ring_helpers import ring_helpers
from bpfseal.kernel.model.state import KernelState

COMM: Final = b"bpfseal"
"""The name of the only task."""

TASK: Final = 1
"""The number of the only process and task; its user is root."""

_U32: Final = 0xFFFFFFFF
_FIRST_NANOSECOND: Final = 1_000_000_000
_TICK: Final = 1_000
_CGROUP: Final = 1
_TASK_ADDRESS: Final = (1 << 64) - (1 << 46)
"""Where a kernel's ``struct task_struct`` would be; nothing is there."""

_MAX_NUMBER: Final = 64
_SPACES: Final = b" \t\n\v\f\r"


def common_helpers(state: KernelState, chance: random.Random) -> dict[int, HelperFunction]:
    """Return these helpers for a run of a program, by id.

    Args:
        state: the kernel.
        chance: where random numbers come from.
    """
    clock = count(_FIRST_NANOSECOND, _TICK)
    answers: dict[int, Callable[[], int]] = {
        Helper.KTIME_GET_NS: lambda: next(clock),
        Helper.KTIME_GET_BOOT_NS: lambda: next(clock),
        Helper.KTIME_GET_TAI_NS: lambda: next(clock),
        Helper.JIFFIES64: lambda: next(clock) // 1_000_000,
        Helper.GET_PRANDOM_U32: lambda: chance.getrandbits(32),
        Helper.GET_SMP_PROCESSOR_ID: lambda: 0,
        Helper.GET_NUMA_NODE_ID: lambda: 0,
        Helper.GET_CURRENT_PID_TGID: lambda: TASK << 32 | TASK,
        Helper.GET_CURRENT_UID_GID: lambda: 0,
        Helper.GET_CURRENT_CGROUP_ID: lambda: _CGROUP,
        Helper.GET_CURRENT_TASK: lambda: _TASK_ADDRESS,
        Helper.GET_CURRENT_TASK_BTF: lambda: _TASK_ADDRESS,
    }
    made: dict[int, HelperFunction] = {
        number: _without_arguments(answer) for number, answer in answers.items()
    }

    def map_at(address: int) -> ModelMap:
        found = state.map_at(address)
        if found is None:
            raise Trap("r1 is no pointer to a map")
        return found

    def lookup(machine: Machine, map_address: int, key_at: int, *_unused: int) -> int:
        used = map_at(map_address)
        key = machine.memory.read(key_at, used.attributes.key_size)
        return used.element_address(key) or 0

    def update(
        machine: Machine, map_address: int, key_at: int, value_at: int, flags: int, *_unused: int
    ) -> int:
        used = map_at(map_address)
        if used.type is MapType.HASH:
            key = machine.memory.read(key_at, used.attributes.key_size)
            value = machine.memory.read(value_at, used.attributes.value_size)
            return _answer(lambda: used.update_by_program(key, value, flags))
        index = machine.memory.load(key_at, used.attributes.key_size)
        value = machine.memory.read(value_at, used.attributes.value_size)
        if flags > 2:
            return -EINVAL
        address = used.element_address(index.to_bytes(used.attributes.key_size, "little"))
        if address is None:
            return -E2BIG
        if flags == 1:
            return -EEXIST
        machine.memory.write(address, value)
        return 0

    def delete(machine: Machine, map_address: int, key_at: int, *_unused: int) -> int:
        used = map_at(map_address)
        key = machine.memory.read(key_at, used.attributes.key_size)
        if used.type is MapType.HASH:
            return _answer(lambda: used.delete_by_program(key))
        return -EINVAL  # an array has all its elements for ever

    return (
        made
        | ring_helpers(map_at)
        | {
            Helper.MAP_LOOKUP_ELEM: lookup,
            Helper.MAP_UPDATE_ELEM: update,
            Helper.MAP_DELETE_ELEM: delete,
            Helper.FOR_EACH_MAP_ELEM: for_each_map_elem(map_at),
            Helper.LOOP: loop,
            Helper.STRNCMP: _strncmp,
            Helper.GET_CURRENT_COMM: _comm,
            Helper.PROBE_READ_STR: _copy_string,
            Helper.PROBE_READ_KERNEL_STR: _copy_string,
            Helper.PROBE_READ_USER_STR: _copy_string,
            Helper.STRTOL: _strtol,
            Helper.STRTOUL: _strtoul,
        }
    )


def _answer(call: Callable[[], None]) -> int:
    """Return 0, or the negative errno of a refusal."""
    try:
        call()
    except KernelError as error:
        return -error.errno
    return 0


def _without_arguments(answer: Callable[[], int]) -> HelperFunction:
    return lambda _machine, *_arguments: answer()


def _comm(machine: Machine, to: int, size: int, *_unused: int) -> int:
    size &= _U32
    machine.memory.write(to, COMM[: max(size - 1, 0)].ljust(size, b"\0"))
    return 0


def _copy_string(machine: Machine, to: int, size: int, source: int, *_unused: int) -> int:
    """Copy a string with its zero byte and return its length with it (``strncpy_from_kernel``)."""
    size &= _U32
    if not size:
        return 0
    try:
        text = machine.memory.cstring(source, size - 1)
    except MemoryFault:
        machine.memory.write(to, bytes(size))
        return -EFAULT
    machine.memory.write(to, text + b"\0")
    return len(text) + 1


def _strncmp(machine: Machine, at: int, size: int, other_at: int, *_unused: int) -> int:
    """Compare at most so many bytes of two strings (lib/string.c ``strncmp``)."""
    size &= _U32
    text = machine.memory.read(at, size).split(b"\0", 1)[0]
    other = machine.memory.cstring(other_at, size)
    return (text > other) - (text < other)


def _strtol(machine: Machine, at: int, size: int, flags: int, to: int, *_unused: int) -> int:
    return _number(machine, at, size, flags, to, signed=True)


def _strtoul(machine: Machine, at: int, size: int, flags: int, to: int, *_unused: int) -> int:
    return _number(machine, at, size, flags, to, signed=False)


def _number(machine: Machine, at: int, size: int, flags: int, to: int, *, signed: bool) -> int:
    """Read a number at the start of a text; return how many bytes it takes (``__bpf_strtoll``)."""
    machine.memory.store(to, 8, 0)
    text = machine.memory.read(at, size & _U32)
    base = flags & 31
    if not text or base not in (0, 8, 10, 16) or flags & ~31:
        return -EINVAL
    start = len(text) - len(text.lstrip(_SPACES))
    negative = text[start : start + 1] == b"-"
    if negative and not signed:
        return -EINVAL
    start += negative
    rest = text[start : start + _MAX_NUMBER].lower()
    base, prefix = _base_of(rest, base)
    end = prefix
    while end < len(rest) and chr(rest[end]).isalnum() and int(chr(rest[end]), 36) < base:
        end += 1
    if end == prefix:
        return -EINVAL
    value = int(rest[prefix:end], base)
    if value >> (63 if signed and not negative else 64) or (negative and value > 1 << 63):
        return -ERANGE
    machine.memory.store(to, 8, -value if negative else value)
    return start + end


def _base_of(text: bytes, base: int) -> tuple[int, int]:
    """Return the base of a number and the length of its prefix (``_parse_integer_fixup_radix``)."""
    is_hex = text[:2] == b"0x" and text[2:3].isalnum() and text[2:3] in b"0123456789abcdef"
    if base == 0:
        base = 16 if is_hex else 8 if text[:1] == b"0" else 10
    return base, 2 if base == 16 and text[:2] == b"0x" else 0
