"""What runs in the guest: the jobs of a test, on the guest's own kernel.

A job is a bundle with what to do about it. One JSON line goes out for each. Only the standard
library and bpfseal are there.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from bpfseal.bundle.model import SignedLoader
from bpfseal.bundle.store import unpack
from bpfseal.errors import BpfsealError, KernelError
from bpfseal.kernel.linux.features import running_features
from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.load import load


def open_fds() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def attempt(kernel: LinuxKernel, variant: SignedLoader, *, check: bool) -> dict[str, Any]:
    """Load a variant, close what came up, and say what happened."""
    before = open_fds()
    try:
        skeleton = load(kernel, variant, check_metadata=check)
    except KernelError as error:
        answer: dict[str, Any] = {"step": error.step, "errno": error.errno_name, "log": error.log}
    except BpfsealError as error:
        answer = {"step": "before", "errno": type(error).__name__, "log": str(error)}
    else:
        fds = [*skeleton.map_fds.values(), *skeleton.prog_fds.values()]
        answer = {"step": "loaded", "errno": "", "fds": len({fd for fd in fds if fd > 2})}
        for fd in fds:
            os.close(fd)
    return answer | {"leaked": open_fds() - before}


def main(jobs: Path) -> None:
    kernel = LinuxKernel()
    features = running_features()
    kernel.keyrings.add_key(-3, (jobs / "certificate").read_bytes())
    head = {"kernel": kernel.description, "scheme": features.scheme()}
    print(json.dumps(head), flush=True)
    for path in sorted(jobs.glob("*.json")):
        job = json.loads(path.read_text())
        bundle = unpack(path.with_suffix(".bpfseal").read_bytes(), path.stem)
        wanted = features.scheme() if job["scheme"] == "auto" else job["scheme"]
        answer = attempt(kernel, bundle.variant(wanted or ""), check=job["check"])
        print(json.dumps({"job": path.stem, "scheme": wanted, **answer}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
