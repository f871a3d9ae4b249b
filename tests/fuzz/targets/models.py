"""The kernel model: loads, programs of any type, BTF, and raw bpf(2) calls."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from bpfseal.bpf import attr as layouts
from bpfseal.bpf.insn import decode_insns, encode_insns
from bpfseal.bpf.uapi import Cmd, MapType, ProgFlag, ProgType
from bpfseal.bundle.model import SignedLoader
from bpfseal.errors import BpfsealError
from bpfseal.kernel.load import load
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.analysis.disassembly import insn_line
from bpfseal.kernel.model.decode import decode, insn_starts
from bpfseal.kernel.model.profile import PROFILES, Profile
from bpfseal.kernel.protocol import MapCreate, ProgLoad
from bpfseal.loader.checks import LOADER_BTF
from bpfseal.loader.model import Loader
from bpfseal.object import read_object
from isa.programs import random_program

from ..mutators import BYTES, INSNS, by_part, join, split
from .base import TARGET_VALUES, Target, object_files, signed
from .objects import btf_sections

_CTX = bytes(256)


@cache
def _plain(example: str, scheme: str) -> Loader:
    """Return a loader whose kfunc call is a plain success, so that its body runs unsigned."""
    loader = signed(example, scheme).loader
    insns = bytearray(loader.insns)
    for at in range(0, len(insns), 8):
        if insns[at] == 0x85 and insns[at + 1] >> 4 == 3:
            insns[at : at + 8] = bytes.fromhex("b700000000000000")
    return replace(loader, insns=bytes(insns))


_LOADS = (("exectrace", "kfunc"), ("maplab", "unsigned"), ("xdpcount", "loadtime"))


def _loads() -> Sequence[bytes]:
    loaders = [_plain(*each) for each in _LOADS]
    return tuple(
        join(bytes([number]), each.insns, each.metadata, each.btf)
        for number, each in enumerate(loaders)
    )


def _load(data: bytes) -> object:
    """Load an unsigned loader and run it."""
    which, insns, metadata, btf = split(data, 4)
    loader = _plain(*_LOADS[(which or b"\0")[0] % len(_LOADS)])
    changed = replace(loader, insns=insns, metadata=metadata, btf=btf)
    kernel = ModelKernel(profile=_profile(which))
    return load(kernel, SignedLoader(changed), check_metadata=False, unsigned=True)


def _profile(which: bytes) -> Profile:
    names = list(PROFILES)
    return PROFILES[names[(which[1] if len(which) > 1 else 0) % len(names)]]


@cache
def _programs() -> Sequence[bytes]:
    """Return programs of their types: random ones, and those of the examples."""
    chance = random.Random(20261201)  # noqa: S311 - not for keys
    types = (ProgType.SYSCALL, ProgType.SOCKET_FILTER, ProgType.XDP, ProgType.KPROBE)
    found = []
    for number in range(24):
        head = bytes([types[number % len(types)], number % len(PROFILES)])
        found.append(join(head, encode_insns(random_program(chance))))
    head = bytes([ProgType.SYSCALL, 0])
    for data in object_files():
        functions = read_object(data, "seed.bpf.o", TARGET_VALUES).functions
        found += [join(head, function.insns) for function in functions[:2]]
    return tuple(found)


def _program(data: bytes) -> object:
    """Load a program with a map beside it, and run it if it is one that runs."""
    head, insns = split(data, 2)
    head = head.ljust(2, b"\0")
    kernel = ModelKernel(profile=_profile(head))
    map_fd = kernel.map_create(MapCreate(MapType.ARRAY, "m", 4, 64, 1))
    btf_fd = kernel.btf_load(LOADER_BTF)
    request = ProgLoad(
        head[0],
        "fuzzed",
        insns,
        "GPL",
        flags=ProgFlag.SLEEPABLE if head[0] == ProgType.SYSCALL else 0,
        fd_array=(map_fd,),
        btf_fd=btf_fd,
        log_level=2,
    )
    return kernel.prog_run(kernel.prog_load(request), _CTX)


def _insns(data: bytes) -> object:
    insns = decode_insns(data)
    starts = insn_starts(insns)
    for index in sorted(starts):
        with contextlib.suppress(BpfsealError):
            decode(insns, index, starts)
        insn_line(insns, index)
    return None


def _insn_seeds() -> Sequence[bytes]:
    return tuple(split(each, 2)[1] for each in _programs())


def _btf(data: bytes) -> object:
    for profile in PROFILES.values():
        with contextlib.suppress(BpfsealError):
            ModelKernel(profile=profile).btf_load(data)
    return ModelKernel().btf_load(data)


# Raw calls: a byte of the command, one of the size, the attributes; the last part is user memory.

_USER_MEMORY = 1 << 32
"""The address of the first region of user memory."""


def _call(command: Cmd, attributes: bytes) -> bytes:
    return bytes([command, len(attributes)]) + attributes


@cache
def _calls() -> Sequence[bytes]:
    """Return calls that make, use and ask about objects, with pointers into the memory behind."""
    at = _USER_MEMORY
    program = bytes.fromhex("b700000000000000 9500000000000000")
    memory = bytes(64) + program + b"GPL\0" + bytes(4) + bytes(64) + LOADER_BTF
    code, text, room, btf = at + 64, at + 80, at + 88, at + 152
    pack = {
        "array": (Cmd.MAP_CREATE, layouts.MAP_CREATE, (2, 4, 8, 2)),
        "hash": (Cmd.MAP_CREATE, layouts.MAP_CREATE, (1, 4, 8, 4)),
    }
    makes = [
        _call(
            command,
            layout.pack(map_type=kind, key_size=key, value_size=value, max_entries=entries),
        )
        for command, layout, (kind, key, value, entries) in pack.values()
    ]
    element = layouts.MAP_ELEM.pack(map_fd=3, key=at, value=at + 8)
    uses = [
        _call(Cmd.MAP_UPDATE_ELEM, element),
        _call(Cmd.MAP_LOOKUP_ELEM, element),
        _call(Cmd.MAP_GET_NEXT_KEY, layouts.MAP_GET_NEXT_KEY.pack(map_fd=3, next_key=room)),
        _call(Cmd.MAP_FREEZE, layouts.MAP_FREEZE.pack(map_fd=3)),
        _call(
            Cmd.OBJ_GET_INFO_BY_FD,
            layouts.OBJ_GET_INFO_BY_FD.pack(bpf_fd=3, info_len=64, info=room),
        ),
        _call(Cmd.MAP_GET_NEXT_ID, layouts.GET_NEXT_ID.pack(start_id=0)),
        _call(Cmd.BTF_LOAD, layouts.BTF_LOAD.pack(btf=btf, btf_size=len(LOADER_BTF))),
        _call(
            Cmd.PROG_LOAD,
            layouts.PROG_LOAD.pack(
                prog_type=31, insn_cnt=2, insns=code, license=text, prog_flags=16
            ),
        ),
        _call(Cmd.PROG_RUN, layouts.PROG_RUN.pack(prog_fd=4, ctx_in=at, ctx_size_in=16)),
        _call(Cmd.OBJ_PIN, layouts.OBJ.pack(bpf_fd=3, pathname=text)),
    ]
    return tuple(
        join(make + b"".join(uses[first:] + uses[:first]), memory)
        for make in makes
        for first in range(0, len(uses), 2)
    )


_MAX_CALLS = 24


def _raw_calls(data: bytes) -> object:
    calls, memory = split(data, 2)
    kernel = ModelKernel(profile=_profile(memory[:2]))
    kernel.allocate(memory)
    for _ in range(_MAX_CALLS):
        if len(calls) < 2:
            break
        command, size = calls[0], calls[1]
        attributes, calls = bytearray(calls[2 : 2 + size]), calls[2 + size :]
        with contextlib.suppress(BpfsealError):
            kernel.sys_bpf(command, attributes)
    return kernel.trace


def _elements(data: bytes) -> object:
    """Make a map of any type and attributes, and use its elements."""
    head = data[:24].ljust(24, b"\0")
    kind, key_size, value_size, entries, flags, profile = struct.unpack("<6I", head)
    kernel = ModelKernel(profile=_profile(bytes([0, profile & 0xFF])))
    request = MapCreate(kind, "fuzzed", key_size, value_size, entries, flags=flags)
    fd = kernel.map_create(request)
    rest = data[24:]
    for number in range(0, min(len(rest), 64), 4):
        key = rest[number:].ljust(min(key_size, 512), b"\0")[:key_size]
        for work in (
            lambda key=key: kernel.map_update(fd, key, bytes(min(value_size, 4096))),
            lambda key=key: kernel.map_lookup(fd, key, min(value_size, 4096)),
            lambda key=key: kernel.map_next_key(fd, key, key_size),
            lambda key=key: kernel.map_delete(fd, key),
            lambda: kernel.map_hash(fd),
        ):
            with contextlib.suppress(BpfsealError):
                work()
    return None


def _element_seeds() -> Sequence[bytes]:
    return tuple(
        struct.pack("<6I", kind, 4, 8, 4, 0, kind % 8) + struct.pack("<4I", 0, 1, 2, 9)
        for kind in MapType
    )


TARGETS = (
    Target("model-load", _loads, _load, by_part(BYTES, INSNS, BYTES, BYTES)),
    Target("model-program", _programs, _program, by_part(BYTES, INSNS)),
    Target("insns", _insn_seeds, _insns, INSNS),
    Target("model-btf", btf_sections, _btf),
    Target("model-calls", _calls, _raw_calls, by_part(BYTES, BYTES)),
    Target("model-maps", _element_seeds, _elements),
)
