"""A short campaign in every test run; `campaign` makes long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpfseal.kernel.linux.kernel import LinuxKernel

from .campaign import compare_mutated, compare_random

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.bpf.o"))


def test_no_accepted_program_faults(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare_random(None, 150, seed=5) == 0, capsys.readouterr().out


def test_random_programs_do_here_what_they_do_in_the_kernel(
    linux: LinuxKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare_random(linux, 300, seed=6) == 0, capsys.readouterr().out


def test_changed_loaders_are_judged_as_the_kernel_judges_them(linux: LinuxKernel) -> None:
    tally = compare_mutated(linux, 40, 7, EXAMPLES)
    assert tally.agreed == tally.total, tally.report()
