"""How long one object takes to load: bpfseal beside programs in C, on the same guest."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import bpfseal
from bpfseal.bpf.uapi import KeyringId
from bpfseal.bundle.store import read_bundle
from bpfseal.kernel.linux.kernel import LinuxKernel
from support.kernel_objects import load_and_close

Answer = dict[str, Any]

LOADS = 10


def run(jobs: Path) -> Iterator[tuple[str, Answer]]:
    """Yield milliseconds, the best of some: of a load, and of a process that does only that."""
    folder = jobs / "load times"
    bundle = str(folder / "timed.bpfseal")
    kernel = LinuxKernel()
    kernel.keyrings.add_key(KeyringId.SESSION, (jobs / "certificate").read_bytes())
    schemes = [scheme for scheme in ("unsigned", kernel.accepted_scheme()) if scheme]
    for scheme in schemes:
        work = partial(_load_and_close, bundle, kernel, scheme)
        yield f"Python {scheme}", {"load": _milliseconds(work, LOADS)}
    unsigned = read_bundle(Path(bundle)).variant("unsigned")
    calls = partial(load_and_close, kernel, unsigned)
    yield "Python unsigned, calls alone", {"load": _milliseconds(calls, LOADS)}
    one_load = [sys.executable, "-m", "vm.inside.one_load", bundle, "unsigned"]
    for name, command in (
        ("Python unsigned, whole process", one_load),
        ("Python without a module, whole process", [sys.executable, "-c", ""]),
    ):
        yield name, {"process": _process(command)}
    for program in sorted((folder / "programs").glob("*")):
        done = subprocess.run([program, str(LOADS)], capture_output=True, text=True, check=False)
        if done.returncode:
            yield program.name, {"error": done.stdout + done.stderr}
            continue
        load = min(int(line) / 1e6 for line in done.stdout.split())
        yield program.name, {"load": load, "process": _process([str(program), "1"])}


def _load_and_close(bundle: str, kernel: LinuxKernel, scheme: str) -> None:
    with bpfseal.load(bundle, kernel, scheme=scheme):
        pass


def _process(command: list[str]) -> float:
    return _milliseconds(partial(subprocess.run, command, capture_output=True, check=True), 2)


def _milliseconds(work: Callable[[], object], count: int) -> float:
    """Return how long something takes, the best of some times."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - started))
    return min(times)
