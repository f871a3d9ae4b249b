"""How much work something is, counted and not timed: the same on every machine.

Example:
    >>> growth(lambda count: list(range(count)), 10)
    1.0
"""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any


def steps(work: Callable[[], object]) -> int:
    """Return how many instructions of the interpreter something takes."""
    count = 0

    def step(frame: FrameType, event: str, _arg: Any) -> Callable[..., Any]:
        nonlocal count
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def growth(work: Callable[[int], object], count: int) -> float:
    """Return by how much more the work grows from 2n to 4n than it does from n to 2n.

    It is 2 for work in proportion to n, and 4 for its square; what each n has in common does not
    count. A step at which the work is refused makes it smaller.
    """
    first, second, third = (steps(partial(work, n)) for n in (count, 2 * count, 4 * count))
    return (third - second) / max(second - first, 1)


def peak(work: Callable[[], object]) -> int:
    """Return the most bytes that something holds at once."""
    was_tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if not was_tracing:
            tracemalloc.stop()
