"""Skeletons that attach and read data back (`vm.exercises`), one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bpfseal.bpf.uapi import KeyringId
from bpfseal.kernel.linux.kernel import LinuxKernel

from ..exercises import EXERCISES
from .children import in_child

Exercise = Callable[[Path], dict[str, Any]]


def run(jobs: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what each exercise read back, or its traceback."""
    for name, exercise in EXERCISES.items():
        try:
            yield name, {"read": in_child(partial(_exercised, exercise, jobs))}
        except RuntimeError as error:
            yield name, {"error": str(error)}


def _exercised(exercise: Exercise, jobs: Path) -> dict[str, Any]:
    LinuxKernel().keyrings.add_key(KeyringId.SESSION, (jobs / "certificate").read_bytes())
    return exercise(jobs / "exercises")
