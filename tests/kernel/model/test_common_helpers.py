"""Helpers that programs other than loaders call."""

from __future__ import annotations

import random
from errno import E2BIG, EFAULT, EINVAL, ERANGE

import pytest

from bpfseal.bpf.uapi import Helper, MapFlag, MapType
from bpfseal.kernel.model.common_helpers import COMM, common_helpers
from bpfseal.kernel.model.kernel_btf import SyntheticBtf, SyntheticSymbols
from bpfseal.kernel.model.machine import Machine
from bpfseal.kernel.model.map_rules import MapAttributes
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.memory import Region
from bpfseal.kernel.model.processor import Trap
from bpfseal.kernel.model.profile import KFUNC_SERIES
from bpfseal.kernel.model.state import KernelState


class Bench:
    """A machine with memory to try helpers on."""

    def __init__(self) -> None:
        self.state = KernelState(KFUNC_SERIES, SyntheticBtf(), SyntheticSymbols(), ())
        self.helpers = common_helpers(self.state, random.Random(0))  # noqa: S311
        self.machine = Machine(self.state.memory, {}, {})

    def memory(self, data: bytes) -> Region:
        return self.state.memory.map("data", bytearray(data))

    def call(self, helper: Helper, *arguments: int) -> int:
        r1, r2, r3, r4, r5 = (*arguments, *(0,) * (5 - len(arguments)))
        answer = self.helpers[helper](self.machine, r1, r2, r3, r4, r5)
        assert isinstance(answer, int)
        return answer

    def array(self, entries: int = 3, flags: int = 0) -> ModelMap:
        made = ModelMap(MapAttributes(MapType.ARRAY, 4, 8, entries, flags=flags), self.state.memory)
        self.state.fds.install(made)
        self.state.maps.append(made)
        return made


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_time_goes_on(bench: Bench) -> None:
    first, second = (bench.call(Helper.KTIME_GET_NS) for _ in range(2))
    assert second > first
    assert bench.call(Helper.JIFFIES64) > 0


def test_every_run_sees_the_same_chance() -> None:
    runs = [[b.call(Helper.GET_PRANDOM_U32) for _ in range(3)] for b in (Bench(), Bench())]
    assert runs[0] == runs[1]


def test_there_is_one_task_of_root_on_one_cpu(bench: Bench) -> None:
    assert bench.call(Helper.GET_CURRENT_PID_TGID) == 1 << 32 | 1
    assert bench.call(Helper.GET_CURRENT_UID_GID) == 0
    assert bench.call(Helper.GET_SMP_PROCESSOR_ID) == 0


@pytest.mark.parametrize(("size", "name"), [(16, COMM.ljust(16, b"\0")), (4, b"bpf\0")])
def test_the_name_of_the_task_ends_with_a_zero(bench: Bench, size: int, name: bytes) -> None:
    to = bench.memory(b"x" * size)
    assert bench.call(Helper.GET_CURRENT_COMM, to.base, size) == 0
    assert to.data == name


def test_a_string_is_copied_with_its_zero_and_cut_where_it_is_too_long(bench: Bench) -> None:
    source, to = bench.memory(b"hello\0"), bench.memory(bytes(8))
    assert bench.call(Helper.PROBE_READ_KERNEL_STR, to.base, 8, source.base) == 6
    assert to.data == b"hello\0\0\0"
    assert bench.call(Helper.PROBE_READ_KERNEL_STR, to.base, 3, source.base) == 3
    assert to.data[:3] == b"he\0"
    assert bench.call(Helper.PROBE_READ_KERNEL_STR, to.base, 8, 16) == -EFAULT
    assert to.data == bytes(8)


@pytest.mark.parametrize(
    ("text", "base", "taken", "value"),
    [
        (b"42", 0, 2, 42),
        (b" -42x", 0, 4, -42),
        (b"0x1F", 0, 4, 31),
        (b"0x1F", 16, 4, 31),
        (b"017", 0, 3, 15),
        (b"9223372036854775808", 10, -ERANGE, 0),
        (b"x", 0, -EINVAL, 0),
        (b"1", 7, -EINVAL, 0),
    ],
)
def test_strtol(bench: Bench, text: bytes, base: int, taken: int, value: int) -> None:
    at, to = bench.memory(text), bench.memory(bytes(8))
    assert bench.call(Helper.STRTOL, at.base, len(text), base, to.base) == taken
    assert int.from_bytes(to.data, "little", signed=True) == value


def test_strtoul_takes_no_sign(bench: Bench) -> None:
    at, to = bench.memory(b"-1"), bench.memory(bytes(8))
    assert bench.call(Helper.STRTOUL, at.base, 2, 0, to.base) == -EINVAL


def test_a_lookup_leads_into_the_map_and_an_update_changes_it(bench: Bench) -> None:
    used = bench.array()
    key, value = bench.memory((1).to_bytes(4, "little")), bench.memory(b"12345678")
    assert bench.call(Helper.MAP_UPDATE_ELEM, used.struct_address(), key.base, value.base) == 0
    found = bench.call(Helper.MAP_LOOKUP_ELEM, used.struct_address(), key.base)
    assert bench.state.memory.read(found, 8) == b"12345678"
    assert used.lookup(bytes(key.data)) == b"12345678"


def test_an_index_behind_the_end_is_null_and_e2big(bench: Bench) -> None:
    used = bench.array()
    key, value = bench.memory((3).to_bytes(4, "little")), bench.memory(bytes(8))
    assert bench.call(Helper.MAP_LOOKUP_ELEM, used.struct_address(), key.base) == 0
    answer = bench.call(Helper.MAP_UPDATE_ELEM, used.struct_address(), key.base, value.base)
    assert answer == -E2BIG


def test_an_array_keeps_its_elements(bench: Bench) -> None:
    used, key = bench.array(), bench.memory(bytes(4))
    assert bench.call(Helper.MAP_DELETE_ELEM, used.struct_address(), key.base) == -EINVAL


def test_the_elements_of_a_read_only_map_are_read_only(bench: Bench) -> None:
    used, key = bench.array(flags=MapFlag.RDONLY_PROG), bench.memory(bytes(4))
    found = bench.call(Helper.MAP_LOOKUP_ELEM, used.struct_address(), key.base)
    region = bench.state.memory.region_at(found)
    assert region is not None
    assert not region.writable


def test_what_is_no_map_stops_the_program(bench: Bench) -> None:
    with pytest.raises(Trap, match="no pointer to a map"):
        bench.call(Helper.MAP_LOOKUP_ELEM, 16, 16)
