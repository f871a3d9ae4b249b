"""Seeded mutations: for each target so many damaged inputs, judged in a process of their own.

Input `number` of a target depends on the seed, the target's name and the number alone, so whatever
ends the process (a crash of native code, a call that cannot be interrupted) is found again.
"""

from __future__ import annotations

import mmap
import os
import pickle
import random
import signal
import struct
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .limits import Kind, Outcome, judge, save
from .mutators import mutate
from .targets import Target

STUCK: Final = 60.0
"""Seconds without progress after which a process is ended."""

_POLL: Final = 0.05
_PROGRESS: Final = struct.Struct("<q")


@dataclass(slots=True)
class Tally:
    """What became of the inputs of one target.

    Attributes:
        name: the target's name.
        kinds: how many ended how.
        slowest: the most seconds of the processor for one input.
        highest: the most bytes of memory, and those of the input.
        findings: one input and outcome for each cause.
    """

    name: str
    kinds: Counter[Kind] = field(default_factory=Counter)
    slowest: float = 0.0
    highest: tuple[int, int] = (0, 0)
    findings: dict[tuple[str, str, str], tuple[bytes, Outcome]] = field(default_factory=dict)

    def add(self, data: bytes, outcome: Outcome) -> None:
        """Count one input."""
        self.kinds[outcome.kind] += 1
        self.slowest = max(self.slowest, outcome.cpu)
        self.highest = max(self.highest, (outcome.memory, len(data)))
        if outcome.kind.is_finding:
            known = self.findings.get(outcome.group)
            if known is None or len(data) < len(known[0]):
                self.findings[outcome.group] = data, outcome

    def merge(self, other: Tally) -> None:
        """Add what another process counted."""
        self.kinds += other.kinds
        self.slowest = max(self.slowest, other.slowest)
        self.highest = max(self.highest, other.highest)
        self.findings |= other.findings

    def line(self) -> str:
        """Return the counts in one line."""
        memory, size = self.highest
        counts = "".join(f"{self.kinds[kind]:9,}" for kind in Kind)
        most = f"{self.slowest:9.2f}{memory >> 20:9}{size:9,}"
        return f"{self.name:22}{self.kinds.total():9,}{counts}{most}"


HEADER: Final = (
    f"{'target':22}{'inputs':>9}"
    + "".join(f"{kind:>9}" for kind in Kind)
    + f"{'CPU s':>9}{'MiB':>9}{'of bytes':>9}"
)


def damaged(target: Target, seeds: Sequence[bytes], seed: int, number: int) -> bytes:
    """Return input `number` of a target."""
    chance = random.Random(f"{seed} {target.name} {number}")  # noqa: S311 - damage, no secrets
    return mutate(seeds, target.mutators, chance)


def run_here(target: Target, count: int, seed: int) -> Tally:
    """Judge inputs in this process."""
    tally = Tally(target.name)
    seeds = target.seeds()
    for data in (*seeds, *(damaged(target, seeds, seed, number) for number in range(count))):
        tally.add(data, judge(target.call, data))
    return tally


def run(target: Target, count: int, seed: int, findings: Path) -> Tally:
    """Judge inputs in a process of their own, which is replaced if it ends before it is done."""
    tally = Tally(target.name)
    seeds = target.seeds()
    first = 0
    while first < count:
        done, part = _worker(target, seeds, range(first, count), seed)
        tally.merge(part)
        if done < count:
            data = damaged(target, seeds, seed, done)
            tally.add(data, Outcome(Kind.HANG, STUCK, error="the process was lost or stuck"))
        first = done + 1
    for data, outcome in tally.findings.values():
        save(findings, target.name, data, outcome)
    return tally


def _worker(target: Target, seeds: Sequence[bytes], numbers: range, seed: int) -> tuple[int, Tally]:
    """Return the number of the first input that was not judged, and the tally of the others."""
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    _PROGRESS.pack_into(shared, 0, numbers.start)
    with tempfile.TemporaryFile() as file:
        child = os.fork()
        if not child:
            status = 1
            try:
                warnings.simplefilter("error")
                tally = Tally(target.name)
                for number in numbers:
                    _PROGRESS.pack_into(shared, 0, number)
                    data = damaged(target, seeds, seed, number)
                    tally.add(data, judge(target.call, data))
                _PROGRESS.pack_into(shared, 0, numbers.stop)
                pickle.dump(tally, file)
                file.flush()
                status = 0
            finally:
                os._exit(status)
        lost = _wait(child, shared)
        os.waitpid(child, 0)
        file.seek(0)
        answer = b"" if lost else file.read()
    (done,) = _PROGRESS.unpack_from(shared)
    if not answer:
        # What was counted died with it: those before are judged again, the one that ended it not.
        if done == numbers.start:
            return done, Tally(target.name)
        before, tally = _worker(target, seeds, range(numbers.start, done), seed)
        return (done if before == done else before), tally
    tally = pickle.loads(answer)  # noqa: S301 - our own process wrote it
    assert isinstance(tally, Tally)
    return done, tally


def _wait(child: int, shared: mmap.mmap) -> bool:
    """Wait for the end of the process; return whether it had to be ended, or died."""
    last, since = -1, time.monotonic()
    while True:
        done = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if done is not None:
            return bool(done.si_status)
        (number,) = _PROGRESS.unpack_from(shared)
        if number != last:
            last, since = number, time.monotonic()
        elif time.monotonic() - since > STUCK:
            os.kill(child, signal.SIGKILL)
            return True
        time.sleep(_POLL)


def shares(count: int, targets: Sequence[Target]) -> Iterator[tuple[Target, int]]:
    """Yield each target with its share of the count."""
    each, rest = divmod(count, len(targets))
    for number, target in enumerate(targets):
        yield target, each + (number < rest)
