"""Scenarios: lists of kernel calls with the expected result for each kernel, and their runner.

The data files and their format are described in docs/conformance.md and conformance/schema.json. A
scenario says what is signed and how; `bpfseal.kernel.scenario_keys` makes keys and signatures, so
that the runner needs the standard library only. It runs on any `bpfseal.kernel.subject.Subject`:
the model, or a real kernel.

Example:
    >>> collection = with_signatures(read_collection(Path("conformance/signatures.json")))
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

from bpfseal.errors import InputError, KernelError
from bpfseal.input_file import read_file
from bpfseal.kernel.scenario_calls import CALLS
from bpfseal.kernel.scenario_run import MALFORMED, Answer, Run
from bpfseal.kernel.subject import Subject

_MAX_SIZE = 128 << 20
"""Bytes of the largest collection that is read; with its blobs the largest here takes 36 MB."""

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
        kernel_types: the types of the kernel that it speaks of, as a BTF, for a model of one; a
            kernel has them. ``b""`` where any types will do.
        steps: the calls, in order.
    """

    name: str
    about: str
    source: str
    boot: Mapping[str, Any]
    kernel_types: bytes
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

    @property
    def trace(self) -> tuple[str, ...]:
        """Each call that was made and its answer, one line each: equal on kernels that agree."""
        return tuple(_line(outcome) for outcome in self.outcomes)


def _line(outcome: Outcome) -> str:
    answer = outcome.answer
    found = {
        "returned": answer.retval,
        "sha256": answer.sha256,
        "data": answer.data,
        "log": answer.log,
    }
    more = "".join(f", {name} {value!r}" for name, value in found.items() if value)
    return f"{outcome.step.call} {outcome.step.result_name}: {answer.result}{more}"


def read_collection(path: Path) -> Collection:
    """Read a file of scenarios.

    Raises:
        InputError: the file cannot be read or does not follow the format.
    """
    try:
        document = json.loads(read_file(path, limit=_MAX_SIZE))
        blobs = {name: _blob(given) for name, given in document["blobs"].items()}
        return Collection(
            title=document["title"],
            blobs=blobs,
            scenarios=tuple(_scenario(given, blobs) for given in document["scenarios"]),
        )
    except MALFORMED as error:
        raise InputError(f"no collection of scenarios: {error!r}", where=str(path)) from error


def _blob(given: str | list[str]) -> bytes:
    """Return bytes: hex digits, or insns, each 16 hex digits and what they mean."""
    if isinstance(given, str):
        return bytes.fromhex(given)
    return b"".join(bytes.fromhex(line[:16]) for line in given)


def _scenario(given: Mapping[str, Any], blobs: Mapping[str, bytes]) -> Scenario:
    return Scenario(
        name=_text(given["name"]),
        about=_text(given.get("about", "")),
        source=_text(given["source"]),
        boot=_boot(given.get("boot", {})),
        kernel_types=blobs[given["kernel_types"]] if "kernel_types" in given else b"",
        steps=tuple(_step(step) for step in given["steps"]),
    )


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise TypeError(f"{given!r} is no text")
    return given


def _boot(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the machine is started with, with texts where there must be some."""
    for name in ("builtin", "functions"):
        for text in given.get(name, ()):
            _text(text)
    hook = _text(given.get("post_integrity", ""))
    if hook and hook not in errno.errorcode.values():
        raise ValueError(f"no errno {hook}")
    return given


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
        result_name=_text(given.get("as", "")),
        expected={who: _expectation(what) for who, what in expected.items()},
        measured_as=_text(given.get("measured_as", "")),
    )


def _expectation(given: str | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if isinstance(given, str):
        return {"result": given}
    if given is not None:
        _text(given["result"])
    return given


def run_scenario(
    scenario: Scenario,
    collection: Collection,
    subject: Subject,
    groups: tuple[str, ...],
) -> Report:
    """Run a scenario and compare each answer with what is expected.

    A step that uses the result of a refused or omitted one is left out.

    Args:
        scenario: what to run.
        collection: the collection that it is from, with its signatures.
        subject: a fresh process on a fresh machine, booted as the scenario says.
        groups: the names that an expectation for the kernel may go by
            (`bpfseal.kernel.model.subject.groups_of`).

    Raises:
        InputError: a step that speaks of something that does not exist.
    """
    run = Run(subject, collection.blobs)
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
    except MALFORMED as error:
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
        for name in ("log", "retval", "sha256", "data")
        if name in expected and getattr(answer, name) != expected[name]
    )
    return found
