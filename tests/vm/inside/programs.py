"""Programs in C around bpfseal's own skeleton, one static binary for all kernels."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bpfseal.bpf.uapi import KeyringId
from bpfseal.kernel.linux.kernel import LinuxKernel


def run(jobs: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run each program with the key in the session keyring, and yield what it printed."""
    LinuxKernel().keyrings.add_key(KeyringId.SESSION, (jobs / "certificate").read_bytes())
    for path in sorted((jobs / "programs").glob("*")):
        done = subprocess.run([path], capture_output=True, text=True, check=False)
        yield path.name, {"status": done.returncode, "lines": done.stdout.splitlines()}
