"""CO-RE by this machine's kernel and by the model: the same insns and the same log."""

from __future__ import annotations

import os
import random
from functools import cache
from typing import Final

import pytest

from bpfseal.bpf import attr
from bpfseal.bpf.insn import Insn, decode_insns, encode_insns, exit_insn, mov64_imm
from bpfseal.bpf.uapi import Cmd, ProgType
from bpfseal.btf.btf import Btf, BtfType
from bpfseal.btf.core import POISONED, Relocation, RelocationError, RelocationKind, Relocator
from bpfseal.btf.core.matching import TargetTypes
from bpfseal.btf.kinds import Kind
from bpfseal.errors import KernelError
from bpfseal.kernel.linux.syscalls import Buffer, bpf
from bpfseal.kernel.model.kernel_btf import RUNNING_KERNEL
from support.btf_writer import BtfWriter

COUNT: Final = 40
LOG_SIZE: Final = 1 << 20
KINDS: Final = (
    RelocationKind.FIELD_BYTE_OFFSET,
    RelocationKind.FIELD_BYTE_SIZE,
    RelocationKind.FIELD_EXISTS,
    RelocationKind.FIELD_SIGNED,
)


@cache
def kernel_types() -> TargetTypes:
    """The types of the running kernel, or skip."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not RUNNING_KERNEL.exists():
        pytest.skip(f"needs {RUNNING_KERNEL}")
    return TargetTypes(Btf.from_bytes(RUNNING_KERNEL.read_bytes(), trusted=True))


class Programs:
    """A program whose types each have one of a kernel struct's members, all at offset 0.

    With an even seed all members are there in the kernel.
    """

    def __init__(self, types: TargetTypes, seed: int) -> None:
        self._types = types
        self._is_known = seed % 2 == 0
        self._random = random.Random(seed)  # noqa: S311 (reproducible, no secret)
        self._btf = BtfWriter()
        self._proto = self._btf.add_func_proto(0, [])
        self.main = self._btf.add_func("main", self._proto)
        self.records: list[tuple[int, int, int, int]] = []
        self.insns: list[Insn] = []
        structs = [t for t in types.btf.types_of_kind(Kind.STRUCT) if t.name and t.vlen]
        for root in self._random.sample(structs, COUNT):
            self._add(root)
        self.insns += [mov64_imm(0, 0), exit_insn()]

    def encode(self) -> bytes:
        return self._btf.encode()

    def _add(self, root: BtfType) -> None:
        """Add an insn with a record of a field of this struct."""
        members, path, size = self._struct(root, 0)
        kind = self._random.choice(KINDS) if size else RelocationKind.FIELD_EXISTS
        type_id = self._btf.add_struct(f"{root.name}___mine", 8, members)
        access = ":".join(str(step) for step in (0, *path))
        values = {RelocationKind.FIELD_BYTE_SIZE: size, RelocationKind.FIELD_EXISTS: 1}
        self.records.append((8 * len(self.insns), type_id, self._btf.string(access), kind))
        self.insns.append(mov64_imm(0, values.get(kind, 0)))

    def _struct(
        self, found: BtfType, depth: int
    ) -> tuple[list[tuple[str, int, int]], list[int], int]:
        """Return the one member of a struct like this one, the path to its end, and what is there.

        That is the size of an unsigned int or pointer, or 0 for what may only be asked for.
        """
        index = self._random.randrange(found.vlen)
        member = self._types.members(found.id)[index]
        is_there = self._is_known or self._random.random() < 0.9
        name = member.name if is_there else "nothing"
        inner = self._types.resolve(member.type_id)
        if inner.kind in (Kind.STRUCT, Kind.UNION) and inner.vlen and depth < 4:
            members, path, size = self._struct(inner, depth + 1)
            type_id = self._btf.add_struct(inner.name, 8, members)
            return [(name, type_id, 0)], [0, *path], size
        if inner.kind is Kind.PTR:
            return [(name, self._btf.add_ptr(0), 0)], [0], 8
        size = inner.third if inner.kind is Kind.INT else 0
        type_id = self._btf.add_int(f"u{8 * size}", size or 8)
        return [(name, type_id, 0)], [0], size


def load(given: Programs) -> tuple[tuple[Insn, ...] | None, str]:
    """Load as a socket filter; return the insns as the kernel translated them, and its log."""
    raw = given.encode()
    data = Buffer(raw)
    btf = bpf(Cmd.BTF_LOAD, bytearray(attr.BTF_LOAD.pack(btf=data.address, btf_size=len(raw))))
    insns, licence, log = (
        Buffer(encode_insns(given.insns)),
        Buffer(b"GPL\0"),
        Buffer(bytes(LOG_SIZE)),
    )
    func = Buffer(bytes(4) + given.main.to_bytes(4, "little"))
    records = Buffer(b"".join(word.to_bytes(4, "little") for row in given.records for word in row))
    packed = attr.PROG_LOAD.pack(
        prog_type=ProgType.SOCKET_FILTER,
        insn_cnt=len(given.insns),
        insns=insns.address,
        license=licence.address,
        log_level=2,  # at 1 a program that passes leaves no log
        log_size=LOG_SIZE,
        log_buf=log.address,
        prog_btf_fd=btf,
        func_info=func.address,
        func_info_cnt=1,
        func_info_rec_size=8,
        core_relos=records.address,
        core_relo_cnt=len(given.records),
        core_relo_rec_size=16,
    )
    translated = None
    try:
        fd = bpf(Cmd.PROG_LOAD, bytearray(packed))
    except KernelError:
        pass
    else:
        translated = read_back(fd, len(given.insns))
        os.close(fd)
    finally:
        os.close(btf)
    lines = log.data.split(b"\0", 1)[0].decode().splitlines()
    of_core = ("prog ''", "CO-RE", "relo #", "target candidate")
    return translated, "".join(f"{line}\n" for line in lines if line.startswith(of_core))


def read_back(fd: int, count: int) -> tuple[Insn, ...]:
    insns = Buffer(bytes(8 * count))
    info = Buffer(attr.PROG_INFO.pack(xlated_prog_len=8 * count, xlated_prog_insns=insns.address))
    size = attr.PROG_INFO.size
    packed = attr.OBJ_GET_INFO_BY_FD.pack(bpf_fd=fd, info_len=size, info=info.address)
    bpf(Cmd.OBJ_GET_INFO_BY_FD, bytearray(packed))
    length = attr.PROG_INFO.unpack(info.data)["xlated_prog_len"]
    return tuple(decode_insns(insns.data[:length]))


@pytest.mark.parametrize("seed", range(6))
def test_the_model_changes_insns_as_this_machines_kernel_does(seed: int) -> None:
    types = kernel_types()
    given = Programs(types, seed)
    local = Btf.from_bytes(given.encode())
    relocator = Relocator(local, types)
    insns = list(given.insns)
    is_refused = False
    try:
        for number, row in enumerate(given.records):
            relocator.apply(insns, number, Relocation.from_record(row, local.string(row[2])))
    except RelocationError:
        is_refused = True
    translated, log = load(given)
    assert relocator.log == log
    if is_refused or POISONED in insns:
        assert translated is None
    else:
        assert translated == tuple(insns)
