"""The helpers that a SYSCALL program of the model can call.

Each returns what the kernel's helper returns: 0 or more, or a negative errno.

Source: kernel/bpf/syscall.c, kernel/bpf/btf.c, kernel/trace/bpf_trace.c.

Example:
    >>> helpers(state, program)[Helper.SYS_CLOSE](machine, 99, 0, 0, 0, 0)
    -9
"""

from __future__ import annotations

import random
import re
from errno import EFAULT, EINVAL, ENOENT, ERANGE
from typing import Final

from bpfseal.bpf.uapi import Helper
from bpfseal.btf.kinds import Kind
from bpfseal.kernel.model.common_helpers import common_helpers
from bpfseal.kernel.model.machine import HelperFunction, Machine
from bpfseal.kernel.model.memory import KERNEL_BASE, MemoryFault
from bpfseal.kernel.model.program import ModelProgram
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.state import KernelState
from bpfseal.kernel.model.syscall import sys_bpf
from bpfseal.kernel.model.work import BYTES, CALL

_U32: Final = 0xFFFFFFFF
_CONVERSION: Final = re.compile(r"%(?:%|([-+ #0]*\d*)(l{0,2}|hh?)([diuxXpcs]))")
_BITS: Final = {"": 32, "h": 16, "hh": 8, "l": 64, "ll": 64}


def helpers(state: KernelState, program: ModelProgram) -> dict[int, HelperFunction]:
    """Return the helpers for a run of a program, by id."""
    caller = program.name

    def bpf(_machine: Machine, command: int, attr: int, size: int, *_unused: int) -> int:
        return sys_bpf(state, caller, command, attr, size)

    def close(_machine: Machine, fd: int, *_unused: int) -> int:
        fd &= _U32

        def call() -> int:
            state.fds.close(fd)
            return 0

        return state.answer(caller, "close", f"fd {fd}", call)

    def find_type(
        machine: Machine, name_at: int, name_size: int, kind: int, flags: int, *_unused: int
    ) -> int:
        name = _name(machine, name_at, name_size)

        def call() -> int:
            source = "kernel/bpf/btf.c bpf_btf_find_by_name_kind"
            if flags or name is None or kind & _U32 not in set(Kind):
                raise refusal(EINVAL, source, "flags, or a name without its final zero byte")
            type_id = state.btf.find(name, Kind(kind & _U32))
            if type_id is None:
                raise refusal(ENOENT, source, f"no {Kind(kind).name} {name}")
            return type_id

        return state.answer(caller, "btf_find_by_name_kind", str(name), call)

    def find_symbol(
        machine: Machine, name_at: int, name_size: int, flags: int, result_at: int, *_unused: int
    ) -> int:
        name = _name(machine, name_at, name_size)
        machine.memory.store(result_at, 8, 0)

        def call() -> int:
            source = "kernel/bpf/syscall.c bpf_kallsyms_lookup_name"
            if flags or name is None:
                raise refusal(EINVAL, source, "flags, or a name without its final zero byte")
            address = state.symbols.address(name)
            if address is None:
                raise refusal(ENOENT, source, f"no symbol {name}")
            machine.memory.store(result_at, 8, address)
            return 0

        return state.answer(caller, "kallsyms_lookup_name", str(name), call)

    def printk(machine: Machine, text_at: int, size: int, *arguments: int) -> int:
        size &= _U32
        state.work.spend(CALL + size // BYTES)
        text = machine.memory.read(text_at, size)
        if not text.endswith(b"\0"):
            return -EINVAL
        line = format_printk(text[: text.index(0)].decode("utf-8", "replace"), arguments)
        state.printed.append(line)
        return len(line)

    return common_helpers(state, random.Random(0)) | {  # noqa: S311 - not for keys
        Helper.SYS_BPF: bpf,
        Helper.SYS_CLOSE: close,
        Helper.BTF_FIND_BY_NAME_KIND: find_type,
        Helper.KALLSYMS_LOOKUP_NAME: find_symbol,
        Helper.TRACE_PRINTK: printk,
        Helper.PROBE_READ: _probe_read_kernel,
        Helper.PROBE_READ_USER: _copy,
        Helper.PROBE_READ_KERNEL: _probe_read_kernel,
        Helper.COPY_FROM_USER: _copy,
    }


def _probe_read_kernel(machine: Machine, to: int, size: int, source: int, *_unused: int) -> int:
    """Copy kernel memory; an address that is none of the kernel's is -ERANGE.

    Loaders clear their stack by such a call with a null source. Source: mm/maccess.c
    ``copy_from_kernel_nofault``; measured on Linux 6.18.44.
    """
    answer = _copy(machine, to, size, source)
    return -ERANGE if answer < 0 and source < KERNEL_BASE else answer


def _copy(machine: Machine, to: int, size: int, source: int, *_unused: int) -> int:
    """Copy bytes; where they cannot be read, clear the destination and return -EFAULT."""
    size &= _U32
    try:
        data = machine.memory.read(source, size)
    except MemoryFault:
        cleared = machine.memory.read(to, size)  # faults, if need be, before anything is made
        machine.memory.write(to, bytes(len(cleared)))
        return -EFAULT
    machine.memory.write(to, data)
    return 0


def _name(machine: Machine, address: int, size: int) -> str | None:
    """Return a name of `size` bytes with its final zero byte, or ``None`` if it has none."""
    raw = machine.memory.read(address, size & _U32)
    if len(raw) <= 1 or raw[-1]:
        return None
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def format_printk(text: str, arguments: tuple[int, ...]) -> str:
    """Return what ``bpf_trace_printk`` prints, without the newline at the end.

    Args:
        text: the format; conversions d, i, u, x, X, p, c with a width and a length.
        arguments: unsigned 64-bit numbers.
    """
    remaining = iter(arguments)

    def convert(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        value = next(remaining, 0) & (1 << _BITS[found[2]]) - 1
        return _print(found[1], found[3], value, _BITS[found[2]])

    return _CONVERSION.sub(convert, text).rstrip("\n")


def _print(flags: str, conversion: str, value: int, bits: int) -> str:
    if conversion in "di" and value >> bits - 1:
        value -= 1 << bits
    if conversion == "c":
        return chr(value & 0xFF)
    if conversion in "ps":
        return f"{value:#x}"
    return f"%{flags}{'d' if conversion in 'diu' else conversion}" % value
