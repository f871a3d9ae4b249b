"""Each reason to refuse a program, in the model and in the running kernel."""

from __future__ import annotations

import pytest

from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.protocol import Kernel

from .compare import Verdict, load, maps_of, model_kernel
from .refusals import MAPS, REFUSALS, UNMEASURED, Refusal


def judge(kernel: Kernel, refusal: Refusal) -> Verdict:
    with maps_of(kernel, MAPS) as fds:
        verdict, fd = load(kernel, list(refusal.insns), fds)
        if fd >= 0:
            kernel.close(fd)
    return verdict


@pytest.mark.parametrize("name", [*REFUSALS, *UNMEASURED])
def test_the_model_refuses(name: str) -> None:
    refusal = (REFUSALS | UNMEASURED)[name]
    assert judge(model_kernel(), refusal) == (refusal.errno, refusal.reason)


def test_the_running_kernel_refuses_each_for_the_same_reason(linux_6_18: LinuxKernel) -> None:
    judged = {name: judge(linux_6_18, refusal) for name, refusal in REFUSALS.items()}
    assert judged == {name: (each.errno, each.reason) for name, each in REFUSALS.items()}
