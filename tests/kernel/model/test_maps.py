"""Maps: creation, update, freeze and hash. The answers were measured on Linux 6.18.44."""

from __future__ import annotations

from errno import E2BIG, EBADF, EEXIST, EFAULT, EINVAL, ENOENT, ENOSPC, EPERM
from typing import Any

import pytest

from bpfseal.bpf.insn import encode_insns, exit_insn, mov64_imm
from bpfseal.bpf.uapi import MapFlag, MapType, ProgType
from bpfseal.btf.builder import BtfBuilder
from bpfseal.errors import KernelError
from bpfseal.kernel.model.btf_objects import BtfObject
from bpfseal.kernel.model.kernel_btf import SyntheticBtf, SyntheticSymbols
from bpfseal.kernel.model.map_calls import map_create, map_freeze, map_update
from bpfseal.kernel.model.map_rules import MapAttributes
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.profile import KFUNC_SERIES
from bpfseal.kernel.model.prog_load import prog_load
from bpfseal.kernel.model.program import ProgAttributes
from bpfseal.kernel.model.refusal import ENOTSUPP
from bpfseal.kernel.model.state import KernelState

from ..support import sha256

ANY, NOEXIST, EXIST = 0, 1, 2
MINUTE_PROGRAM = encode_insns([mov64_imm(0, 0), exit_insn()])


def u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


class Maps:
    """A kernel with shorthands that return 0 or an errno."""

    def __init__(self) -> None:
        self.state = KernelState(KFUNC_SERIES, SyntheticBtf(), SyntheticSymbols(), ())

    def make(self, type_: int, key: int, value: int, entries: int, **more: Any) -> int:
        return map_create(self.state, MapAttributes(type_, key, value, entries, **more))

    def errno_of(self, type_: int, key: int, value: int, entries: int, **more: Any) -> int:
        try:
            self.make(type_, key, value, entries, **more)
        except KernelError as error:
            return error.errno
        return 0

    def update(self, fd: int, key: bytes, value: bytes, flags: int = ANY) -> int:
        try:
            map_update(self.state, fd, key, value, flags)
        except KernelError as error:
            return error.errno
        return 0

    def at(self, fd: int) -> ModelMap:
        return self.state.fds.get_as(fd, ModelMap)

    def program(self, type_: ProgType) -> int:
        return prog_load(self.state, ProgAttributes(type_, "p", MINUTE_PROGRAM, "GPL"))


@pytest.fixture
def maps() -> Maps:
    return Maps()


@pytest.mark.parametrize(
    ("attributes", "flags"),
    [
        ((MapType.HASH, 600, 70000, 1), MapFlag.NO_PREALLOC),
        ((MapType.ARRAY, 4, 5, 1), MapFlag.MMAPABLE | MapFlag.RDONLY_PROG),
        ((MapType.PROG_ARRAY, 4, 4, 1), 0),
        ((MapType.PERF_EVENT_ARRAY, 4, 4, 1), 0),
        ((MapType.PERCPU_HASH, 4, 1032, 1), 0),
        ((MapType.PERCPU_ARRAY, 4, 1032, 1), 0),
        ((MapType.STACK_TRACE, 4, 1016, 1), 0),
        ((MapType.CGROUP_ARRAY, 4, 4, 1), 0),
        ((MapType.LRU_HASH, 1, 1, 1), MapFlag.NO_COMMON_LRU),
        ((MapType.LPM_TRIE, 8, 1, 1), MapFlag.NO_PREALLOC),
        ((MapType.DEVMAP, 4, 8, 1), 0),
        ((MapType.CGROUP_STORAGE, 16, 8, 0), 0),
        ((MapType.QUEUE, 0, 8, 1), 0),
        ((MapType.RINGBUF, 0, 0, 4096), 0),
        ((MapType.BLOOM_FILTER, 0, 8, 1), 0),
        ((MapType.ARENA, 0, 0, 1), MapFlag.MMAPABLE),
    ],
)
def test_each_type_takes_the_attributes_it_is_made_with(
    maps: Maps, attributes: tuple[int, int, int, int], flags: int
) -> None:
    assert maps.errno_of(*attributes, flags=flags) == 0


@pytest.mark.parametrize(
    ("attributes", "flags", "errno"),
    [
        ((0, 4, 4, 1), 0, EINVAL),
        ((99, 4, 4, 1), 0, EINVAL),
        ((MapType.ARRAY, 8, 4, 1), 0, EINVAL),
        ((MapType.ARRAY, 4, 0, 1), 0, EINVAL),
        ((MapType.ARRAY, 4, 4, 0), 0, EINVAL),
        ((MapType.ARRAY, 4, 4, 1), MapFlag.NO_PREALLOC, EINVAL),
        ((MapType.ARRAY, 4, 4, 1), 1 << 20, EINVAL),
        ((MapType.ARRAY, 4, 4, 1), MapFlag.RDONLY | MapFlag.WRONLY, EINVAL),
        ((MapType.ARRAY, 4, 4, 1), MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG, EINVAL),
        ((MapType.HASH, 0, 4, 1), 0, EINVAL),
        ((MapType.PERCPU_ARRAY, 4, 70000, 1), 0, E2BIG),
        ((MapType.STACK_TRACE, 4, 0, 1), 0, EINVAL),
        ((MapType.STACK_TRACE, 4, 1024, 1), 0, EINVAL),
        ((MapType.LPM_TRIE, 8, 4, 1), 0, EINVAL),
        ((MapType.LRU_HASH, 4, 4, 1), MapFlag.NO_PREALLOC, ENOTSUPP),
        ((MapType.RINGBUF, 0, 0, 4097), 0, EINVAL),
        ((MapType.RINGBUF, 0, 0, 2048), 0, EINVAL),
        ((MapType.RINGBUF, 0, 4, 4096), 0, EINVAL),
        ((MapType.TASK_STORAGE, 4, 8, 0), MapFlag.NO_PREALLOC, EINVAL),
        ((MapType.ARENA, 0, 0, 1), 0, EINVAL),
        ((MapType.STRUCT_OPS, 4, 8, 1), 0, EINVAL),
    ],
)
def test_attributes_that_a_type_refuses(
    maps: Maps, attributes: tuple[int, int, int, int], flags: int, errno: int
) -> None:
    assert maps.errno_of(*attributes, flags=flags) == errno


def test_map_extra_is_for_few_types(maps: Maps) -> None:
    assert maps.errno_of(MapType.HASH, 4, 4, 1, map_extra=1) == EINVAL
    assert maps.errno_of(MapType.BLOOM_FILTER, 0, 4, 1, map_extra=1) == 0


@pytest.mark.parametrize(("size", "errno"), [(0, EINVAL), (31, EINVAL), (32, 0), (33, EINVAL)])
def test_excl_prog_hash_is_32_bytes(maps: Maps, size: int, errno: int) -> None:
    attributes = MapAttributes(MapType.ARRAY, 4, 4, 1, excl_prog_hash=bytes(size))
    answered = 0
    try:
        map_create(maps.state, attributes)
    except KernelError as error:
        answered = error.errno
    assert answered == errno


@pytest.mark.parametrize(("name", "errno"), [("a_b.C9", 0), ("a" * 16, EINVAL), ("a b", EINVAL)])
def test_names_have_15_letters_digits_dots_and_underscores(
    maps: Maps, name: str, errno: int
) -> None:
    answered = 0
    try:
        map_create(maps.state, MapAttributes(MapType.ARRAY, 4, 4, 1, name=name))
    except KernelError as error:
        answered = error.errno
    assert answered == errno


def test_updates_of_an_array(maps: Maps) -> None:
    fd = maps.make(MapType.ARRAY, 4, 5, 2)
    cases = [(0, ANY), (1, EXIST), (1, NOEXIST), (2, ANY), (2, NOEXIST), (0, 3)]
    answers = [maps.update(fd, u32(key), b"hello", flags) for key, flags in cases]
    assert answers == [0, 0, EEXIST, E2BIG, E2BIG, EINVAL]
    assert maps.at(fd).lookup(u32(1)) == b"hello"
    assert maps.at(fd).lookup(u32(2)) is None


def test_updates_of_a_hash(maps: Maps) -> None:
    fd = maps.make(MapType.HASH, 4, 4, 2)
    cases = [(0, EXIST), (0, ANY), (0, NOEXIST), (0, EXIST), (1, NOEXIST), (2, ANY), (2, EXIST)]
    answers = [maps.update(fd, u32(key), u32(1), flags) for key, flags in cases]
    assert answers == [ENOENT, 0, EEXIST, 0, 0, E2BIG, ENOENT]
    assert maps.at(fd).facts.entry_count == 2


def test_an_lru_hash_makes_room(maps: Maps) -> None:
    fd = maps.make(MapType.LRU_HASH, 4, 4, 1)
    assert [maps.update(fd, u32(key), u32(1)) for key in range(3)] == [0, 0, 0]
    assert maps.at(fd).facts.entry_count == 1


def test_updates_of_a_trie(maps: Maps) -> None:
    fd = maps.make(MapType.LPM_TRIE, 8, 4, 2, flags=MapFlag.NO_PREALLOC)
    keys = [u32(32) + u32(n) for n in (1, 2, 3)] + [u32(33) + u32(1)]
    assert [maps.update(fd, key, u32(1)) for key in keys] == [0, 0, ENOSPC, EINVAL]


def test_a_queue_has_no_key_and_can_drop_its_oldest(maps: Maps) -> None:
    fd = maps.make(MapType.QUEUE, 0, 4, 1)
    assert [maps.update(fd, b"", u32(1), f) for f in (0, 0, NOEXIST, EXIST)] == [
        0,
        E2BIG,
        EINVAL,
        0,
    ]


def test_an_inner_map_must_be_like_the_one_given_at_creation(maps: Maps) -> None:
    template = maps.make(MapType.ARRAY, 4, 5, 2)
    outer = maps.make(MapType.ARRAY_OF_MAPS, 4, 4, 2, inner_map_fd=template)
    same = maps.make(MapType.ARRAY, 4, 5, 2)
    longer = maps.make(MapType.ARRAY, 4, 5, 3)
    other = maps.make(MapType.HASH, 4, 5, 2)
    cases = [(0, same), (0, longer), (0, other), (0, 999), (2, same), (0, 1)]
    answers = [maps.update(outer, u32(key), u32(fd)) for key, fd in cases]
    assert answers == [0, EINVAL, EINVAL, EBADF, E2BIG, EINVAL]
    assert maps.update(outer, u32(0), u32(same), NOEXIST) == EINVAL


def test_inner_hashes_may_differ_in_size(maps: Maps) -> None:
    template = maps.make(MapType.HASH, 4, 4, 2)
    outer = maps.make(MapType.HASH_OF_MAPS, 4, 4, 1, inner_map_fd=template)
    larger = maps.make(MapType.HASH, 4, 4, 5)
    cases = [(0, template, ANY), (0, larger, ANY), (1, template, ANY), (0, template, NOEXIST)]
    answers = [maps.update(outer, u32(key), u32(fd), flags) for key, fd, flags in cases]
    assert answers == [0, 0, E2BIG, EEXIST]


def test_what_cannot_be_an_inner_map(maps: Maps) -> None:
    array = maps.make(MapType.ARRAY, 4, 4, 1)
    programs = maps.make(MapType.PROG_ARRAY, 4, 4, 1)
    nested = maps.make(MapType.ARRAY_OF_MAPS, 4, 4, 1, inner_map_fd=array)
    answers = [
        maps.errno_of(MapType.ARRAY_OF_MAPS, 4, 4, 1, inner_map_fd=fd)
        for fd in (0, 999, nested, programs)
    ]
    assert answers == [EINVAL, EBADF, EINVAL, ENOTSUPP]


def test_a_prog_array_takes_programs_of_one_type(maps: Maps) -> None:
    table = maps.make(MapType.PROG_ARRAY, 4, 4, 2)
    one, other = maps.program(ProgType.SOCKET_FILTER), maps.program(ProgType.KPROBE)
    cases = [(0, one, 0), (1, other, 0), (0, 999, 0), (0, table, 0), (2, one, 0), (0, one, EXIST)]
    answers = [maps.update(table, u32(key), u32(fd), flags) for key, fd, flags in cases]
    assert answers == [0, EINVAL, EBADF, EINVAL, E2BIG, EINVAL]


def test_a_map_lives_as_long_as_another_contains_it(maps: Maps) -> None:
    inner = maps.make(MapType.ARRAY, 4, 4, 1)
    outer = maps.make(MapType.ARRAY_OF_MAPS, 4, 4, 1, inner_map_fd=inner)
    contained = maps.at(inner)
    maps.update(outer, u32(0), u32(inner))
    maps.state.fds.close(inner)
    assert contained.alive
    maps.state.fds.close(outer)
    assert not contained.alive


def test_a_frozen_map_takes_no_update_and_no_second_freeze(maps: Maps) -> None:
    fd = maps.make(MapType.ARRAY, 4, 4, 1)
    map_freeze(maps.state, fd)
    assert maps.update(fd, u32(0), u32(1)) == EPERM
    with pytest.raises(KernelError) as refused:
        map_freeze(maps.state, fd)
    assert refused.value.errno == EPERM


def test_a_map_that_user_space_may_not_write_takes_no_update(maps: Maps) -> None:
    assert (
        maps.update(maps.make(MapType.ARRAY, 4, 4, 1, flags=MapFlag.RDONLY), u32(0), u32(1))
        == EPERM
    )


def test_a_key_or_value_that_is_too_short_is_efault(maps: Maps) -> None:
    fd = maps.make(MapType.ARRAY, 4, 8, 1)
    assert maps.update(fd, u32(0), u32(0)) == EFAULT
    assert maps.update(fd, b"", bytes(8)) == EFAULT


def test_the_hash_covers_all_entries_each_rounded_up_to_8(maps: Maps) -> None:
    fd = maps.make(MapType.ARRAY, 4, 5, 2)
    maps.update(fd, u32(1), b"hello")
    map_freeze(maps.state, fd)
    assert maps.at(fd).user_hash() == sha256(bytes(8) + b"hello\0\0\0")


def test_user_space_gets_no_hash_of_a_map_that_is_not_frozen_or_no_array(maps: Maps) -> None:
    array, table = maps.make(MapType.ARRAY, 4, 5, 2), maps.make(MapType.HASH, 4, 4, 1)
    for fd, errno in ((array, EPERM), (table, EINVAL)):
        with pytest.raises(KernelError) as refused:
            maps.at(fd).user_hash()
        assert refused.value.errno == errno


def test_sha_and_excl_stand_in_the_struct_where_programs_read_them(maps: Maps) -> None:
    attributes = MapAttributes(MapType.ARRAY, 4, 8, 1, excl_prog_hash=bytes(32))
    exclusive = maps.at(map_create(maps.state, attributes))
    address = exclusive.struct_address()
    assert maps.state.memory.read(address, 36) == bytes(32) + u32(1)
    digest = exclusive.compute_hash()
    assert maps.state.memory.read(address, 32) == digest == sha256(bytes(8))


def test_types_of_key_and_value_must_be_as_large_as_these(maps: Maps) -> None:
    builder = BtfBuilder()
    u32_id = builder.add_int("u32", 4)
    u64_id = builder.add_int("u64", 8)
    btf = maps.state.fds.install(BtfObject.load(builder.encode()))

    def errno(type_: int, key_type: int, value_type: int) -> int:
        more = {"btf_fd": btf, "btf_key_type_id": key_type, "btf_value_type_id": value_type}
        return maps.errno_of(type_, 4, 8 if type_ != MapType.PERF_EVENT_ARRAY else 4, 1, **more)

    assert errno(MapType.HASH, u32_id, u64_id) == 0
    assert errno(MapType.HASH, u64_id, u64_id) == EINVAL
    assert errno(MapType.HASH, u32_id, u32_id) == EINVAL
    assert errno(MapType.HASH, u32_id, 99) == EINVAL
    assert errno(MapType.HASH, u32_id, 0) == EINVAL
    assert errno(MapType.ARRAY, 0, u64_id) == EINVAL
    assert errno(MapType.PERF_EVENT_ARRAY, u32_id, u32_id) == ENOTSUPP


def test_the_value_of_a_one_entry_array_has_an_address(maps: Maps) -> None:
    one = maps.at(maps.make(MapType.ARRAY, 4, 8, 1))
    maps.state.memory.store(one.value_address(4), 4, 7)
    assert one.lookup(u32(0)) == u32(0) + u32(7)
    for attributes, offset, errno in (
        ((MapType.ARRAY, 4, 8, 1), 8, EINVAL),
        ((MapType.ARRAY, 4, 8, 2), 0, ENOTSUPP),
        ((MapType.HASH, 4, 8, 1), 0, EINVAL),
        ((MapType.PERCPU_ARRAY, 4, 8, 1), 0, EINVAL),
    ):
        with pytest.raises(KernelError) as refused:
            maps.at(maps.make(*attributes)).value_address(offset)
        assert refused.value.errno == errno
