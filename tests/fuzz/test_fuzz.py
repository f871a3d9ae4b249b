"""Each entry for untrusted input with a few damaged inputs, and the limits that judge them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from bpfseal.errors import BpfsealError, InputError
from support.fuzzing import require_no_findings

from .campaign import damaged, run
from .limits import Kind, judge, memory_limit
from .targets import TARGETS, Target

COUNT = 24
"""Inputs for each target; ``make fuzz`` takes thousands."""

SLOW = ("model-load", "command-line", "registry-answer", "private-key", "scenario")
"""Targets that get a third of them."""

NEVER_TAKEN = ("cms-pem", "probe-event")
"""Their seeds are whole and still refused: signatures over something else, or half of a pair."""


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_our_errors_within_the_limits(name: str) -> None:
    require_no_findings(name, COUNT // 3 if name in SLOW else COUNT, seed=0)


@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_is_accepted_so_that_damage_reaches_deep(name: str) -> None:
    if name in NEVER_TAKEN:
        pytest.skip("no seed of this target can be taken")
    target = TARGETS[name]
    assert Kind.ACCEPTED in {judge(target.call, data).kind for data in target.seeds()}


def test_an_input_depends_on_seed_target_and_number_alone() -> None:
    target = TARGETS["certificate"]
    seeds = target.seeds()
    inputs = [damaged(target, seeds, 1, number) for number in range(50)]
    assert inputs == [damaged(target, seeds, 1, number) for number in range(50)]
    assert len(set(inputs)) > 40


# The judge


def test_our_errors_are_refusals() -> None:
    def call(_data: bytes) -> None:
        raise InputError("wrong")

    assert judge(call, b"").kind is Kind.REFUSED
    assert judge(len, b"").kind is Kind.ACCEPTED


@pytest.mark.parametrize("error", [ValueError, RecursionError, SystemExit, AssertionError])
def test_another_exception_is_a_finding(error: type[BaseException]) -> None:
    def call(_data: bytes) -> None:
        raise error("x")

    outcome = judge(call, b"")
    assert outcome.kind is Kind.FOREIGN
    assert outcome.error.startswith(error.__name__)


def test_a_call_that_does_not_end_is_interrupted() -> None:
    def call(_data: bytes) -> None:
        while True:
            with suppress(Exception):  # as a library might
                sum(range(1000))

    assert judge(call, b"", cpu_limit=0.1).kind is Kind.HANG


def test_memory_is_limited_by_the_size_of_the_input() -> None:
    def call(data: bytes) -> None:
        bytearray(memory_limit(data) + (64 << 20))

    assert judge(call, b"x" * 1000).kind is Kind.MEMORY


def test_memory_that_was_taken_and_given_back_counts() -> None:
    def call(_data: bytes) -> None:
        bytearray(b"x" * (30 << 20))

    outcome = judge(call, b"")
    assert outcome.kind is Kind.ACCEPTED
    assert outcome.memory >= 30 << 20


def test_an_error_of_ours_that_hides_a_lack_of_memory_is_a_finding() -> None:
    def call(_data: bytes) -> None:
        try:
            bytearray(1 << 60)
        except MemoryError as error:
            raise BpfsealError("x") from error

    assert judge(call, b"").kind is Kind.MEMORY


def test_a_process_that_dies_is_a_finding_and_the_others_are_judged(
    tmp_path: Path,
) -> None:
    def call(data: bytes) -> None:
        if data.startswith(b"\xff"):
            os._exit(9)

    target = Target("dies", lambda: (bytes(4), b"\xff\xff\xff\xff"), call)
    tally = run(target, 40, 1, tmp_path)
    assert tally.kinds.total() == 40
    assert tally.kinds[Kind.HANG] > 1
    assert tally.kinds[Kind.ACCEPTED] > 1
