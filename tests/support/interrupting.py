"""Run something and send a signal to it at each of its steps, one process for each."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import bpfseal
from bpfseal.signals import ending_raises

PACKAGE = str(Path(bpfseal.__file__).parent)

_OFFSETS = itertools.count()

FINISHED, RAISED = 0, 99
"""Exit statuses of the child: it came to the end, or an exception of a handler ended it."""


def interrupted_everywhere(
    prepare: Callable[[], None],
    work: Callable[[], object],
    number: int,
    *,
    raises: bool,
    stride: int = 1,
) -> Iterator[int]:
    """Yield how each child ended: its exit status, or the negative number of the signal.

    Args:
        prepare: sets everything up again, before each child.
        work: what is interrupted, at each line of bpfseal's that it runs.
        number: the signal.
        stride: at each how manieth line; the first is another one each time.
        raises: with handlers that raise, as the command line has them, or the default action.
    """
    step = next(_OFFSETS) % stride
    while True:
        prepare()
        child = os.fork()
        if not child:
            _child(work, number, step, raises=raises)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == RAISED + 1:  # the work has no such step
            break
        yield status
        step += stride


def _child(work: Callable[[], object], number: int, step: int, *, raises: bool) -> None:
    left = step
    sent = False

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left, sent
        if not frame.f_code.co_filename.startswith(PACKAGE) or sent:
            return None
        if event == "line":
            if left == 0:
                sent = True
                os.kill(os.getpid(), number)
            left -= 1
        return trace

    status = FINISHED
    try:
        if number == signal.SIGINT and not raises:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        with ending_raises() if raises else nullcontext():
            sys.settrace(trace)
            try:
                work()
            finally:
                sys.settrace(None)
    except KeyboardInterrupt:
        status = RAISED
    except BaseException:  # noqa: BLE001 - a child of a test
        import traceback

        traceback.print_exc()
        status = 1
    os._exit(status if sent else RAISED + 1)
