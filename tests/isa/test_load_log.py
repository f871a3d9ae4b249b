"""Attributes of the log in BPF_PROG_LOAD and BPF_BTF_LOAD (kernel/bpf/log.c).

Measured on Linux 6.18.44, whose answers `test_the_running_kernel_answers_the_same` asks for again.
"""

from __future__ import annotations

import errno
from itertools import product
from typing import Final, Literal, NamedTuple

import pytest

from bpfseal.bpf import attr
from bpfseal.bpf.insn import encode_insns, exit_insn, mov64_imm, mov64_reg
from bpfseal.bpf.uapi import Cmd, ProgFlag, ProgType
from bpfseal.btf.builder import BtfBuilder
from bpfseal.errors import KernelError
from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.linux.syscalls import Buffer, bpf
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.kernel_btf import SyntheticBtf
from bpfseal.kernel.model.profile import PROFILES

LEVELS: Final = (0, 1, 2, 3, 8, 9, 15, 16, 1 << 31)
SIZES: Final = (0, 1, 20, 99, 100, 1 << 16, 0x3FFFFFFF, 0x40000000, 0xFFFFFFFF)
BUFFERS: Final = ("none", "some", "bad")
GOOD: Final = encode_insns([mov64_imm(0, 0), exit_insn()])
BAD: Final = encode_insns([mov64_reg(0, 2), exit_insn()])
UNKNOWN: Final = 77
_ROOM: Final = 1 << 16

Where = Literal["none", "some", "bad"]


class LogAnswer(NamedTuple):
    """The errno, 0 for none; the true size that came back; the log."""

    errno: int
    true_size: int
    text: bytes


class OnModel:
    def __init__(self) -> None:
        self.kernel = ModelKernel(profile=PROFILES["6.18-unverified"], kernel_btf=SyntheticBtf())

    def place(self, data: bytes) -> int:
        return self.kernel.allocate(data)

    def read(self, address: int, size: int) -> bytes:
        return self.kernel.read_memory(address, size)

    def call(self, command: int, attributes: bytearray) -> int:
        return self.kernel.sys_bpf(command, attributes)

    def close(self, fd: int) -> None:
        self.kernel.close(fd)


class OnLinux:
    def __init__(self, kernel: LinuxKernel) -> None:
        self.kernel = kernel
        self.buffers: dict[int, Buffer] = {}

    def place(self, data: bytes) -> int:
        made = Buffer(data)
        self.buffers[made.address] = made
        return made.address

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.buffers[address].data[:size])

    def call(self, command: int, attributes: bytearray) -> int:
        return bpf(command, attributes)

    def close(self, fd: int) -> None:
        self.kernel.close(fd)


def prog_load(on: OnModel | OnLinux, insns: bytes, level: int, where: str, size: int) -> LogAnswer:
    fields = {
        "prog_type": ProgType.SYSCALL,
        "insn_cnt": len(insns) // 8,
        "insns": on.place(insns),
        "license": on.place(b"GPL\0"),
        "prog_flags": ProgFlag.SLEEPABLE,
    }
    return _load(on, Cmd.PROG_LOAD, fields, ("log_", level, where, size), attr.PROG_LOAD)


def btf_load(on: OnModel | OnLinux, raw: bytes, level: int, where: str, size: int) -> LogAnswer:
    fields = {"btf": on.place(raw), "btf_size": len(raw)}
    return _load(on, Cmd.BTF_LOAD, fields, ("btf_log_", level, where, size), attr.BTF_LOAD)


def _load(
    on: OnModel | OnLinux,
    command: int,
    fields: dict[str, int],
    log: tuple[str, int, str, int],
    layout: attr.AttrLayout,
) -> LogAnswer:
    prefix, level, where, size = log
    buffer = {"none": 0, "bad": 0x10}.get(where) if where != "some" else on.place(b"Z" * _ROOM)
    assert buffer is not None
    fields |= {
        f"{prefix}level": level,
        f"{prefix}size": size,
        f"{prefix}buf": buffer,
        f"{prefix}true_size": UNKNOWN,
    }
    end = layout.end(f"{prefix}true_size")
    attributes = bytearray(layout.pack_fields(fields, size=end))
    try:
        on.close(on.call(command, attributes))
        number = 0
    except KernelError as error:
        number = error.errno
    true_size = layout.unpack(bytes(attributes).ljust(168, b"\0"))[f"{prefix}true_size"]
    text = on.read(buffer, _ROOM).split(b"\0", 1)[0] if where == "some" else b""
    return LogAnswer(number, true_size, text)


def small_btf() -> bytes:
    builder = BtfBuilder()
    builder.add_int("int", 4, signed=True)
    return builder.encode()


@pytest.mark.parametrize(
    ("level", "where", "size"),
    [(0, "some", 100), (1, "none", 100), (1, "some", 0), (16, "none", 0), (1, "some", 1 << 30)],
)
def test_a_level_a_buffer_and_a_size_go_together(level: int, where: Where, size: int) -> None:
    assert prog_load(OnModel(), GOOD, level, where, size) == (errno.EINVAL, UNKNOWN, _kept(where))
    assert btf_load(OnModel(), small_btf(), level, where, size).errno == errno.EINVAL


def _kept(where: Where) -> bytes:
    return b"Z" * _ROOM if where == "some" else b""


def test_a_log_without_room_keeps_its_end_and_is_enospc() -> None:
    whole = prog_load(OnModel(), GOOD, 1, "some", 1000)
    cut = prog_load(OnModel(), GOOD, 1, "some", 20)
    assert (whole.errno, cut.errno) == (0, errno.ENOSPC)
    assert whole.true_size == cut.true_size > 20
    assert cut.text == whole.text[-19:]


def test_a_fixed_log_keeps_its_beginning() -> None:
    whole, cut = (prog_load(OnModel(), GOOD, 9, "some", size) for size in (1000, 20))
    assert cut.text == whole.text[:19]


def test_what_is_loaded_goes_away_if_its_log_has_no_room() -> None:
    on = OnModel()
    before = on.kernel.open_fds
    assert prog_load(on, GOOD, 1, "some", 1).errno == errno.ENOSPC
    assert on.kernel.open_fds == before


def test_a_log_that_cannot_be_written_is_efault() -> None:
    assert prog_load(OnModel(), GOOD, 1, "bad", 1000).errno == errno.EFAULT


def test_the_log_of_a_btf_tells_its_types() -> None:
    assert btf_load(OnModel(), small_btf(), 1, "some", 1000).text.endswith(
        b"[1] INT int size=4 bits_offset=0 nr_bits=32 encoding=SIGNED\n"
    )


def test_the_running_kernel_answers_the_same(linux_6_18: LinuxKernel) -> None:
    for level, where, size in product(LEVELS, BUFFERS, SIZES):
        for insns in (GOOD, BAD):
            expected = prog_load(OnLinux(linux_6_18), insns, level, where, size)
            assert prog_load(OnModel(), insns, level, where, size)[:1] == expected[:1]
            if not level & 4:  # with statistics it tells how long it took
                answer = prog_load(OnModel(), insns, level, where, size)
                assert answer == expected, (level, where, size)
        expected = btf_load(OnLinux(linux_6_18), small_btf(), level, where, size)
        assert btf_load(OnModel(), small_btf(), level, where, size) == expected, (level, size)
