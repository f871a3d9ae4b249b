"""A fuzz target as a test."""

from __future__ import annotations

from collections import Counter

from fuzz.campaign import run_here
from fuzz.limits import Kind
from fuzz.targets import TARGETS


def require_no_findings(name: str, count: int, seed: int) -> Counter[Kind]:
    """Judge so many damaged inputs of a target; none may be a finding. Return how they ended."""
    tally = run_here(TARGETS[name], count, seed)
    found = [f"{outcome.trace}\ninput: {data.hex()}" for data, outcome in tally.findings.values()]
    assert not found, found[0]
    return tally.kinds
