"""Functions that helpers call, in the model and in the running kernel."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

import pytest

from bpfseal.bpf import attr
from bpfseal.bpf.insn import encode_insns
from bpfseal.bpf.uapi import Cmd, ProgFlag, ProgType
from bpfseal.btf.builder import BtfBuilder
from bpfseal.btf.kinds import Linkage
from bpfseal.errors import KernelError
from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.linux.syscalls import Buffer, bpf
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.protocol import Kernel

from .callbacks import CASES, MAPS, Case, insns_of
from .compare import LICENSE, Answer, model_kernel, reason_of

LOG_SIZE = 1 << 16


class Machine(NamedTuple):
    """A kernel, and memory for the pointers of raw calls."""

    kernel: Kernel
    place: Callable[[bytes], int]
    read: Callable[[int, int], bytes]
    call: Callable[[int, bytearray], int]


def on_model(kernel: ModelKernel) -> Machine:
    return Machine(kernel, kernel.allocate, kernel.read_memory, kernel.sys_bpf)


def on_linux(kernel: LinuxKernel) -> Machine:
    buffers: dict[int, Buffer] = {}

    def place(data: bytes) -> int:
        made = Buffer(data)
        buffers[made.address] = made
        return made.address

    return Machine(kernel, place, lambda at, size: buffers[at].data[:size], bpf)


def functions(*, is_static: bool) -> tuple[bytes, int, int]:
    """Return a BTF with the main program and a function of two numbers, and their ids."""
    builder = BtfBuilder()
    number = builder.add_int("long", 8, signed=True)
    proto = builder.add_func_proto(number, [("first", number), ("second", number)])
    main = builder.add_func("main", proto)
    called = builder.add_func("called", proto, Linkage.STATIC if is_static else Linkage.GLOBAL)
    return builder.encode(), main, called


def judge(machine: Machine, case: Case) -> Answer:
    """Load a program with its function, and run it if it is accepted."""
    kernel, insns = machine.kernel, insns_of(case)
    btf, main, called = functions(is_static=case.is_static)
    btf_fd, *map_fds = kernel.btf_load(btf), *(kernel.map_create(each) for each in MAPS)
    log = machine.place(bytes(LOG_SIZE))
    fields = attr.PROG_LOAD.pack_fields(
        {
            "prog_type": ProgType.SYSCALL,
            "insn_cnt": len(insns),
            "insns": machine.place(encode_insns(insns)),
            "license": machine.place(LICENSE.encode() + b"\0"),
            "prog_flags": ProgFlag.SLEEPABLE,
            "prog_btf_fd": btf_fd,
            "func_info_rec_size": 8,
            "func_info": machine.place(struct.pack("<IIII", 0, main, len(case.main), called)),
            "func_info_cnt": 2,
            "fd_array": machine.place(struct.pack(f"<{len(map_fds)}i", *map_fds)),
            "log_level": 1,
            "log_size": LOG_SIZE,
            "log_buf": log,
        },
        size=attr.PROG_LOAD.end("fd_array_cnt"),
    )
    try:
        fd = machine.call(Cmd.PROG_LOAD, bytearray(fields))
    except KernelError as error:
        text = machine.read(log, LOG_SIZE).split(b"\0", 1)[0].decode()
        return error.errno, reason_of(KernelError(error.errno, log=text)), 0
    else:
        result = kernel.prog_run(fd, bytes(8)).retval
        kernel.close(fd)
        return 0, "", result
    finally:
        for each in (btf_fd, *map_fds):
            kernel.close(each)


def expected(case: Case) -> Answer:
    return case.errno, case.reason, case.result


@pytest.mark.parametrize("name", CASES)
def test_the_model_answers(name: str) -> None:
    assert judge(on_model(model_kernel()), CASES[name]) == expected(CASES[name])


def test_the_running_kernel_answers_the_same(linux_6_18: LinuxKernel) -> None:
    judged = {name: judge(on_linux(linux_6_18), case) for name, case in CASES.items()}
    assert judged == {name: expected(case) for name, case in CASES.items()}
