"""One artifact, made once with every scheme, on real kernels of every series."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from bpfseal.kernel.model.schemes import expected_verdict, scheme_for
from bpfseal.scheme import SCHEMES, SIGNED_SCHEMES

from .artifacts import Artifacts
from .conftest import Booted

pytestmark = pytest.mark.vm

LOADED = ("loaded", "")

TAMPERED = {
    "inline-original": ("prog_run", "EINVAL"),
    "inline": ("prog_run", "EINVAL"),
    "loadtime": ("prog_load", "EKEYREJECTED"),
}
"""What a kernel answers to changed metadata in a scheme that it takes."""

LEAST_LOADED = 35
"""Objects whose programs a small guest can host; the others name what it lacks."""


@pytest.fixture
def loads(booted: Booted, artifacts: Artifacts) -> dict[str, dict[str, Any]]:
    """What the guest answered to the loads of each object."""
    given = booted.answers.of("objects")
    found = {name: given[name]["loads"] for name in artifacts.objects}
    assert len(given) == len(found) + 1  # the first answer is about the kernel
    return found


def verdict(answer: dict[str, Any]) -> tuple[str, str]:
    return answer["step"], answer["errno"]


def test_the_kernels_features_speak_for_its_scheme(booted: Booted) -> None:
    scheme = scheme_for(booted.profile)
    assert booted.answers.of("objects")[""]["scheme"] == (scheme.name if scheme else None)


def test_each_object_loads_by_itself_or_the_kernel_says_what_it_lacks(
    booted: Booted, loads: dict[str, dict[str, Any]], summary: list[str]
) -> None:
    scheme = scheme_for(booted.profile)
    others = {name: found for name, found in loads.items() if found["auto"]["step"] != "loaded"}
    line = f"{booted.series}: {booted.answers.kernel}, scheme {scheme.name if scheme else 'none'}"
    if scheme is None:
        assert {verdict(found["auto"]) for found in loads.values()} == {("map_create", "EINVAL")}
        summary.append(f"{line}: all {len(loads)} objects refused, as all signed loaders are")
        return
    lines = [f"    {name} {_lacks(found)}" for name, found in others.items()]
    summary += [f"{line}: {len(loads) - len(others)} of {len(loads)} objects loaded", *lines]
    assert {found["auto"].get("scheme", scheme.name) for found in loads.values()} == {scheme.name}
    assert all(found["auto"]["step"] == "prog_run" for found in others.values())
    assert len(loads) - len(others) >= LEAST_LOADED


def _lacks(found: dict[str, Any]) -> str:
    """Return what a kernel cannot host an object for, in its own words.

    The loader's steps come behind its check of the metadata: that there are any shows that the
    check was passed.
    """
    steps = found["reason"]["steps"]
    failed = next(step for step in steps if step.rpartition("r=")[2].startswith("-"))
    log = found["reason"]["log"]
    words = f" ({log[-1]})" if failed.startswith("prog_load") and log else ""
    return f"{found['auto']['errno']}: {failed}{words}"


def test_each_variant_is_taken_or_refused_as_the_release_says(
    booted: Booted, loads: dict[str, dict[str, Any]], summary: list[str]
) -> None:
    row = []
    for scheme in SIGNED_SCHEMES:
        refusal = expected_verdict(SCHEMES[scheme], booted.profile)
        answers = Counter(verdict(found[f"{scheme} good"]) for found in loads.values())
        if refusal is None:
            assert answers[LOADED] >= LEAST_LOADED
            assert {step for step, _ in answers} <= {"loaded", "prog_run"}
            row.append(f"{scheme}: {answers[LOADED]} loaded")
        else:
            assert set(answers) == {(refusal.step, refusal.errno_name)}
            row.append(f"{scheme}: {refusal.step} {refusal.errno_name}")
    summary.append(f"{booted.series}, as signed: {' | '.join(row)}")


def test_each_tampered_variant_is_refused(
    booted: Booted, loads: dict[str, dict[str, Any]], summary: list[str]
) -> None:
    row = []
    for scheme in SIGNED_SCHEMES:
        refusal = expected_verdict(SCHEMES[scheme], booted.profile)
        wanted = (refusal.step, refusal.errno_name) if refusal else TAMPERED[scheme]
        assert {verdict(found[f"{scheme} tampered"]) for found in loads.values()} == {wanted}
        row.append(f"{scheme}: {' '.join(wanted)}")
    summary.append(f"{booted.series}, tampered with ({len(loads)}): {' | '.join(row)}")


def test_no_load_leaves_a_fd_open(loads: dict[str, dict[str, Any]]) -> None:
    for found in loads.values():
        assert all(answer["leaked"] == 0 for name, answer in found.items() if name != "reason")
