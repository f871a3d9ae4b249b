"""The address space of the kernel model: regions are bounded and cannot reach each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfseal.errors import BpfsealError
from bpfseal.kernel.model import memory as memory_module
from bpfseal.kernel.model.memory import (
    KERNEL_BASE,
    MAX_REGION_SIZE,
    SLOT_SIZE,
    USER_END,
    Memory,
    MemoryFault,
)


@pytest.fixture
def memory() -> Memory:
    return Memory()


def test_a_region_shares_the_bytes_of_its_owner(memory: Memory) -> None:
    data = bytearray(b"abcd")
    region = memory.map("value", data)
    memory.write(region.base + 1, b"XY")
    assert data == b"aXYd"
    data[0] = ord("Z")
    assert memory.read(region.base, 4) == b"ZXYd"


def test_numbers_are_little_endian_and_unsigned(memory: Memory) -> None:
    region = memory.map("value", bytearray(8))
    memory.store(region.base, 4, 0x11223344)
    assert bytes(region.data) == bytes.fromhex("4433221100000000")
    memory.store(region.base, 8, -2)
    assert memory.load(region.base, 8) == 0xFFFFFFFF_FFFFFFFE


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_store_writes_the_low_bytes_and_no_other(memory: Memory, size: int) -> None:
    region = memory.map("value", bytearray(16))
    memory.store(region.base + 4, size, 0xF1E2D3C4B5A69788)
    assert region.data[4 : 4 + size] == bytes.fromhex("8897a6b5c4d3e2f1")[:size]
    assert sum(map(bool, region.data)) == size


def test_kernel_and_user_regions_lie_in_their_halves(memory: Memory) -> None:
    kernel = [memory.map("map", bytearray(1)) for _ in range(3)]
    user = [memory.map("buffer", bytearray(1), user=True) for _ in range(3)]
    assert all(region.base >= KERNEL_BASE for region in kernel)
    assert all(SLOT_SIZE <= region.base < USER_END for region in user)
    assert all(region.base % SLOT_SIZE == 0 for region in kernel + user)
    assert len({region.base for region in kernel + user}) == 6


def test_the_region_of_an_address_is_known(memory: Memory) -> None:
    region = memory.map("value", bytearray(4), user=True)
    assert memory.region_at(region.base + 3) is region
    assert memory.region_at(region.base + 4) is None
    assert memory.region_at(region.base - 1) is None


@pytest.mark.parametrize(
    ("offset", "size", "message"),
    [
        (512, 4, "read of 4 bytes at stack+512, behind the end of 512"),
        (508, 8, "read of 8 bytes at stack+508, behind the end of 512"),
        (70_000, 1, "read of 1 bytes at stack+70000, behind the end of 512"),
        (-8, 8, "read of 8 bytes at stack-8, before the start"),
        (-4, 8, "read of 8 bytes at stack-4, before the start"),
        (0, 1 << 40, "read of 1099511627776 bytes at stack+0, behind the end of 512"),
    ],
)
def test_a_fault_names_the_region_it_is_near(
    memory: Memory, offset: int, size: int, message: str
) -> None:
    stack = memory.map("stack", bytearray(512))
    with pytest.raises(MemoryFault) as caught:
        memory.read(stack.base + offset, size)
    assert str(caught.value) == message
    assert (caught.value.address, caught.value.size) == (stack.base + offset, size)
    assert (caught.value.access, caught.value.region) == ("read", stack)


def test_an_address_just_below_a_region_names_it_and_not_the_one_before(memory: Memory) -> None:
    _, above = memory.map("below", bytearray(8)), memory.map("above", bytearray(8))
    with pytest.raises(MemoryFault, match="above-1, before the start"):
        memory.load(above.base - 1, 1)


@pytest.mark.parametrize("address", [0, 8, 0xDEADBEEF, -1, (1 << 64) - 22, 1 << 64, KERNEL_BASE])
def test_an_address_with_nothing_near_is_named_itself(memory: Memory, address: int) -> None:
    with pytest.raises(MemoryFault, match="where nothing is mapped") as caught:
        memory.load(address, 4)
    assert caught.value.region is None


def test_a_read_only_region_can_be_read_but_not_written(memory: Memory) -> None:
    region = memory.map("rodata", bytearray(b"abcd"), writable=False)
    assert memory.read(region.base, 4) == b"abcd"
    with pytest.raises(MemoryFault, match=r"^write of 2 bytes at rodata\+1, which is read-only$"):
        memory.write(region.base + 1, b"XY")
    assert region.data == b"abcd"


def test_zero_bytes_can_be_accessed_anywhere(memory: Memory) -> None:
    region = memory.map("rodata", bytearray(4), writable=False)
    for address in (0, region.base, region.base + 4, region.base + 5):
        assert memory.read(address, 0) == b""
        memory.write(address, b"")
        assert memory.cstring(address, 0) == b""


def test_a_negative_size_is_a_fault(memory: Memory) -> None:
    region = memory.map("value", bytearray(8))
    with pytest.raises(MemoryFault):
        memory.read(region.base + 8, -4)


def test_a_string_ends_at_its_zero_byte_or_at_the_limit(memory: Memory) -> None:
    region = memory.map("name", bytearray(b"kprobe\0x"))
    assert memory.cstring(region.base, 16) == b"kprobe"
    assert memory.cstring(region.base, 6) == b"kprobe"
    assert memory.cstring(region.base, 3) == b"kpr"
    assert memory.cstring(region.base + 6, 16) == b""


def test_a_string_that_its_region_ends_is_a_fault(memory: Memory) -> None:
    region = memory.map("name", bytearray(b"kprobe"))
    with pytest.raises(MemoryFault, match=r"name\+0, behind the end of 6"):
        memory.cstring(region.base, 16)
    with pytest.raises(MemoryFault, match=r"name\+6, behind the end of 6"):
        memory.cstring(region.base + 6, 16)


def test_an_unmapped_region_faults_and_its_bytes_stay(memory: Memory) -> None:
    region = memory.map("value", bytearray(b"abcd"))
    memory.unmap(region)
    with pytest.raises(MemoryFault, match="where nothing is mapped"):
        memory.read(region.base, 1)
    assert region.data == b"abcd"


def test_a_freed_slot_is_reused_only_when_no_fresh_one_is_left(memory: Memory) -> None:
    first, second = (memory.map(name, bytearray(1)) for name in "ab")
    memory.unmap(second)
    memory.unmap(first)
    fresh = [memory.map("c", bytearray(1)) for _ in range(0x7FFF - 2)]
    assert not {first.base, second.base} & {region.base for region in fresh}
    assert memory.map("d", bytearray(1)).base == second.base
    assert memory.map("e", bytearray(1)).base == first.base
    with pytest.raises(BpfsealError, match="address space is full"):
        memory.map("f", bytearray(1))


def test_a_region_too_large_for_its_slot_is_refused(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 2 * MAX_REGION_SIZE < SLOT_SIZE
    monkeypatch.setattr(memory_module, "MAX_REGION_SIZE", 4096)
    memory.map("fits", bytearray(4096))
    with pytest.raises(BpfsealError, match="blob: 4097 bytes are too many"):
        memory.map("blob", bytearray(4097))


SIZES = st.lists(st.integers(0, 64), min_size=2, max_size=6)
DISPLACEMENTS = st.one_of(st.integers(-80, 80), st.integers(-(1 << 31) + 1, (1 << 31) - 1))


@given(sizes=SIZES, which=st.integers(0), displacement=DISPLACEMENTS, size=st.integers(1, 80))
def test_an_access_less_than_2_gib_from_a_region_reaches_it_or_nothing(
    sizes: list[int], which: int, displacement: int, size: int
) -> None:
    memory = Memory()
    others = [memory.map(f"r{n}", bytearray(length)) for n, length in enumerate(sizes)]
    region = others.pop(which % len(others))
    inside = displacement >= 0 and displacement + size <= len(region.data)
    try:
        memory.write(region.base + displacement, b"\xff" * size)
    except MemoryFault:
        assert not inside
        assert not any(region.data)
    else:
        assert inside
        assert region.data.count(0xFF) == size
    assert not any(any(other.data) for other in others)


@given(sizes=SIZES, address=st.integers(0, (1 << 64) - 1), size=st.integers(1, 1 << 63))
def test_a_random_address_is_a_fault_unless_a_region_holds_all_of_it(
    sizes: list[int], address: int, size: int
) -> None:
    memory = Memory()
    regions = [memory.map(f"r{n}", bytearray(length)) for n, length in enumerate(sizes)]
    held = any(r.base <= address and address + size <= r.base + len(r.data) for r in regions)
    try:
        memory.read(address, size)
    except MemoryFault:
        assert not held
    else:
        assert held
