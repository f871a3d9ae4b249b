"""Reads of ``struct bpf_map`` at every offset, in the model and in the running kernel.

Source: ``check_ptr_to_map_access`` in kernel/bpf/verifier.c, ``btf_struct_walk`` in
kernel/bpf/btf.c.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import exit_insn, ld_imm64, ldx_mem, mov64_imm
from bpfseal.bpf.uapi import MapType
from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.kernel_btf import SyntheticBtf
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.kernel.protocol import Kernel, MapCreate

from .compare import Verdict, load, model_kernel

SIZES: Final = (op.B, op.H, op.W, op.DW)


def verdicts(kernel: Kernel, offsets: Iterable[int]) -> dict[tuple[int, int], Verdict]:
    """Return what is said of a read of each size at each offset."""
    fd = kernel.map_create(MapCreate(MapType.ARRAY, "values", 4, 16, 1))
    said = {}
    for off in offsets:
        for size in SIZES:
            read = (*ld_imm64(2, op.PSEUDO_MAP_IDX, 0), ldx_mem(size, 0, 2, off))
            verdict, loaded = load(kernel, [*read, mov64_imm(0, 0), exit_insn()], (fd,))
            if loaded >= 0:
                kernel.close(loaded)
            said[off, size] = verdict
    kernel.close(fd)
    return said


@pytest.mark.parametrize(
    ("profile", "end"),
    [("6.12", 264), ("6.17", 264), ("6.18", 304), ("6.19", 304), ("7.0", 304), ("7.1", 304),
     ("7.2", 304), ("7.3", 296)],
)  # fmt: skip
def test_the_struct_of_an_array_ends_where_the_releases_does(profile: str, end: int) -> None:
    """Sizes of ``struct bpf_array`` in the BTF of 6.12.117 to 7.3.4; 6.18.15, which lacks excl."""
    btf = SyntheticBtf() if profile != "6.18" else WithoutExcl()
    kernel = ModelKernel(profile=PROFILES[profile], kernel_btf=btf)
    said = verdicts(kernel, (end - 16, end))
    assert said[end - 16, op.W].accepts
    assert said[end, op.B].reason == f"access beyond struct bpf_array at off {end} size 1"


class WithoutExcl(SyntheticBtf):
    def has_member(self, _struct: str, _member: str) -> bool:
        return False


def test_the_running_kernel_answers_the_same(linux_6_18: LinuxKernel) -> None:
    offsets = range(-8, 330)
    model, kernel = verdicts(model_kernel(), offsets), verdicts(linux_6_18, offsets)
    assert {at: v.errno for at, v in model.items()} == {at: v.errno for at, v in kernel.items()}
