"""One program, here and in the running kernel.

Only SYSCALL programs that attach to nothing are loaded, and each is closed at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from bpfseal.bpf.insn import Insn, encode_insns
from bpfseal.bpf.uapi import MapType, ProgFlag, ProgType
from bpfseal.errors import KernelError
from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.kernel_btf import SyntheticBtf
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.kernel.protocol import Kernel, MapCreate, ProgLoad

LICENSE = "Dual BSD/GPL"
PROFILE = PROFILES["6.18-unverified"]
"""The profile that is most like the development machine's kernel."""


_BEHIND = ("processed ", "cur state:", "old state:")
"""How the lines begin that follow the reason in a log."""


class Verdict(NamedTuple):
    """What a verifier says: errno, 0 for accepted, and the last line of its log."""

    errno: int
    reason: str = ""

    @property
    def accepts(self) -> bool:
        return self.errno == 0

    @property
    def rule(self) -> str:
        """The reason without numbers, so that cases of one kind are alike."""
        return re.sub(r"-?(0x)?\d+", "N", self.reason)


Answer = tuple[int, str, int]
"""errno, last line of the log, result of a run."""


@dataclass(frozen=True)
class Outcome:
    """What a run gives: the low 32 bits of r0, signed, and the context afterwards."""

    retval: int
    ctx: bytes


def model_kernel() -> ModelKernel:
    """Return a fresh model of the development machine's kernel."""
    return ModelKernel(profile=PROFILE, kernel_btf=SyntheticBtf())


def request(insns: list[Insn], fd_array: tuple[int, ...] = ()) -> ProgLoad:
    return ProgLoad(
        ProgType.SYSCALL,
        "compare",
        encode_insns(insns),
        LICENSE,
        flags=ProgFlag.SLEEPABLE,
        fd_array=fd_array,
    )


def load(kernel: Kernel, insns: list[Insn], fd_array: tuple[int, ...] = ()) -> tuple[Verdict, int]:
    """Load a program and return the verdict and the fd, -1 for none."""
    try:
        return Verdict(0), kernel.prog_load(request(insns, fd_array))
    except KernelError as error:
        return Verdict(error.errno, reason_of(error)), -1


def reason_of(error: KernelError) -> str:
    """Return the last line that a verifier wrote before states and statistics."""
    reasons = [line for line in error.log.splitlines() if line and not line.startswith(_BEHIND)]
    return reasons[-1] if reasons else ""


def judge_and_run(
    kernel: Kernel, insns: list[Insn], ctx: bytes, fd_array: tuple[int, ...] = ()
) -> tuple[Verdict, Outcome | None]:
    """Load a program and run it once if it is accepted."""
    verdict, fd = load(kernel, insns, fd_array)
    if not verdict.accepts:
        return verdict, None
    try:
        result = kernel.prog_run(fd, ctx)
    finally:
        kernel.close(fd)
    return verdict, Outcome(result.retval, result.ctx)


@contextmanager
def maps_of(kernel: Kernel, requests: Iterable[MapCreate]) -> Iterator[tuple[int, ...]]:
    """Have maps for a while."""
    fds = tuple(kernel.map_create(each) for each in requests)
    try:
        yield fds
    finally:
        for fd in fds:
            kernel.close(fd)


def metadata_map(kernel: Kernel, size: int) -> int:
    """Make a map of one entry, as loaders keep their metadata in."""
    return kernel.map_create(MapCreate(MapType.ARRAY, "metadata", 4, size, 1))


def running_kernel() -> LinuxKernel | None:
    """Return the running kernel if programs can be loaded into it."""
    if os.geteuid() != 0:
        return None
    kernel = LinuxKernel()
    try:
        kernel.close(metadata_map(kernel, 8))
    except KernelError:
        return None
    return kernel
