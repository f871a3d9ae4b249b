"""One piece of work on many inputs: a failure of one does not stop the others."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bpfseal.cli.console import Console, error_fields
from bpfseal.cli.inputs import STDIO
from bpfseal.cli.streams import StdoutError
from bpfseal.errors import BpfsealError, CapabilityError, UsageError

_PACKAGE: Final = "bpfseal."
_SAFE_PATH: Final = "PYTHONSAFEPATH"
_MAX_CHUNK: Final = 8
"""How many tasks a worker takes at once, so that the progress bar still moves."""


@dataclass(frozen=True, slots=True)
class Task:
    """An input and the path of its output."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a task: a line for people, and fields of the JSON document."""

    line: str
    fields: dict[str, Any]


def run_batch(
    work: Callable[[Task], Done],
    tasks: Sequence[Task],
    console: Console,
    *,
    title: str,
    jobs: int = 1,
) -> int:
    """Do the work on each task and print what became of it, in order.

    Args:
        work: a function that pickle can hand to another process, if `jobs` is not 1.
        tasks: what to work on.
        console: where to print.
        title: what the progress bar says.
        jobs: the number of processes.

    Returns:
        The highest exit status of any task.

    Raises:
        UsageError: stdout would get both a bundle and a JSON document.
    """
    if console.json and any(task.target == STDIO for task in tasks):
        raise UsageError("--json needs stdout for itself", hint="-o FILE")
    jobs = min(jobs, len(tasks)) if all(task.source != STDIO for task in tasks) else 1
    outcomes = console.progress(_outcomes(work, tasks, jobs), total=len(tasks), title=title)
    status = 0
    for task, outcome in zip(tasks, list(outcomes), strict=True):
        if isinstance(outcome, BpfsealError):
            status = max(status, outcome.exit_status)
            console.complain(outcome)
            console.result(input=task.source, error=error_fields(outcome))
            continue
        console.result(input=task.source, output=task.target, **outcome.fields)
        if task.target != STDIO:
            console.say(f"{task.target}: {outcome.line}")
    return status


def _outcomes(
    work: Callable[[Task], Done], tasks: Sequence[Task], jobs: int
) -> Iterator[Done | BpfsealError]:
    attempt = functools.partial(_attempt, work)
    if jobs == 1:
        yield from map(attempt, tasks)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # Not forked: a progress bar runs in a thread of its own. The first task is done here, so that
    # the server that forks knows which modules the others need, and loads them once.
    yield attempt(tasks[0])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([name for name in sys.modules if name.startswith(_PACKAGE)])
    chunk = max(1, min(_MAX_CHUNK, len(tasks) // (4 * jobs)))
    with _safe_path(), ProcessPoolExecutor(jobs, context, _leave_interrupts) as pool:
        try:
            yield from pool.map(attempt, tasks[1:], chunksize=chunk)
        except BrokenProcessPool:
            message = "a process that did part of the work was ended"
            raise CapabilityError(message, hint="--jobs 1 works in this one") from None


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Keep the current directory out of the module path of the processes that are started.

    The server that forks is ``python -c``, which looks for its modules in the current directory
    first: whoever can write there could give it another ``multiprocessing``.
    """
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


def _leave_interrupts() -> None:
    """Leave SIGINT to the process that waits for this one: one message is enough."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _attempt(work: Callable[[Task], Done], task: Task) -> Done | BpfsealError:
    try:
        return work(task)
    except StdoutError:  # there is no use in the next one
        raise
    except BpfsealError as error:
        return error
