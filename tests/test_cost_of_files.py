"""Time and memory of reading files that are no objects are in proportion to their size.

Counted, not timed: `support.work`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from bpfseal.errors import BpfsealError
from support.costly import FILES
from support.work import growth, peak

COUNT = 300
LINEAR = 2.3
"""What `growth` says of linear work, with room for a logarithm; a square comes to 4."""


def quietly(load: Callable[[bytes], object], data: bytes) -> None:
    """Read a file, or get the error that refuses it."""
    with contextlib.suppress(BpfsealError):
        load(data)


@pytest.mark.parametrize("what", FILES)
def test_twice_the_file_is_twice_the_work(what: str) -> None:
    case = FILES[what]
    load, inputs = case.load(), {n: case.build(n) for n in (COUNT, 2 * COUNT, 4 * COUNT)}
    quietly(load, inputs[COUNT])  # what is made once only
    assert growth(lambda n: quietly(load, inputs[n]), COUNT) < LINEAR


@pytest.mark.parametrize("what", FILES)
def test_memory_is_at_most_twenty_times_the_file(what: str) -> None:
    load, data = FILES[what].load(), FILES[what].build(20_000)
    quietly(load, FILES[what].build(10))  # what is made once only
    assert peak(lambda: quietly(load, data)) < 20 * len(data) + 1_000_000
