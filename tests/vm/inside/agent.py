"""The guest's only process: runs the jobs of each kind and sends a JSON line for each answer.

Each kind runs in a child process, so that keyrings, fds and crashes of one do not reach the next.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bpfseal.kernel.linux.kernel import LinuxKernel

from . import exercises, keys, leaks, load_times, objects, programs, scenarios

Job = Callable[[Path], Iterator[tuple[str, dict[str, Any]]]]

KINDS = MappingProxyType[str, Job](
    {
        "scenarios": scenarios.run,
        "objects": objects.run,
        "programs": programs.run,
        "exercises": exercises.run,
        "load times": load_times.run,
        "leaks": leaks.run,
        "keys": keys.run,
    }
)


def send(**answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def run_kind(kind: str, jobs: Path) -> None:
    started = time.monotonic()
    try:
        for name, answer in KINDS[kind](jobs):
            send(kind=kind, name=name, **answer)
    except BaseException:  # noqa: BLE001 (the host hears of it, and the next kind has its turn)
        send(kind="error", name=kind, text=traceback.format_exc())
    send(kind="seconds", name=kind, seconds=time.monotonic() - started)


def main(jobs: Path) -> None:
    kernel = LinuxKernel()
    send(kind="head", name="kernel", text=kernel.description)
    kernel.accepted_scheme()  # reads the kernel's BTF, once for all children
    for kind in KINDS:
        child = os.fork()
        if not child:
            run_kind(kind, jobs)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
