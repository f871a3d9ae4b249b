"""One input, judged: what became of a call within the limits of time and memory.

Only a `BpfsealError` may leave the library; a call may take `CPU_LIMIT` seconds of the processor,
and `MEMORY_FACTOR` times the bytes of its input plus `MEMORY_BASE`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final

from bpfseal.errors import BpfsealError

CPU_LIMIT: Final = 2.0
"""Seconds."""

MEMORY_FACTOR: Final = 20
MEMORY_BASE: Final = 100 << 20

_AGAIN: Final = 0.2
"""Seconds after which a call that has swallowed the first interruption gets another."""

_PAGE: Final = resource.getpagesize()
_STATUS_SIZE: Final = 4096


class Kind(StrEnum):
    """What became of a call."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    FOREIGN = "foreign"
    HANG = "hang"
    MEMORY = "memory"

    @property
    def is_finding(self) -> bool:
        """Whether it should not be."""
        return self in (Kind.FOREIGN, Kind.HANG, Kind.MEMORY)


class HangError(BaseException):
    """Interrupts a call that takes too long; no `except Exception` takes it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call.

    Attributes:
        kind: how it ended.
        cpu: seconds of the processor.
        memory: bytes at the peak, beyond those that the process had before.
        error: the exception in one line, or ``""``.
        place: the innermost place inside the library, as ``module:line``, or ``""``.
        trace: the traceback of a finding, or ``""``.
    """

    kind: Kind
    cpu: float = 0.0
    memory: int = 0
    error: str = ""
    place: str = ""
    trace: str = ""

    @property
    def group(self) -> tuple[str, str, str]:
        """What findings of the same cause have in common."""
        return self.kind, self.error.partition(":")[0], self.place


def memory_limit(data: bytes) -> int:
    """Return how many bytes a call may take for an input."""
    return MEMORY_FACTOR * len(data) + MEMORY_BASE


def judge(call: Callable[[bytes], object], data: bytes, *, cpu_limit: float = CPU_LIMIT) -> Outcome:
    """Make a call with an input and tell what became of it.

    It interrupts the call by SIGPROF, so it works in the main thread alone.
    """
    with _peak() as peak:
        started = time.process_time()
        try:
            with _address_space(memory_limit(data)), _timer(cpu_limit):
                kind, error = _attempt(call, data)
        except HangError as late:
            kind, error = Kind.HANG, late
        cpu = time.process_time() - started
        memory = peak()
    if not kind.is_finding:
        if cpu > cpu_limit:
            kind = Kind.HANG
        elif memory > memory_limit(data):
            kind = Kind.MEMORY
    text = traceback.format_exception_only(error)[-1].strip() if error is not None else ""
    if kind is Kind.HANG:
        text = f"HangError: {cpu:.1f} s"
    place = _place(error.__traceback__) if error is not None and kind.is_finding else ""
    trace = "".join(traceback.format_exception(error, limit=-30)) if kind.is_finding else ""
    return Outcome(kind, cpu, memory, text, place, trace)


def _attempt(call: Callable[[bytes], object], data: bytes) -> tuple[Kind, BaseException | None]:
    try:
        call(data)
    except BpfsealError as error:
        str(error)
        return (Kind.MEMORY if _hides_memory_error(error) else Kind.REFUSED), error
    except HangError as error:
        return Kind.HANG, error
    except MemoryError as error:
        return Kind.MEMORY, error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - anything else is a finding
        return Kind.FOREIGN, error
    return Kind.ACCEPTED, None


def _hides_memory_error(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _place(trace: TracebackType | None) -> str:
    found = ""
    for frame, line in traceback.walk_tb(trace):
        name = frame.f_globals.get("__name__", "")
        if name.startswith("bpfseal"):
            found = f"{name}:{line}"
    return found


@contextlib.contextmanager
def _timer(limit: float) -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, limit, _AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def _address_space(room: int) -> Iterator[None]:
    """Let the process grow by so many bytes and no further."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * _PAGE + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def _peak() -> Iterator[Callable[[], int]]:
    """Yield a function that tells how far the resident memory has risen since the beginning.

    Writing 5 resets the peak (proc_pid_clear_refs(5)), so that each input has one of its own.
    """
    opened = os.open("/proc/self/status", os.O_RDONLY)
    try:
        Path("/proc/self/clear_refs").write_bytes(b"5")
        before = _field(opened, b"VmRSS:")
        yield lambda: max(_field(opened, b"VmHWM:") - before, 0)
    finally:
        os.close(opened)


def _field(opened: int, name: bytes) -> int:
    text = os.pread(opened, _STATUS_SIZE, 0)
    return int(text[text.index(name) + len(name) :].split(maxsplit=1)[0]) << 10


def save(folder: Path, target: str, data: bytes, outcome: Outcome) -> Path:
    """Keep the input of a finding, and what happened beside it; return the input's path."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(data).hexdigest()[:12]
    path = folder / f"{target}.{outcome.kind}.{digest}"
    path.write_bytes(data)
    about = f"{outcome.error}\nat {outcome.place}\ncpu {outcome.cpu:.2f} s, memory {outcome.memory}"
    path.with_name(path.name + ".txt").write_text(f"{about}\n{outcome.trace}")
    return path
