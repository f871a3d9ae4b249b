"""The scenarios of conformance/ on the guest's own kernel, each in a thread of its own.

A fresh thread has no keyring yet: credentials belong to threads, and the agent's process has none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bpfseal.kernel.linux.subject import LinuxSubject
from bpfseal.kernel.scenario import read_collection, run_scenario

Answer = dict[str, Any]


def run(jobs: Path) -> Iterator[tuple[str, Answer]]:
    """Run all scenarios; the name of each begins with its collection's."""
    groups = tuple(json.loads((jobs / "groups").read_text()))
    for path in sorted((jobs / "scenarios").glob("*.json")):
        collection = read_collection(path)
        for scenario in collection.scenarios:
            with ThreadPoolExecutor(1) as thread:
                work = thread.submit(run_scenario, scenario, collection, LinuxSubject(), groups)
            yield f"{path.stem}/{scenario.name}", {"trace": work.result().trace}
