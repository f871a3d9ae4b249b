"""Loads that share a keyring, or are disturbed by signals: all of them come up."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bpfseal.bpf.uapi import KeyringId
from bpfseal.bundle.model import SignedLoader
from bpfseal.bundle.store import unpack
from bpfseal.errors import BpfsealError
from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.load import load

from .children import in_child

Answer = dict[str, Any]

PROCESSES = 4
LOADS = 5
DISTURBED = 20
PERIOD = 0.1
"""Seconds between two signals of the timer."""


def run(jobs: Path) -> Iterator[tuple[str, Answer]]:
    """Yield how many loads there were, and what became of those that failed."""
    scheme = LinuxKernel().accepted_scheme()
    if scheme is None:
        return
    signed = unpack((jobs / "cycled.bpfseal").read_bytes(), "cycled").variant(scheme)
    certificates = [(jobs / name).read_bytes() for name in ("certificate", "other certificate")]
    for name, order in (("signer first", certificates), ("signer last", certificates[::-1])):
        for keyring in (KeyringId.SESSION, KeyringId.USER):
            work = partial(_loads, signed, order, keyring, LOADS)
            yield f"{name}, {keyring.name.lower()}", {"failed": in_child(work)}
    yield "parallel", {"failed": in_child(partial(_parallel, signed, certificates))}
    yield "timer", {"failed": in_child(partial(_disturbed, signed, certificates))}
    yield "user keyring", {"failed": _users_keys()}


def _loads(
    signed: SignedLoader, certificates: list[bytes], keyring: KeyringId, count: int
) -> list[str]:
    failed = []
    kernel = LinuxKernel()
    for _ in range(count):
        try:
            with kernel.keyrings.enrolled(keyring, certificates):
                loaded = load(kernel, signed, keyring_id=keyring)
            for fd in (*loaded.map_fds.values(), *loaded.prog_fds.values()):
                kernel.close(fd)
        except BpfsealError as error:
            failed.append(str(error))
    return failed


def _parallel(signed: SignedLoader, certificates: list[bytes]) -> list[str]:
    """Load in several processes at once, with the user's keyring, which all of them share."""
    pipes = []
    for _ in range(PROCESSES):
        read_end, write_end = os.pipe()
        if not os.fork():
            failed = _loads(signed, certificates, KeyringId.USER, LOADS)
            os.write(write_end, "\n".join([*failed, "end"]).encode()[-4000:])
            os._exit(0)
        os.close(write_end)
        pipes.append(read_end)
    lines: list[str] = []
    for pipe in pipes:
        with os.fdopen(pipe) as file:
            lines += file.read().splitlines() or ["killed"]
        os.wait()
    return [line for line in lines if line != "end"]


def _disturbed(signed: SignedLoader, certificates: list[bytes]) -> list[str]:
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, PERIOD, PERIOD)
    failed = _loads(signed, certificates, KeyringId.SESSION, DISTURBED)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return failed


def _users_keys() -> list[str]:
    """Return the keys of ours that are left in the kernel."""
    lines = Path("/proc/keys").read_text().splitlines()
    return [line for line in lines if "bpfseal:" in line]
