"""Ring buffers and strings, in the model and in the running kernel."""

from __future__ import annotations

import pytest

from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.protocol import Kernel

from .compare import Answer, judge_and_run, maps_of, model_kernel
from .rings import CASES, FROZEN, MAPS, TEXT, Case


def judge(kernel: Kernel, case: Case) -> Answer:
    with maps_of(kernel, MAPS) as fds:
        kernel.map_update(fds[FROZEN], bytes(4), TEXT)
        kernel.map_freeze(fds[FROZEN])
        verdict, outcome = judge_and_run(kernel, list(case.insns), bytes(8), fds)
    return verdict.errno, verdict.reason, outcome.retval if outcome else 0


def expected(case: Case) -> Answer:
    return case.errno, case.reason, case.result


@pytest.mark.parametrize("name", CASES)
def test_the_model_answers(name: str) -> None:
    assert judge(model_kernel(), CASES[name]) == expected(CASES[name])


def test_the_running_kernel_answers_the_same(linux_6_18: LinuxKernel) -> None:
    judged = {name: judge(linux_6_18, case) for name, case in CASES.items()}
    assert judged == {name: expected(case) for name, case in CASES.items()}
