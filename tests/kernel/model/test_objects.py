"""Info of objects, and the calls of a skeleton object on the model."""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import EACCES, EEXIST, EFAULT, EINVAL, ENOENT, ENOSPC, EPERM

import pytest

from bpfseal.bpf import attr
from bpfseal.bpf.attr import AttrLayout
from bpfseal.bpf.insn import Insn, encode_insns, exit_insn, mov64_imm
from bpfseal.bpf.uapi import AttachType, Cmd, LinkType, MapFlag, MapType, ProgType
from bpfseal.errors import CapabilityError, KernelError
from bpfseal.kernel.linux.syscalls import Buffer, bpf
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.kernel.protocol import LinkCreate, MapCreate, MapKernel, PerfEvent, ProgLoad
from bpfseal.release import RELEASES
from bpfseal.signing import keygen, mldsa
from support.btf_writer import BtfWriter

from .inner import records

KEY = bytes(4)
PROGRAM = [mov64_imm(0, 0), exit_insn()]


class Caller:
    """Raw calls on the model, or on this machine's kernel."""

    def __init__(self, model: ModelKernel | None) -> None:
        self._model = model
        self._buffers: dict[int, Buffer] = {}

    def put(self, data: bytes) -> int:
        if self._model is not None:
            return self._model.allocate(data)
        buffer = Buffer(data)
        self._buffers[buffer.address] = buffer
        return buffer.address

    def get(self, address: int, size: int) -> bytes:
        if self._model is not None:
            return self._model.read_memory(address, size)
        return self._buffers[address].data[:size]

    def call(self, command: Cmd, packed: bytes) -> int:
        given = bytearray(packed)
        if self._model is not None:
            return self._model.sys_bpf(command, given)
        return bpf(command, given)

    def close(self, fd: int) -> None:
        if self._model is not None:
            self._model.close(fd)
        else:
            os.close(fd)

    def info(self, fd: int, layout: AttrLayout, **asked: int) -> dict[str, int]:
        packed = layout.pack_fields(asked)
        place = self.put(packed)
        given = attr.OBJ_GET_INFO_BY_FD.pack(bpf_fd=fd, info_len=len(packed), info=place)
        self.call(Cmd.OBJ_GET_INFO_BY_FD, given)
        return layout.unpack(self.get(place, len(packed)))


def types() -> tuple[bytes, int]:
    btf = BtfWriter()
    main = btf.add_func("main", btf.add_func_proto(0, []))
    return btf.encode(), main


def load(caller: Caller, insns: list[Insn]) -> tuple[int, int]:
    """Load a socket filter with its BTF; return the fds of both."""
    raw, main = types()
    code = encode_insns(insns)
    btf_attr = attr.BTF_LOAD.pack(btf=caller.put(raw), btf_size=len(raw))
    btf = caller.call(Cmd.BTF_LOAD, btf_attr)
    packed = attr.PROG_LOAD.pack(
        prog_type=ProgType.SOCKET_FILTER,
        insn_cnt=len(insns),
        insns=caller.put(code),
        license=caller.put(b"GPL\0"),
        prog_name=b"filter",
        prog_btf_fd=btf,
        func_info=caller.put(records((0, main)).raw),
        func_info_cnt=1,
        func_info_rec_size=8,
    )
    return caller.call(Cmd.PROG_LOAD, packed), btf


COMPARED = (
    "type",
    "xlated_prog_len",
    "nr_map_ids",
    "nr_func_info",
    "func_info_rec_size",
    "line_info_rec_size",
    "nr_line_info",
    "nr_jited_ksyms",
    "nr_prog_tags",
    "verified_insns",
    "attach_btf_id",
)


def told_of(caller: Caller) -> list[object]:
    """What a kernel tells of a program and of its BTF, without ids and addresses."""
    program, btf = load(caller, PROGRAM)
    insns = caller.put(bytes(16))
    info = caller.info(program, attr.PROG_INFO, xlated_prog_len=16, xlated_prog_insns=insns)
    of_btf = caller.info(btf, attr.BTF_INFO)
    place = caller.put(bytes(232))
    given = attr.OBJ_GET_INFO_BY_FD.pack(bpf_fd=program, info_len=232, info=place)
    caller.call(Cmd.OBJ_GET_INFO_BY_FD, given)
    raw = caller.get(place, 232)
    told = [
        {name: info[name] for name in COMPARED},
        caller.get(insns, 16),
        raw[8:16],  # the tag
        raw[64:80],  # the name
        raw[84],  # gpl_compatible
        {name: of_btf[name] for name in ("btf_size", "name_len", "kernel_btf")},
        info["btf_id"] == of_btf["id"],
    ]
    caller.close(program)
    caller.close(btf)
    return told


def test_a_program_and_its_btf() -> None:
    first, insns, _tag, name, is_gpl, of_btf, same = told_of(Caller(ModelKernel()))
    assert isinstance(first, dict)
    assert (first["type"], first["xlated_prog_len"]) == (ProgType.SOCKET_FILTER, 16)
    assert insns == encode_insns(PROGRAM)
    assert (name, is_gpl, same) == (b"filter".ljust(16, b"\0"), 1, True)
    assert of_btf == {"btf_size": len(types()[0]), "name_len": 0, "kernel_btf": 0}


@pytest.mark.skipif(os.geteuid() != 0, reason="loading BPF programs needs root")
def test_the_model_tells_of_both_what_this_machines_kernel_tells() -> None:
    assert told_of(Caller(ModelKernel(profile=PROFILES["6.18"]))) == told_of(Caller(None))


def errno_of(call: Callable[[], object]) -> int:
    with pytest.raises(KernelError) as refused:
        call()
    return refused.value.errno


def test_info_that_is_refused() -> None:
    kernel = ModelKernel()
    caller = Caller(kernel)
    program, btf = load(caller, PROGRAM)

    def ask(fd: int, layout: AttrLayout, **asked: int) -> Callable[[], object]:
        return lambda: caller.info(fd, layout, **asked)

    assert errno_of(ask(program, attr.PROG_INFO, nr_func_info=1, func_info_rec_size=12)) == EINVAL
    assert errno_of(ask(program, attr.PROG_INFO, xlated_prog_len=8, xlated_prog_insns=1)) == EFAULT
    assert errno_of(ask(btf, attr.BTF_INFO, name_len=1)) == EINVAL
    vmlinux = kernel.open_kernel_btf()
    room = caller.put(bytes(4))
    assert errno_of(ask(vmlinux, attr.BTF_INFO, name=room, name_len=4)) == ENOSPC
    assert caller.get(room, 4) == b"vml\0"
    assert errno_of(ask(0, attr.PROG_INFO)) == EINVAL


def test_the_maps_of_a_program_by_their_ids() -> None:
    kernel = ModelKernel()
    caller = Caller(kernel)
    used = kernel.map_create(MapCreate(MapType.ARRAY, "m", 4, 8, 1))
    program = kernel.prog_load(
        ProgLoad(
            ProgType.SOCKET_FILTER,
            "p",
            encode_insns(PROGRAM),
            "GPL",
            fd_array=(used,),
            fd_array_cnt=1,
        )
    )
    ids = caller.put(bytes(8))
    info = caller.info(program, attr.PROG_INFO, nr_map_ids=2, map_ids=ids)
    assert info["nr_map_ids"] == 1
    of_map = caller.info(used, attr.MAP_INFO)
    assert int.from_bytes(caller.get(ids, 4), "little") == of_map["id"]


def link(kernel: ModelKernel) -> int:
    program = kernel.prog_load(ProgLoad(ProgType.XDP, "drop", encode_insns(PROGRAM), "GPL"))
    return kernel.link_create(LinkCreate(program, AttachType.XDP, target=2))


def test_a_link_tells_its_kind_and_its_program() -> None:
    kernel = ModelKernel()
    info = Caller(kernel).info(link(kernel), attr.LINK_INFO)
    assert info == {"type": LinkType.XDP, "id": 1, "prog_id": 1}
    assert kernel.links[0].target == "fd 2"


def test_the_model_is_a_kernel_of_skeleton_objects() -> None:
    kernel: MapKernel = ModelKernel()
    fd = kernel.map_create(MapCreate(MapType.HASH, "m", 4, 8, 2))
    kernel.map_update(fd, KEY, b"12345678")
    assert kernel.map_lookup(fd, KEY, 8) == b"12345678"
    assert kernel.map_next_key(fd, None, 4) == KEY
    assert kernel.map_next_key(fd, KEY, 4) is None
    assert kernel.map_lookup_and_delete(fd, KEY, 8) == b"12345678"
    assert kernel.map_lookup(fd, KEY, 8) is None
    assert errno_of(lambda: kernel.map_delete(fd, KEY)) == ENOENT
    assert errno_of(lambda: kernel.map_lookup(fd, b"", 8)) == EFAULT
    assert kernel.possible_cpus == 1


def test_values_in_memory_are_live() -> None:
    kernel = ModelKernel()
    fd = kernel.map_create(MapCreate(MapType.ARRAY, "m", 4, 8, 2, MapFlag.MMAPABLE))
    memory = kernel.map_memory(fd, 0, 4096, writable=True)
    memory.view[8:12] = b"abcd"
    assert kernel.map_lookup(fd, (1).to_bytes(4, "little"), 8) == b"abcd" + bytes(4)
    kernel.map_update(fd, KEY, b"12345678")
    assert bytes(memory.view[:8]) == b"12345678"
    memory.close()
    memory.close()
    kernel.map_freeze(fd)
    shared = kernel.map_memory(fd, 0, 16, writable=False)
    assert shared.view.readonly
    shared.close()
    assert errno_of(lambda: kernel.map_memory(fd, 0, 16, writable=True)) == EPERM
    assert errno_of(lambda: kernel.map_memory(fd, 0, 8192, writable=False)) == EINVAL
    assert errno_of(lambda: kernel.map_memory(fd, 8, 8, writable=False)) == EINVAL
    only = MapFlag.MMAPABLE | MapFlag.RDONLY_PROG
    constants = kernel.map_create(MapCreate(MapType.ARRAY, "m", 4, 8, 1, only))
    assert errno_of(lambda: kernel.map_memory(constants, 0, 8, writable=True)) == EACCES


def test_pins_keep_what_they_name() -> None:
    kernel = ModelKernel()
    fd = kernel.map_create(MapCreate(MapType.HASH, "m", 4, 8, 2))
    kernel.pin(fd, "/sys/fs/bpf/m")
    kernel.close(fd)
    again = kernel.open_pinned("/sys/fs/bpf/m")
    assert kernel.map(again).name == "m"
    assert errno_of(lambda: kernel.pin(again, "/sys/fs/bpf/m")) == EEXIST
    assert errno_of(lambda: kernel.pin(again, "m")) == EPERM
    assert errno_of(lambda: kernel.pin(0, "/sys/fs/bpf/x")) == EINVAL
    assert errno_of(lambda: kernel.open_pinned("/sys/fs/bpf/x")) == ENOENT
    caller = Caller(kernel)
    packed = attr.OBJ.pack(pathname=caller.put(b"/sys/fs/bpf/m\0"))
    assert kernel.map(caller.call(Cmd.OBJ_GET, packed)).name == "m"


def test_links_detach_while_they_are_open() -> None:
    kernel = ModelKernel()
    fd = link(kernel)
    kernel.link_detach(fd)
    kernel.close(fd)
    assert [(call.name, call.result) for call in kernel.trace][-3:] == [
        ("link_create", fd),
        ("link_detach", 0),
        ("close", 0),
    ]


def test_what_the_model_lacks_it_says() -> None:
    kernel = ModelKernel()
    program = kernel.prog_load(ProgLoad(ProgType.XDP, "p", encode_insns(PROGRAM), "GPL"))
    calls: list[Callable[[], object]] = [
        lambda: kernel.prog_test_run(program, bytes(14)),
        lambda: kernel.iter_create(3),
        lambda: kernel.perf_event_open(PerfEvent(1, 2)),
        lambda: kernel.perf_event_enable(3),
    ]
    for call in calls:
        with pytest.raises(CapabilityError, match="the kernel model has no"):
            call()


@pytest.mark.skipif(not mldsa.available(), reason="the installed cryptography has no ML-DSA")
@pytest.mark.parametrize("name", PROFILES)
def test_keys_of_a_kind_are_taken_where_the_release_has_it(name: str) -> None:
    certificate = keygen.generate("mldsa44", "x").certificate_der
    kernel = ModelKernel(profile=PROFILES[name])
    release = RELEASES.get(name)
    if release is not None and release.has_algorithm("mldsa44") != "no":
        assert kernel.keyrings.add_key(-3, certificate)
    else:
        with pytest.raises(KernelError) as refused:
            kernel.keyrings.add_key(-3, certificate)
        # Parsers that know the name find out later that there is no such algorithm.
        knows = "mldsa44" in PROFILES[name].named_algorithms
        assert refused.value.errno_name == ("ENOENT" if knows else "ENOPKG")
