"""Compare the kernel model with measurements of real kernels, case by case.

A measurement is a JSON file with the release of a kernel and its `cases`: by name the result of a
call (`ok` or an errno), the end of the verifier's log, and what a program returned. The scenarios
in conformance/ say which of their steps is which case (`measured_as`).

Example:
    python scripts/compare_measurements.py 7.3=measured/7.3.4.json 6.18=measured/6.18.15.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bpfseal.kernel.model.profile import PROFILES, Profile
from bpfseal.kernel.model.subject import boot_model, groups_of
from bpfseal.kernel.scenario import Collection, Outcome, Scenario, read_collection, run_scenario
from bpfseal.kernel.scenario_keys import with_signatures

CONFORMANCE = Path(__file__).resolve().parents[1] / "conformance"

NAMES = {"ENOTSUP": "EOPNOTSUPP", "-524": "ENOTSUPP"}
"""Errnos that measurements name differently."""

STATISTICS = "processed "
"""How the last line of a verifier's log begins, which the model does not write."""


def answers(profile: Profile) -> dict[str, tuple[Outcome, str]]:
    """Return what the model answers to each case, with what its program returned."""
    found: dict[str, tuple[Outcome, str]] = {}
    for path in sorted(CONFORMANCE.glob("*.json")):
        if path.name == "schema.json":
            continue
        collection = with_signatures(read_collection(path))
        for scenario in collection.scenarios:
            found |= _answers(scenario, collection, profile)
    return found


def _answers(
    scenario: Scenario, collection: Collection, profile: Profile
) -> dict[str, tuple[Outcome, str]]:
    subject = boot_model(scenario, profile)
    outcomes = run_scenario(scenario, collection, subject, groups_of(profile)).outcomes
    found = {}
    for index, outcome in enumerate(outcomes):
        if outcome.step.measured_as:
            after = outcomes[index + 1 : index + 2]
            returned = after[0].answer.retval if after else ""
            found[outcome.step.measured_as] = (outcome, returned)
    return found


def differences(case: Mapping[str, Any], outcome: Outcome, returned: str) -> list[str]:
    """Return what a measurement has otherwise than the model."""
    answer = outcome.answer
    result = NAMES.get(case["r"], case["r"])
    found = [] if answer.result == result else [f"{answer.result}, measured {result}"]
    lines = case.get("log", "").splitlines()
    log = "\n".join(line for line in lines if not line.startswith(STATISTICS))
    if result != "ok" and outcome.step.call == "prog_load" and answer.log != log:
        found.append(f"log {answer.log!r}, measured {log!r}")
    if "run" in case:
        value = int(case["run"].partition(":")[2], 16)
        signed = str(value - (1 << 32) if value >> 31 else value)
        if returned != signed:
            found.append(f"returned {returned}, measured {signed}")
    if "hash" in case and result == "ok" and answer.sha256 != case["hash"]:
        found.append(f"hash {answer.sha256}, measured {case['hash']}")
    return found


def main() -> int:
    """Print agreed and total of each measurement, and every difference."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("measurements", nargs="+", metavar="PROFILE=FILE")
    bad = 0
    for given in parser.parse_args().measurements:
        name, _, path = given.partition("=")
        measured = json.loads(Path(path).read_text())
        modelled = answers(PROFILES[name])
        lines = []
        for case, result in measured["cases"].items():
            if case in modelled:
                found = differences(result, *modelled[case])
            else:
                found = ["no scenario has it"]
            lines += [f"  {case}: {line}" for line in found[:1]]
        total = len(measured["cases"])
        print(f"{name} against {measured['release']}: {total - len(lines)}/{total}")
        print("\n".join(lines), end="\n" if lines else "")
        bad += len(lines)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
