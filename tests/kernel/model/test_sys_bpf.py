"""bpf(2) with raw attributes: what scenarios do not show."""

from __future__ import annotations

import random
from errno import E2BIG, EFAULT, EINVAL, ENOENT, EPERM

import pytest

from bpfseal.bpf import attr
from bpfseal.bpf.insn import encode_insns, exit_insn, mov64_imm
from bpfseal.bpf.uapi import AttachType, Cmd, MapType, ProgType
from bpfseal.errors import BpfsealError, KernelError
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.kernel.model.user_calls import COMMANDS
from bpfseal.kernel.protocol import MapCreate, ProgLoad

ROUNDS = 4000


def errno_of(kernel: ModelKernel, command: int, attributes: bytes) -> int:
    with pytest.raises(KernelError) as refused:
        kernel.sys_bpf(command, attributes)
    return refused.value.errno


def test_the_kernel_writes_back_into_a_bytearray() -> None:
    kernel = ModelKernel()
    fd = kernel.map_create(MapCreate(MapType.ARRAY, "m", 4, 8, 3))
    info = kernel.allocate(bytes(100))
    given = bytearray(attr.OBJ_GET_INFO_BY_FD.pack(bpf_fd=fd, info_len=100, info=info))
    assert kernel.sys_bpf(Cmd.OBJ_GET_INFO_BY_FD, given) == 0
    told = attr.MAP_INFO.unpack(kernel.read_memory(info, 100))
    assert (told["type"], told["value_size"], told["max_entries"]) == (MapType.ARRAY, 8, 3)
    assert attr.MAP_INFO.name_field(kernel.read_memory(info, 100), "name") == "m"


def test_a_pointer_of_user_space_does_not_lead_into_the_kernel() -> None:
    kernel = ModelKernel()
    fd = kernel.map_create(MapCreate(MapType.ARRAY, "m", 4, 8, 1))
    inside = kernel._state.maps[0].value_address(0)
    packed = attr.MAP_ELEM.pack(map_fd=fd, key=inside, value=inside)
    assert errno_of(kernel, Cmd.MAP_LOOKUP_ELEM, packed) == EFAULT
    assert errno_of(kernel, Cmd.MAP_UPDATE_ELEM, packed) == EFAULT


def test_a_call_is_noted_with_the_rule_that_refused_it() -> None:
    kernel = ModelKernel()
    assert errno_of(kernel, 9999, bytes(8)) == EINVAL
    assert errno_of(kernel, Cmd.MAP_FREEZE, bytes(5000)) == E2BIG
    assert [(call.name, call.result) for call in kernel.trace] == [
        ("command 9999", -EINVAL),
        ("map_freeze", -E2BIG),
    ]
    assert all(call.rule for call in kernel.trace)


def load(kernel: ModelKernel, kind: ProgType, **changes: int) -> int:
    insns = encode_insns([mov64_imm(0, 0), exit_insn()])
    request = ProgLoad(kind, "probe", insns, "GPL", flags=changes.get("flags", 0))
    return kernel.prog_load(request)


def test_a_link_keeps_its_program_and_is_on_record() -> None:
    kernel = ModelKernel()
    fd = load(kernel, ProgType.RAW_TRACEPOINT)
    name = kernel.allocate(b"sched_switch\0")
    opened = kernel.sys_bpf(
        Cmd.RAW_TRACEPOINT_OPEN, attr.RAW_TRACEPOINT_OPEN.pack(name=name, prog_fd=fd)
    )
    kernel.close(fd)
    assert kernel.open_fds[opened] == "link of probe to sched_switch"
    assert [(link.program, link.target) for link in kernel.links] == [("probe", "sched_switch")]


def test_a_link_made_by_link_create_says_the_attach_type() -> None:
    kernel = ModelKernel()
    fd = load(kernel, ProgType.XDP)
    packed = attr.LINK_CREATE.pack(prog_fd=fd, target_fd=2, attach_type=AttachType.XDP)
    kernel.sys_bpf(Cmd.LINK_CREATE, packed)
    assert [(link.program, link.attach_type) for link in kernel.links] == [("probe", 37)]


@pytest.mark.parametrize(
    ("kind", "named", "errno"), [("XDP", True, 22), ("RAW_TRACEPOINT", False, 14)]
)
def test_what_no_raw_tracepoint_takes(kind: str, named: bool, errno: int) -> None:
    kernel = ModelKernel()
    fd = load(kernel, ProgType[kind])
    name = kernel.allocate(b"x\0") if named else 0
    packed = attr.RAW_TRACEPOINT_OPEN.pack(name=name, prog_fd=fd)
    assert errno_of(kernel, Cmd.RAW_TRACEPOINT_OPEN, packed) == errno


def test_an_element_is_deleted_once() -> None:
    kernel = ModelKernel()
    fd = kernel.map_create(MapCreate(MapType.HASH, "m", 4, 8, 1))
    kernel.map_update(fd, bytes(4), bytes(8))
    packed = attr.MAP_DELETE_ELEM.pack(map_fd=fd, key=kernel.allocate(bytes(4)))
    assert kernel.sys_bpf(Cmd.MAP_DELETE_ELEM, packed) == 0
    assert errno_of(kernel, Cmd.MAP_DELETE_ELEM, packed) == ENOENT


def test_the_elements_of_an_array_stay() -> None:
    kernel = ModelKernel()
    fd = kernel.map_create(MapCreate(MapType.ARRAY, "m", 4, 8, 1))
    packed = attr.MAP_DELETE_ELEM.pack(map_fd=fd, key=kernel.allocate(bytes(4)))
    assert errno_of(kernel, Cmd.MAP_DELETE_ELEM, packed) == EINVAL
    kernel.map_freeze(fd)
    assert errno_of(kernel, Cmd.MAP_DELETE_ELEM, packed) == EPERM


@pytest.mark.parametrize("name", ["kfunc", "6.12", "7.3"])
def test_whatever_the_attributes_are_the_answer_is_a_value_or_an_errno(name: str) -> None:
    chance = random.Random(2026)  # noqa: S311
    kernel = ModelKernel(profile=PROFILES[name])
    places = [kernel.allocate(chance.randbytes(64)) for _ in range(4)]
    interesting = [0, 1, 2, 3, 4, 31, 32, 0x1000, 0xFFFFFFFF, *places]
    for _ in range(ROUNDS):
        command = chance.choice([*COMMANDS, 77])
        layout = COMMANDS[command][0] if command in COMMANDS else attr.MAP_FREEZE
        given = bytearray(chance.choice([4, layout.size, 128, 168, 200]))
        for field in layout.fields.values():
            if field.end <= len(given) and chance.random() < 0.6:
                value = chance.choice(interesting) & ((1 << 8 * field.size) - 1)
                given[field.offset : field.end] = value.to_bytes(field.size, "little")
        try:
            opened = kernel.sys_bpf(command, given)
        except KernelError as error:
            if not 0 < error.errno <= 524:
                pytest.fail(f"{Cmd(command).name}: errno {error.errno}")
        except BpfsealError as error:
            pytest.fail(f"{Cmd(command).name}: {error!r}")
        else:
            assert opened >= 0
            if opened > 2:
                kernel.close(opened)
