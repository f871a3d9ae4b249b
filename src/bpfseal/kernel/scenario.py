"""Scenarios: lists of kernel calls with the expected result for each kernel, and their runner.

The data files and their format are described in docs/conformance.md and conformance/schema.json. A
scenario says what is signed and how; keys and signatures are made when it runs. It runs on any
`bpfseal.kernel.subject.Subject`: the model, or a real kernel.

Example:
    >>> collection = read_collection(Path("conformance/signatures.json"))
    >>> profile = PROFILES["7.3"]
    >>> for scenario in collection.scenarios:
    ...     subject = boot_model(scenario, profile)
    ...     assert not run_scenario(scenario, collection, subject, groups_of(profile)).differences
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bpfseal.bpf.uapi import KeyringId
from bpfseal.errors import InputError, KernelError
from bpfseal.kernel.model.kernel import ModelKernel
from bpfseal.kernel.model.kernel_btf import SyntheticBtf
from bpfseal.kernel.model.lsm import Hook, Operation, ProgramFacts
from bpfseal.kernel.model.profile import Profile
from bpfseal.kernel.scenario_calls import CALLS, Answer, Run
from bpfseal.kernel.scenario_keys import KeyStore, key_pair
from bpfseal.kernel.subject import ModelSubject, Subject

ANY = "any"
"""The group of all kernels."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call and what is expected of it.

    Attributes:
        call: the name of the call.
        arguments: its arguments, by name.
        result_name: the name that later steps know the result by, or ``""``.
        expected: outcomes by the name of a kernel or a group of kernels; a call that no outcome
            is given for is not made there.
        measured_as: the name of this case in published measurements, or ``""``.
    """

    call: str
    arguments: Mapping[str, Any]
    result_name: str
    expected: Mapping[str, Mapping[str, Any] | None]
    measured_as: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named list of calls.

    Attributes:
        name: unique in its collection.
        about: what it shows, one line.
        source: where the expectations are from.
        boot: what the machine is started with: ``builtin`` keys, ``functions`` that the kernel has,
            ``bpf_keyring_unsealed``, and the errno of an LSM hook ``post_integrity``.
        steps: the calls, in order.
    """

    name: str
    about: str
    source: str
    boot: Mapping[str, Any]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Collection:
    """The scenarios of one file and the bytes that they speak of.

    Attributes:
        title: what they are about.
        blobs: programs, data and BTFs, by name.
        scenarios: in the order of the file.
    """

    title: str
    blobs: Mapping[str, bytes]
    scenarios: tuple[Scenario, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step.

    Attributes:
        step: the step.
        answer: what the kernel answered.
        differences: what is not as expected, one line each.
    """

    step: Step
    answer: Answer
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a scenario; `differences` is empty where all is as expected."""

    scenario: Scenario
    outcomes: tuple[Outcome, ...]

    @property
    def differences(self) -> tuple[str, ...]:
        """What is not as expected, one line each."""
        return tuple(
            f"{self.scenario.name}: {outcome.step.call}: {line}"
            for outcome in self.outcomes
            for line in outcome.differences
        )


def groups_of(profile: Profile) -> tuple[str, ...]:
    """Return the names that an expectation for a kernel may go by, the most special first.

    The name itself; ``unverified`` for a kernel that cannot verify signatures; what its signatures
    cover, as ``insns+metadata``, or ``none``; ``any``.
    """
    unverified = () if profile.has_data_verification else ("unverified",)
    return (profile.name, *unverified, "+".join(profile.signed_parts) or "none", ANY)


def read_collection(path: Path) -> Collection:
    """Read a file of scenarios.

    Raises:
        InputError: the file cannot be read or does not follow the format.
    """
    try:
        document = json.loads(path.read_text())
        return Collection(
            title=document["title"],
            blobs={name: _blob(given) for name, given in document["blobs"].items()},
            scenarios=tuple(_scenario(given) for given in document["scenarios"]),
        )
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", where=str(path)) from error
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"no collection of scenarios: {error!r}", where=str(path)) from error


def _blob(given: str | list[str]) -> bytes:
    """Return bytes: hex digits, or insns, each 16 hex digits and what they mean."""
    if isinstance(given, str):
        return bytes.fromhex(given)
    return b"".join(bytes.fromhex(line[:16]) for line in given)


def _scenario(given: Mapping[str, Any]) -> Scenario:
    return Scenario(
        name=given["name"],
        about=given.get("about", ""),
        source=given["source"],
        boot=given.get("boot", {}),
        steps=tuple(_step(step) for step in given["steps"]),
    )


_STEP_KEYS = frozenset({"call", "as", "expect", "measured_as"})


def _step(given: Mapping[str, Any]) -> Step:
    if given["call"] not in CALLS:
        raise ValueError(f"no call {given['call']}")
    expected = given.get("expect", "ok")
    if isinstance(expected, str):
        expected = {ANY: expected}
    return Step(
        call=given["call"],
        arguments={name: value for name, value in given.items() if name not in _STEP_KEYS},
        result_name=given.get("as", ""),
        expected={who: _expectation(what) for who, what in expected.items()},
        measured_as=given.get("measured_as", ""),
    )


def _expectation(given: str | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return {"result": given} if isinstance(given, str) else given


def boot_model(scenario: Scenario, profile: Profile) -> ModelSubject:
    """Return the model of a kernel, started as a scenario says."""
    kernel = ModelKernel(
        profile=profile,
        kernel_btf=SyntheticBtf(functions=tuple(scenario.boot.get("functions", ()))),
        hooks=_hooks(scenario.boot.get("post_integrity", "")),
        bpf_keyring_unsealed=bool(scenario.boot.get("bpf_keyring_unsealed")),
    )
    for key in scenario.boot.get("builtin", ()):
        kernel.keyrings.add_key(KeyringId.BUILTIN, key_pair(key).certificate_der, key)
    return ModelSubject(kernel)


def _hooks(post_integrity: str) -> tuple[Hook, ...]:
    """Return a hook that answers each matched hash with an errno, if there is one."""

    def hook(operation: Operation, _program: ProgramFacts) -> int:
        asked = operation is Operation.BPF_PROG_LOAD_POST_INTEGRITY
        return -getattr(errno, post_integrity) if asked else 0

    return (hook,) if post_integrity else ()


def run_scenario(
    scenario: Scenario,
    collection: Collection,
    subject: Subject,
    groups: tuple[str, ...],
    keys: KeyStore | None = None,
) -> Report:
    """Run a scenario and compare each answer with what is expected.

    A step that uses the result of a refused or omitted one is left out.

    Args:
        scenario: what to run.
        collection: the collection that it is from.
        subject: a fresh process on a fresh machine, booted as the scenario says.
        groups: the names of the kernel, as `groups_of` gives them.
        keys: keys and signatures, to share them between scenarios.

    Raises:
        InputError: a step that speaks of something that does not exist.
    """
    run = Run(subject, dict(collection.blobs), keys or KeyStore())
    outcomes: list[Outcome] = []
    missing: set[str] = set()  # names of results that there are not
    for step in scenario.steps:
        name = next((group for group in groups if group in step.expected), None)
        expected = step.expected[name] if name is not None else None
        if expected is None or missing & _names_in(step.arguments):
            missing |= {step.result_name} - {""}
            continue
        answer = _answer(run, step)
        if answer.value is None:
            missing |= {step.result_name} - {""}
        elif step.result_name:
            run.results[step.result_name] = answer.value
        outcomes.append(Outcome(step, answer, tuple(_differences(answer, expected))))
    run.close()
    return Report(scenario, tuple(outcomes))


def _answer(run: Run, step: Step) -> Answer:
    try:
        return CALLS[step.call](run, step.arguments)
    except KernelError as error:
        return Answer(error.errno_name, None, log=error.log, rule=error.rule)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{step.call} with {dict(step.arguments)}: {error!r}") from error


def _names_in(arguments: object) -> set[str]:
    """Return all strings in the arguments that may be names of results."""
    if isinstance(arguments, str):
        return {arguments}
    if isinstance(arguments, Mapping):
        arguments = list(arguments.values())
    if isinstance(arguments, (list, tuple)):
        return {name for value in arguments for name in _names_in(value)}
    return set()


def _differences(answer: Answer, expected: Mapping[str, Any]) -> list[str]:
    found = []
    if answer.result != expected["result"]:
        reason = f" ({answer.rule})" if answer.rule else ""
        found.append(f"{answer.result}{reason}, not {expected['result']}")
    found += (
        f"{name} {getattr(answer, name)!r}, not {expected[name]!r}"
        for name in ("log", "retval", "sha256")
        if name in expected and getattr(answer, name) != expected[name]
    )
    return found
