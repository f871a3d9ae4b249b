"""Ring buffers and strings, in the model and in the running kernel."""

from __future__ import annotations

import platform

import pytest

from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.protocol import Kernel

from .compare import load, model_kernel
from .rings import CASES, FROZEN, MAPS, TEXT, Case

Answer = tuple[int, str, int]
"""errno, last line of the log, result of a run."""


def judge(kernel: Kernel, case: Case) -> Answer:
    fds = tuple(kernel.map_create(request) for request in MAPS)
    kernel.map_update(fds[FROZEN], bytes(4), TEXT)
    kernel.map_freeze(fds[FROZEN])
    try:
        verdict, fd = load(kernel, list(case.insns), fds)
        result = kernel.prog_run(fd, bytes(8)).retval if verdict.accepts else 0
    finally:
        for each in fds:
            kernel.close(each)
    if verdict.accepts:
        kernel.close(fd)
    return verdict.errno, verdict.reason, result


def expected(case: Case) -> Answer:
    return case.errno, case.reason, case.result


@pytest.mark.parametrize("name", CASES)
def test_the_model_answers(name: str) -> None:
    assert judge(model_kernel(), CASES[name]) == expected(CASES[name])


def test_the_running_kernel_answers_the_same(linux: LinuxKernel) -> None:
    if not platform.release().startswith("6.18."):
        pytest.skip("errnos and texts are those of Linux 6.18")
    judged = {name: judge(linux, case) for name, case in CASES.items()}
    assert judged == {name: expected(case) for name, case in CASES.items()}
