"""Load and unload often, and kill a process in mid-load: what does the kernel hold afterwards?"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bpfseal.bpf.uapi import KeyringId
from bpfseal.bundle.model import SignedLoader
from bpfseal.bundle.store import unpack
from bpfseal.kernel.linux.kernel import LinuxKernel
from support.kernel_objects import (
    doomed,
    kernel_objects,
    killed_child,
    left_behind,
    load_and_close,
    open_fds,
)

from .children import in_child

Answer = dict[str, Any]

CYCLES = 200
RANDOM_KILLS = 20


def run(jobs: Path) -> Iterator[tuple[str, Answer]]:
    """Yield how often something was done, and what was left behind."""
    before = kernel_objects()
    certificate = (jobs / "certificate").read_bytes()
    scheme = LinuxKernel().accepted_scheme() or "unsigned"
    signed = unpack((jobs / "cycled.bpfseal").read_bytes(), "cycled").variant(scheme)
    started = time.monotonic()
    fds = in_child(partial(_cycles, signed, certificate, CYCLES))
    cycling = time.monotonic() - started
    answer: Answer = {"count": CYCLES, "fds": fds, "scheme": scheme, "seconds": cycling}
    yield "cycles", answer | {"left": left_behind(before)}
    calls = 0
    while killed_child(partial(_die, signed, certificate, calls + 1)):
        calls += 1
    yield "killed behind each call", {"count": calls, "left": left_behind(before)}
    chance = random.Random(7)  # noqa: S311 (nothing secret)
    moments = [chance.uniform(0, 3 * cycling / CYCLES) for _ in range(RANDOM_KILLS)]
    endless = partial(_cycles, signed, certificate, sys.maxsize)
    kills = sum(killed_child(endless, after=moment) for moment in moments)
    yield "killed at random", {"count": kills, "left": left_behind(before)}


def _cycles(signed: SignedLoader, certificate: bytes, count: int) -> int:
    """Load and unload, and return how many fds are open that were not before."""
    kernel = _kernel_with(certificate)
    fds = open_fds()
    for _ in range(count):
        load_and_close(kernel, signed)
    return open_fds() - fds


def _die(signed: SignedLoader, certificate: bytes, call: int) -> None:
    load_and_close(doomed(_kernel_with(certificate), call), signed)


def _kernel_with(certificate: bytes) -> LinuxKernel:
    """Return the kernel, with a session keyring and a key in it for this process alone."""
    kernel = LinuxKernel()
    kernel.keyrings.add_key(KeyringId.SESSION, certificate)
    return kernel
