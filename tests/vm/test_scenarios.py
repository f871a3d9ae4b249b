"""Each scenario of conformance/ has the same answers on a real kernel and on the model of it."""

from __future__ import annotations

import pytest

from bpfseal.kernel.model.subject import boot_model, groups_of
from bpfseal.kernel.scenario import run_scenario

from .artifacts import Artifacts
from .conftest import Booted

pytestmark = pytest.mark.vm


def test_the_model_answers_as_the_kernel(
    booted: Booted, artifacts: Artifacts, summary: list[str]
) -> None:
    different: list[str] = []
    steps = agreed = count = 0
    given = booted.answers.of("scenarios")
    for file, collection in artifacts.collections.items():
        for scenario in collection.scenarios:
            name = f"{file.removesuffix('.json')}/{scenario.name}"
            subject = boot_model(scenario, booted.profile)
            report = run_scenario(scenario, collection, subject, groups_of(booted.profile))
            model, kernel = list(report.trace), given[name]["trace"]
            count += 1
            steps += max(len(model), len(kernel))
            agreed += sum(one == other for one, other in zip(model, kernel, strict=False))
            if model != kernel or report.differences:
                different.append(_both(name, model, kernel))
    assert count == len(given)
    summary.append(
        f"{booted.series}: scenarios {count - len(different)}/{count}, steps {agreed}/{steps}"
    )
    assert not different, "\n\n".join(different)


def test_scenarios_that_no_guest_can_run_are_few(artifacts: Artifacts, summary: list[str]) -> None:
    summary += [f"not in guests: {name} {why}" for name, why in artifacts.skipped.items()]
    assert len(artifacts.skipped) < 10


def _both(name: str, model: list[str], kernel: list[str]) -> str:
    """Return both traces, with a mark where they differ."""
    lines = [name]
    for number in range(max(len(model), len(kernel))):
        one, other = ("".join(trace[number : number + 1]) for trace in (model, kernel))
        lines += [f"    {one}"] if one == other else [f"  M {one}", f"  K {other}"]
    return "\n".join(lines)
