"""Small SYSCALL programs with the answers of several real kernels, and how to ask a kernel for one.

`DATA` was measured with `ask` on Linux 6.12.117, 6.18.44, 7.0.13, 7.2.12 and 7.3.4 (x86-64): each
program loaded once at ``log_level`` 1 with the maps of the file, and run once if it was accepted.

Example:
    >>> answer = ask(on_model(kernel), MAPS, program)
    >>> answer.load
    'EACCES'
"""

from __future__ import annotations

import errno
import gzip
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from bpfseal.bpf import attr
from bpfseal.bpf.uapi import Cmd, MapType, ProgFlag, ProgType
from bpfseal.errors import KernelError
from bpfseal.kernel.protocol import Kernel, MapCreate

DATA: Final = Path(__file__).with_name("measured.json.gz")
LOG_SIZE: Final = 1 << 20
CTX: Final = bytes(64)
NO_CTX: Final = CTX.hex()

_BEHIND: Final = "processed "
"""How the line begins that ends every log of a program that was followed."""


@dataclass(frozen=True)
class Program:
    """A program and how it is loaded."""

    name: str
    insns: bytes
    ctx: bytes = CTX
    flags: int = ProgFlag.SLEEPABLE
    level: int = 1
    license: bytes = b"GPL\0"
    btf: bytes = b""
    func_info: bytes = b""


class Answer(NamedTuple):
    """What a kernel says.

    Attributes:
        load: ``ok`` or the name of an errno.
        line: the last line of the log of a program that was refused.
        retval: what a run returned, unsigned, or the name of the errno that it was refused with.
        ctx: the context after the run, in hexadecimal.
    """

    load: str
    line: str = ""
    retval: int | str = 0
    ctx: str = ""


class Machine(NamedTuple):
    """A kernel, and memory for the pointers of raw calls."""

    kernel: Kernel
    place: Callable[[bytes], int]
    read: Callable[[int, int], bytes]
    call: Callable[[int, bytearray], int]


def read_data() -> tuple[tuple[MapCreate, ...], Mapping[Program, Mapping[str, Answer]]]:
    """Return the maps, and the programs with the answers by kernel."""
    raw = json.loads(gzip.decompress(DATA.read_bytes()))
    return maps_of(raw), {program_of(each): answers_of(each) for each in raw["programs"]}


def maps_of(raw: Mapping[str, Any]) -> tuple[MapCreate, ...]:
    """Return the maps of a file of programs."""
    return tuple(
        MapCreate(
            each["type"], each["name"], each["key_size"], each["value_size"], each["max_entries"],
            each["flags"],
        )
        for each in raw["maps"]
    )  # fmt: skip


def program_of(raw: Mapping[str, Any]) -> Program:
    """Return a program of such a file."""
    given: dict[str, Any] = {key: raw[key] for key in ("name", "flags", "level") if key in raw}
    for key in ("insns", "ctx", "license", "btf", "func_info"):
        if key in raw:
            given[key] = bytes.fromhex(raw[key])
    return Program(**given)


def answers_of(raw: Mapping[str, Any]) -> dict[str, Answer]:
    """Return the answers of such a file."""
    return {
        kernel: Answer(
            given["load"],
            given.get("last_log_line", ""),
            given.get("retval", 0),
            given.get("ctx", NO_CTX if given["load"] == "ok" else ""),
        )
        for kernel, given in raw["answers"].items()
    }


def ask(machine: Machine, maps: Sequence[MapCreate], program: Program) -> Answer:
    """Load a program and run it once if it is accepted."""
    kernel = machine.kernel
    map_fds = [kernel.map_create(each) for each in maps]
    for fd, each in zip(map_fds, maps, strict=True):
        if each.type == MapType.ARRAY and not each.flags:
            for index in range(each.max_entries):
                kernel.map_update(fd, struct.pack("<I", index), bytes(each.value_size))
    btf_fd = kernel.btf_load(program.btf) if program.btf else 0
    log = machine.place(bytes(LOG_SIZE))
    given: dict[str, int] = {
        "prog_type": ProgType.SYSCALL,
        "insn_cnt": len(program.insns) // 8,
        "insns": machine.place(program.insns),
        "license": machine.place(program.license),
        "prog_flags": program.flags,
        "fd_array": machine.place(struct.pack("<256i", *map_fds, *[0] * (256 - len(map_fds)))),
    }
    if program.level:
        given |= {"log_level": program.level, "log_size": LOG_SIZE, "log_buf": log}
    if program.btf:
        given |= {
            "prog_btf_fd": btf_fd,
            "func_info_rec_size": 8,
            "func_info": machine.place(program.func_info),
            "func_info_cnt": len(program.func_info) // 8,
        }
    try:
        end = attr.PROG_LOAD.end("fd_array")
        fd = machine.call(Cmd.PROG_LOAD, bytearray(attr.PROG_LOAD.pack_fields(given, size=end)))
    except KernelError as error:
        text = machine.read(log, LOG_SIZE).split(b"\0", 1)[0].decode()
        return Answer(name_of(error.errno), last_line(text))
    else:
        try:
            ran = kernel.prog_run(fd, program.ctx)
        except KernelError as error:
            return Answer("ok", "", name_of(error.errno), "")
        finally:
            kernel.close(fd)
        return Answer("ok", "", ran.retval & 0xFFFFFFFF, ran.ctx.hex())
    finally:
        for each_fd in (*map_fds, *([btf_fd] if btf_fd else [])):
            kernel.close(each_fd)


def name_of(number: int) -> str:
    """Return the name of an errno, as the kernel has it."""
    return "ENOTSUPP" if number == 524 else errno.errorcode.get(number, str(number))


def last_line(log: str) -> str:
    """Return the last line of a log but for the statistics."""
    lines = [line for line in log.splitlines() if line and not line.startswith(_BEHIND)]
    return lines[-1] if lines else ""
