"""Each reason to refuse a program, in the model and in the running kernel."""

from __future__ import annotations

import platform

import pytest

from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.protocol import Kernel

from .compare import Verdict, load, model_kernel
from .refusals import MAPS, REFUSALS, UNMEASURED, Refusal


def judge(kernel: Kernel, refusal: Refusal) -> Verdict:
    fds = tuple(kernel.map_create(request) for request in MAPS)
    try:
        verdict, fd = load(kernel, list(refusal.insns), fds)
        if fd >= 0:
            kernel.close(fd)
    finally:
        for each in fds:
            kernel.close(each)
    return verdict


@pytest.mark.parametrize("name", [*REFUSALS, *UNMEASURED])
def test_the_model_refuses(name: str) -> None:
    refusal = (REFUSALS | UNMEASURED)[name]
    assert judge(model_kernel(), refusal) == (refusal.errno, refusal.reason)


def test_the_running_kernel_refuses_each_for_the_same_reason(linux: LinuxKernel) -> None:
    if not platform.release().startswith("6.18."):
        pytest.skip("errnos and texts are those of Linux 6.18")
    judged = {name: judge(linux, refusal) for name, refusal in REFUSALS.items()}
    assert judged == {name: (each.errno, each.reason) for name, each in REFUSALS.items()}
