"""What a process without CAP_PERFMON may not load, in the model and in the running kernel."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bpfseal.bpf.insn import exit_insn, ldx_mem
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.rights import Rights

from .compare import PROFILE, load
from .refusals import DW
from .rights import WITHOUT_PERFMON, judge_all

EXPECTED = {name: (each.errno, each.reason) for name, each in WITHOUT_PERFMON.items()}


def test_the_model_refuses_what_needs_cap_perfmon() -> None:
    assert judge_all(ModelKernel(profile=PROFILE, rights=Rights(perfmon=False))) == EXPECTED


def test_by_default_the_loading_process_has_cap_perfmon() -> None:
    verdict, _ = load(ModelKernel(profile=PROFILE), [ldx_mem(DW, 0, 10, -8), exit_insn()])
    assert verdict.accepts


@pytest.mark.usefixtures("linux")
def test_the_running_kernel_refuses_the_same() -> None:
    if not platform.release().startswith("6.18.") or platform.machine() != "x86_64":
        pytest.skip("errnos and texts are those of Linux 6.18, the call that of x86-64")
    done = subprocess.run(
        [sys.executable, "-m", "tests.isa.rights"],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    judged = {name: tuple(verdict) for name, verdict in json.loads(done.stdout).items()}
    assert judged == EXPECTED
