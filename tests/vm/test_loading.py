"""What a process sees of a load on real kernels: C programs, time, and nothing left behind."""

from __future__ import annotations

import errno

import pytest

from bpfseal.kernel.model.schemes import scheme_for

from .artifacts import Artifacts
from .c_programs import REFERENCE_PROGRAM, SKELETON_PROGRAM
from .conftest import Booted

pytestmark = pytest.mark.vm

FDS = 6
"""Maps and programs of examples/exectrace."""

TAMPERED = {
    "inline-original": errno.EINVAL,
    "inline": errno.EINVAL,
    "loadtime": errno.EACCES,
}
"""What a skeleton in C says, all of whose variants were tampered with.

It tries all that the kernel refuses to take, and keeps the answer that tells most: where `loadtime`
has a signature that does not fit, that is the answer to `inline`, which lacks a bound map.
"""


def test_one_static_c_program_loads_what_each_kernel_takes(
    booted: Booted, artifacts: Artifacts
) -> None:
    if artifacts.missing:
        pytest.skip(artifacts.missing)
    answers = booted.answers.of("programs")
    assert all(answer["status"] == 0 for answer in answers.values())
    lines = {name: answer["lines"] for name, answer in answers.items()}
    scheme = scheme_for(booted.profile)
    if scheme is None:
        assert lines["good"] == lines["tampered"] == [f"{-errno.EINVAL} 0", "0"]
        return
    assert lines["good"] == [f"0 {FDS}", "0"]
    assert lines["tampered"] == [f"{-TAMPERED[scheme.name]} 0", "0"]


def test_skeletons_attach_and_read_back(booted: Booted, summary: list[str]) -> None:
    if scheme_for(booted.profile) is None:
        pytest.skip(f"Linux {booted.series} takes no signed loaders")
    answers = booted.answers.of("exercises")
    assert {name: answer["error"] for name, answer in answers.items() if "error" in answer} == {}
    summary.append(f"{booted.series}: {len(answers)} exercises: {', '.join(answers)}")


def test_loads_that_share_a_keyring_or_are_disturbed_by_signals_come_up(booted: Booted) -> None:
    if scheme_for(booted.profile) is None:
        pytest.skip(f"Linux {booted.series} takes no signed loaders")
    answers = booted.answers.of("keys")
    assert len(answers) == 7
    assert {name: answer["failed"] for name, answer in answers.items() if answer["failed"]} == {}


def test_200_cycles_and_killed_processes_leave_nothing_behind(
    booted: Booted, summary: list[str]
) -> None:
    answers = booted.answers.of("leaks")
    assert answers["cycles"]["count"] == 200
    assert answers["cycles"]["fds"] == 0
    assert {name: answer["left"] for name, answer in answers.items() if answer["left"]} == {}
    assert answers["killed behind each call"]["count"] >= 8
    assert answers["killed at random"]["count"] == 20
    counts = ", ".join(f"{answer['count']} {name}" for name, answer in answers.items())
    summary.append(f"{booted.series}: {counts}: nothing left behind")


def test_load_time_beside_the_reference(
    booted: Booted, artifacts: Artifacts, summary: list[str]
) -> None:
    """The reference's skeleton is unsigned: a signed one needs newer headers than most have."""
    answers = booted.answers.of("load times")
    refused = {name for name, answer in answers.items() if "error" in answer}
    assert refused == ({SKELETON_PROGRAM} if scheme_for(booted.profile) is None else set())
    for name in sorted(answers.keys() - refused):
        answer = answers[name]
        times = ", ".join(f"{what} {took:.0f} ms" for what, took in answer.items())
        summary.append(f"{booted.series}: {name}: {times}")
    if artifacts.missing or REFERENCE_PROGRAM not in answers:
        pytest.skip(artifacts.missing or "the reference tool cannot be fetched")
    theirs, load = answers[REFERENCE_PROGRAM], answers["Python unsigned"]["load"]
    calls = answers["Python unsigned, calls alone"]["load"]
    process = answers["Python unsigned, whole process"]["process"]
    summary.append(
        f"{booted.series}: Python beside the reference's C: load {load / theirs['load']:.1f} times"
        f" (calls alone {calls / theirs['load']:.1f}),"
        f" whole process {process / theirs['process']:.0f} times"
    )
