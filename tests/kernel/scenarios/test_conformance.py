"""All scenarios of conformance/ on the model of every kernel, and on the kernel of this machine."""

from __future__ import annotations

import json
import os
import platform
import threading
from functools import cache
from pathlib import Path

import pytest

from bpfseal.bpf.uapi import Cmd
from bpfseal.errors import InputError, KernelError
from bpfseal.kernel.linux.subject import LinuxSubject
from bpfseal.kernel.model.profile import PROFILES, Profile
from bpfseal.kernel.model.subject import boot_model, groups_of
from bpfseal.kernel.scenario import Collection, Report, Scenario, read_collection, run_scenario
from bpfseal.kernel.scenario_calls import CALLS
from bpfseal.kernel.scenario_keys import with_signatures
from support.json_schema import violations

CONFORMANCE = Path(__file__).parents[3] / "conformance"
FILES = sorted(path.name for path in CONFORMANCE.glob("*.json") if path.name != "schema.json")

UPSTREAM = [
    "loadtime_no_map",
    "loadtime_with_map",
    "metadata_match",
    "signature_enforced",
    "signed_nonarray_fd_array_rejected",
    "signed_btf_fd_array_rejected",
    "signed_module_kfunc_rejected",
    "signature_failure_logs",
    "signature_too_large",
    "signature_zero_size",
    "signature_bad_keyring",
    "signature_authenticates_insns",
    "signature_authenticates_metadata",
    "freeze_writable_mmap",
    "no_writable_mmap_frozen",
    "signed_no_fd_array",
    "signed_map_by_fd_rejected",
    "signed_sparse_fd_array_rejected",
]
"""Upstream's subtests that a scenario names; docs/conformance.md says where the others are."""


@cache
def collection(name: str) -> Collection:
    return with_signatures(read_collection(CONFORMANCE / name))


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
@pytest.mark.parametrize("name", FILES)
def test_the_model_answers_as_expected(name: str, profile: Profile) -> None:
    found: list[str] = []
    for scenario in collection(name).scenarios:
        subject = boot_model(scenario, profile)
        report = run_scenario(scenario, collection(name), subject, groups_of(profile))
        found += report.differences
    assert found == []


@pytest.mark.parametrize("name", FILES)
def test_the_files_follow_the_schema(name: str) -> None:
    schema = json.loads((CONFORMANCE / "schema.json").read_text())
    assert violations(json.loads((CONFORMANCE / name).read_text()), schema, schema) == []


def test_the_schema_knows_the_calls_of_the_runner() -> None:
    schema = json.loads((CONFORMANCE / "schema.json").read_text())
    known = [step["properties"]["call"]["const"] for step in schema["$defs"]["step"]["oneOf"]]
    assert known == list(CALLS)


def test_names_are_unique() -> None:
    for name in FILES:
        names = [scenario.name for scenario in collection(name).scenarios]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("subtest", UPSTREAM)
def test_upstreams_subtests_are_there(subtest: str) -> None:
    texts = (f"{s.about} {s.source}" for name in FILES for s in collection(name).scenarios)
    assert any(subtest in text for text in texts)


def test_a_wrong_expectation_is_reported() -> None:
    """The runner does find differences."""
    given = collection("maps.json")
    scenario = next(s for s in given.scenarios if s.name == "freeze-and-hash")
    profile = PROFILES["7.3"]
    report = run_scenario(scenario, given, boot_model(scenario, profile), ("none", "any"))
    assert "freeze-and-hash: map_hash: EPERM" in report.differences[0]


@pytest.mark.parametrize("text", ["", "[]", '{"title": 1}', '{"title": "", "blobs": {"A": "x"}}'])
def test_what_is_no_collection(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(InputError):
        read_collection(path)


# This machine's kernel. Only SYSCALL programs, socket filters and maps; nothing attaches.


def running_profile() -> Profile:
    """Return the profile of the kernel that runs this test, or skip."""
    series = ".".join(platform.release().split(".")[:2])
    if os.geteuid() != 0:
        pytest.skip("needs root")
    try:
        verifies = _can_verify()
    except KernelError as error:
        pytest.skip(f"needs bpf(2): {error}")
    name = series if verifies else f"{series}-unverified"
    if name not in PROFILES:
        pytest.skip(f"no profile for Linux {name}")
    return PROFILES[name]


def _can_verify() -> bool:
    """Whether the kernel verifies signatures: else a good one is EOPNOTSUPP."""
    given = collection("signatures.json")
    scenario = next(s for s in given.scenarios if s.name == "session-keyring")
    LinuxSubject().bpf(Cmd.MAP_CREATE, bytearray.fromhex("02000000040000000800000001000000"))
    report = _run_in_a_thread(scenario, given, groups_of(PROFILES["7.2"]))
    return all(outcome.answer.result != "EOPNOTSUPP" for outcome in report.outcomes)


def _run_in_a_thread(scenario: Scenario, given: Collection, groups: tuple[str, ...]) -> Report:
    """Run a scenario with keyrings of its own: credentials belong to a thread."""
    reports: list[Report] = []

    def run() -> None:
        reports.append(run_scenario(scenario, given, LinuxSubject(), groups))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return reports[0]


@pytest.mark.parametrize("name", FILES)
def test_this_machines_kernel_answers_as_expected(name: str) -> None:
    groups = groups_of(running_profile())
    found: list[str] = []
    for scenario in collection(name).scenarios:
        if not scenario.boot:
            found += _run_in_a_thread(scenario, collection(name), groups).differences
    assert found == []
