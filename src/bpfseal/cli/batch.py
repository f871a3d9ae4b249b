"""One piece of work on many inputs: a failure of one does not stop the others."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bpfseal.bundle.targets import status_of
from bpfseal.bundle.writing import made_folders
from bpfseal.cli.console import Console, error_fields
from bpfseal.cli.inputs import STDIO
from bpfseal.cli.streams import StdoutError
from bpfseal.errors import BpfsealError, CapabilityError, UsageError
from bpfseal.input_file import known_inputs, note_input, take_inputs

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

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
    for task in tasks:
        if task.source != STDIO and (source := status_of(task.source)):
            note_input(source)  # also what is read only after the others are written
    folders = {Path(task.target).parent: None for task in tasks if task.target != STDIO}
    with made_folders(*folders):  # here, once, so that no failed task takes it from the others
        work_done = _outcomes(work, tasks, jobs)
        outcomes = list(console.progress(work_done, total=len(tasks), title=title))
    status = 0
    for task, outcome in zip(tasks, outcomes, strict=True):
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
    size = max(1, min(_MAX_CHUNK, len(tasks) // (4 * jobs)))
    chunks = [tasks[at : at + size] for at in range(1, len(tasks), size)]
    with contextlib.ExitStack() as opened:
        opened.enter_context(_safe_path())  # before the event, which starts a process as well
        given_up = context.Event()
        pool = opened.enter_context(
            ProcessPoolExecutor(
                jobs,
                mp_context=context,
                initializer=_start_worker,
                initargs=(given_up, known_inputs()),
            )
        )
        try:
            futures = [pool.submit(_attempt_all, attempt, chunk) for chunk in chunks]
            for chunk, future in zip(chunks, futures, strict=True):
                try:
                    yield from future.result()
                except BrokenProcessPool:
                    yield from (_lost(task) for task in chunk)
        except BaseException:  # a signal: what is in work becomes whole, the rest is not begun
            given_up.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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


def _lost(task: Task) -> CapabilityError:
    return CapabilityError("the process that worked on it was killed", where=task.source)


_given_up: Event | None = None
"""In a worker: set when the rest of the work is not wanted any more."""


def _start_worker(given_up: Event, inputs: frozenset[tuple[int, int]]) -> None:
    """Prepare a worker process.

    Ctrl-C reaches the whole process group: it is the first process that decides what becomes of the
    work. If that one is killed, nobody would tell the workers to end.
    """
    global _given_up
    _given_up = given_up
    take_inputs(inputs)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # put off while a file is written


def _attempt_all(
    attempt: Callable[[Task], Done | BpfsealError], tasks: Sequence[Task]
) -> list[Done | BpfsealError]:
    return [
        _lost(task) if _given_up is not None and _given_up.is_set() else attempt(task)
        for task in tasks
    ]


def _attempt(work: Callable[[Task], Done], task: Task) -> Done | BpfsealError:
    try:
        return work(task)
    except StdoutError:  # there is no use in the next one
        raise
    except BpfsealError as error:
        return error
