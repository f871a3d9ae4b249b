"""The helpers of SYSCALL programs, called as a running program calls them."""

from __future__ import annotations

from errno import E2BIG, EBADF, EFAULT, EINVAL, ENOENT, EPERM, ERANGE

import pytest

from bpfseal.bpf import attr as layouts
from bpfseal.bpf.insn import encode_insns, exit_insn, ld_imm64, mov64_imm
from bpfseal.bpf.opcodes import PSEUDO_MAP_IDX_VALUE
from bpfseal.bpf.uapi import Cmd, Helper, MapType, ProgType
from bpfseal.btf.kinds import Kind
from bpfseal.kernel.model.helpers import format_printk, helpers
from bpfseal.kernel.model.kernel_btf import SymbolTable, SyntheticBtf, SyntheticSymbols
from bpfseal.kernel.model.machine import Machine
from bpfseal.kernel.model.memory import MemoryFault, Region
from bpfseal.kernel.model.profile import KFUNC_SERIES
from bpfseal.kernel.model.program import ModelProgram, ProgAttributes
from bpfseal.kernel.model.state import KernelState
from bpfseal.loader.checks import LOADER_BTF

NULL = 0


class Running:
    """A program that runs, with memory to pass to helpers."""

    def __init__(self, symbols: SymbolTable | None = None) -> None:
        self.state = KernelState(
            KFUNC_SERIES, SyntheticBtf(), symbols or SyntheticSymbols(), hooks=()
        )
        program = ModelProgram(ProgAttributes(ProgType.SYSCALL, "loader", b"", "GPL"), b"", ())
        self.helpers = helpers(self.state, program)
        self.machine = Machine(self.state.memory, self.helpers, {})

    def put(self, data: bytes) -> Region:
        return self.state.memory.map("data", bytearray(data))

    def call(self, helper: Helper, *arguments: int) -> int:
        r1, r2, r3, r4, r5 = (*arguments, 0, 0, 0, 0, 0)[:5]
        answer = self.helpers[helper](self.machine, r1, r2, r3, r4, r5)
        assert isinstance(answer, int)
        return answer

    def bpf(self, command: int, data: bytes, size: int | None = None) -> int:
        at = self.put(data).base
        return self.call(Helper.SYS_BPF, command, at, len(data) if size is None else size)


@pytest.fixture
def running() -> Running:
    return Running()


@pytest.mark.parametrize(
    ("helper", "answer"),
    # an address that is none of the kernel's is out of range for the one (copy_from_kernel_nofault)
    [(Helper.PROBE_READ_KERNEL, -ERANGE), (Helper.COPY_FROM_USER, -EFAULT)],
)
def test_a_copy_that_cannot_read_clears_its_destination(
    running: Running, helper: Helper, answer: int
) -> None:
    to, source = running.put(b"\xff" * 8), running.put(b"abcd")
    assert running.call(helper, to.base, 4, source.base) == 0
    assert to.data == b"abcd\xff\xff\xff\xff"
    assert running.call(helper, to.base, 8, NULL) == answer
    assert to.data == bytes(8)


def test_a_copy_of_4_gib_to_nowhere_faults_before_it_takes_memory(running: Running) -> None:
    with pytest.raises(MemoryFault):
        running.call(Helper.PROBE_READ_KERNEL, running.put(b"").base, 0xFFFFFFFF, NULL)


def test_close_answers_ebadf_for_what_is_not_open(running: Running) -> None:
    assert running.call(Helper.SYS_CLOSE, 1) == 0
    assert running.call(Helper.SYS_CLOSE, 1) == -EBADF
    assert 1 not in running.state.fds.listing()


def test_find_by_name_kind(running: Running) -> None:
    name = running.put(b"task_struct\0").base
    find = Helper.BTF_FIND_BY_NAME_KIND
    found = running.call(find, name, 12, Kind.STRUCT, 0)
    assert found > 0
    assert running.call(find, name, 12, Kind.STRUCT, 0) == found
    assert running.call(find, name, 11, Kind.STRUCT, 0) == -EINVAL  # without its zero byte
    assert running.call(find, name, 12, Kind.STRUCT, 1) == -EINVAL  # flags
    assert running.call(find, name, 12, 99, 0) == -EINVAL


def test_kallsyms_lookup_name() -> None:
    running = Running(SymbolTable({"jiffies": 0xFFFF_FFFF_8123_4567}))
    result = running.put(b"\xff" * 8)
    for text, flags, answer, value in (
        (b"jiffies\0", 0, 0, 0xFFFF_FFFF_8123_4567),
        (b"nothing\0", 0, -ENOENT, 0),
        (b"jiffies\0", 1, -EINVAL, 0),
        (b"jiffies", 0, -EINVAL, 0),
    ):
        at = running.put(text).base
        assert (
            running.call(Helper.KALLSYMS_LOOKUP_NAME, at, len(text), flags, result.base) == answer
        )
        assert int.from_bytes(result.data, "little") == value


def test_printk_needs_the_zero_byte_and_keeps_the_line(running: Running) -> None:
    text = running.put(b"%s of %d\n\0").base
    assert running.call(Helper.TRACE_PRINTK, text, 9, 1, 2) == -EINVAL
    assert running.call(Helper.TRACE_PRINTK, text, 10, 1, -2 & (1 << 64) - 1) == len("0x1 of -2")
    assert running.state.printed == ["0x1 of -2"]


@pytest.mark.parametrize(
    ("text", "value", "line"),
    [
        ("%d", 0xFFFFFFFF, "-1"),
        ("%u", 0xFFFFFFFF, "4294967295"),
        ("%lld", (1 << 64) - 1, "-1"),
        ("%llx", 0xABCDEF0123, "abcdef0123"),
        ("%08x", 0xAB, "000000ab"),
        ("%x", 0x1_0000_0002, "2"),
        ("%c", 65, "A"),
        ("%p", 16, "0x10"),
        ("100%%\n", 0, "100%"),
        ("%q", 1, "%q"),
    ],
)
def test_conversions(text: str, value: int, line: str) -> None:
    assert format_printk(text, (value,)) == line


MAP = layouts.MAP_CREATE.pack(
    map_type=MapType.ARRAY, key_size=4, value_size=8, max_entries=1, map_name=b"counts"
)


def test_sys_bpf_makes_fills_and_freezes_a_map(running: Running) -> None:
    fd = running.bpf(Cmd.MAP_CREATE, MAP)
    assert running.state.fds.listing()[fd] == "map counts"
    key, value = running.put(bytes(4)), running.put(b"12345678")
    update = layouts.MAP_ELEM.pack(map_fd=fd, key=key.base, value=value.base)
    assert running.bpf(Cmd.MAP_UPDATE_ELEM, update) == 0
    assert running.state.maps[0].lookup(bytes(4)) == b"12345678"
    freeze = layouts.MAP_FREEZE.pack(map_fd=fd)
    assert [running.bpf(Cmd.MAP_FREEZE, freeze) for _ in range(2)] == [0, -EPERM]
    assert running.bpf(Cmd.MAP_UPDATE_ELEM, update) == -EPERM


@pytest.mark.parametrize(
    "command", [Cmd.MAP_LOOKUP_ELEM, Cmd.PROG_RUN, Cmd.OBJ_GET_INFO_BY_FD, 999]
)
def test_other_commands_are_not_for_programs(running: Running, command: int) -> None:
    assert running.bpf(command, bytes(64)) == -EINVAL


def test_attributes_behind_the_commands_last_field_must_be_zero(running: Running) -> None:
    assert running.bpf(Cmd.MAP_CREATE, MAP.ljust(168, b"\0")) > 0
    assert running.bpf(Cmd.MAP_CREATE, MAP.ljust(120, b"\1")) == -EINVAL
    assert running.bpf(Cmd.MAP_CREATE, MAP.ljust(168, b"\0") + b"\1") == -E2BIG
    assert running.bpf(Cmd.MAP_CREATE, bytes(4097)) == -E2BIG
    assert running.bpf(Cmd.MAP_CREATE, MAP, size=1000) == -EFAULT


def test_an_attribute_that_is_cut_off_is_zero(running: Running) -> None:
    fd = running.bpf(Cmd.MAP_CREATE, MAP[:16])
    assert running.state.fds.listing()[fd] == "map "


def test_excl_prog_hash_of_a_map_made_by_a_program(running: Running) -> None:
    digest = running.put(bytes(range(32))).base
    for pointer, size, good in ((digest, 32, True), (digest, 31, False), (NULL, 32, False)):
        made = layouts.MAP_CREATE.pack(
            map_type=2,
            key_size=4,
            value_size=8,
            max_entries=1,
            excl_prog_hash=pointer,
            excl_prog_hash_size=size,
        )
        answer = running.bpf(Cmd.MAP_CREATE, made)
        assert (answer > 0) is good
        assert good or answer == -EINVAL
    assert running.state.maps[0].attributes.excl_prog_hash == bytes(range(32))


def test_a_btf_that_is_malformed_is_einval(running: Running) -> None:
    for data, answer in ((LOADER_BTF, 3), (LOADER_BTF[:-1], -EINVAL), (bytes(40), -EINVAL)):
        at = running.put(data).base
        assert (
            running.bpf(Cmd.BTF_LOAD, layouts.BTF_LOAD.pack(btf=at, btf_size=len(data))) == answer
        )
    behind = layouts.BTF_LOAD.pack(btf=at, btf_size=1000)
    assert running.bpf(Cmd.BTF_LOAD, behind) == -EFAULT
    huge = layouts.BTF_LOAD.pack(btf=at, btf_size=1 << 30)
    assert running.bpf(Cmd.BTF_LOAD, huge) == -E2BIG


INNER = encode_insns([*ld_imm64(1, PSEUDO_MAP_IDX_VALUE, 1), mov64_imm(0, 0), exit_insn()])


def _inner(running: Running, **changes: int) -> bytes:
    map_fd = running.bpf(Cmd.MAP_CREATE, MAP)
    fds = running.put((0).to_bytes(4, "little") + map_fd.to_bytes(4, "little"))
    fields = {
        "prog_type": ProgType.KPROBE,
        "insn_cnt": len(INNER) // 8,
        "insns": running.put(INNER).base,
        "license": running.put(b"GPL\0").base,
        "fd_array": fds.base,
        **changes,
    }
    return layouts.PROG_LOAD.pack(size=168, byteorder="little", prog_name=b"on_open", **fields)


def test_sys_bpf_loads_a_program_of_the_kernel(running: Running) -> None:
    fd = running.bpf(Cmd.PROG_LOAD, _inner(running))
    assert running.state.fds.listing()[fd] == "prog on_open"
    loaded = running.state.programs[0].snapshot()
    assert loaded.is_kernel
    assert (loaded.license, loaded.map_references) == ("GPL", ((0, "counts"),))


@pytest.mark.parametrize(
    ("changes", "errno"),
    [
        ({"insn_cnt": 0}, E2BIG),
        ({"insn_cnt": 0xFFFFFFFF}, E2BIG),
        ({"insn_cnt": 100}, EFAULT),
        ({"insns": NULL}, EFAULT),
        ({"license": NULL}, EFAULT),
        ({"fd_array": 0x1000}, EFAULT),
        ({"func_info_cnt": 1}, EINVAL),
        ({"line_info_cnt": 1, "line_info_rec_size": 16}, EINVAL),
        ({"prog_btf_fd": 99}, EBADF),
    ],
    ids=str,
)
def test_an_inner_program_that_is_refused(
    running: Running, changes: dict[str, int], errno: int
) -> None:
    assert running.bpf(Cmd.PROG_LOAD, _inner(running, **changes)) == -errno


def test_every_call_is_noted_with_its_rule(running: Running) -> None:
    running.bpf(Cmd.MAP_FREEZE, layouts.MAP_FREEZE.pack(map_fd=99))
    [call] = running.state.calls
    assert (call.by, call.name, call.arguments, call.result) == (
        "loader",
        "map_freeze",
        "fd 99",
        -EBADF,
    )
    assert call.rule == "fs/file.c fdget: fd 99 is not open"
