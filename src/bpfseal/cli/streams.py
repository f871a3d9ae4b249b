"""stdin, stdout and stderr, which a caller may have closed, filled or taken away.

A file descriptor that is closed when the process starts is the next one that an ``open`` returns: a
map or a key would be what some library prints into. So the three numbers are taken first.

Example:
    >>> with writing_stdout():
    ...     print("hello")
    hello
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO, BinaryIO, TextIO

from bpfseal.errors import CapabilityError, InputError
from bpfseal.input_file import reason


class StdoutError(CapabilityError):
    """stdout does not take what is to be printed."""


def take_standard_fds() -> None:
    """Open ``/dev/null`` for each of the first three file descriptors that is closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def stdin() -> BinaryIO:
    """Return stdin.

    Raises:
        InputError: it was closed when the process started.
    """
    if sys.stdin is None:
        raise InputError("is closed", where="stdin")
    return sys.stdin.buffer


def stdout() -> TextIO:
    """Return stdout.

    Raises:
        StdoutError: it was closed when the process started.
    """
    if sys.stdout is None:
        raise StdoutError("cannot be written: it is closed", where="stdout")
    return sys.stdout


@contextlib.contextmanager
def writing_stdout() -> Iterator[None]:
    """Turn what the system says of stdout into our error; a reader that went away stays that."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        raise StdoutError(f"cannot be written: {reason(error)}", where="stdout") from None


def write_stdout(data: bytes) -> None:
    """Write bytes to stdout.

    Raises:
        StdoutError: it does not take them.
    """
    with writing_stdout():
        stdout().buffer.write(data)


def flush_stdout() -> None:
    """Write what is still in the buffer.

    Raises:
        StdoutError: stdout does not take it.
    """
    if sys.stdout is not None:
        with writing_stdout():
            sys.stdout.flush()


def write_stderr(text: str) -> None:
    """Write a message; where stderr does not take it, nobody reads it."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        discard(sys.stderr)


def discard(stream: IO[str] | None) -> None:
    """Let Python, which flushes its streams once more at exit, write the rest to nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no file of the system
        descriptor = stream.fileno()  # type: ignore[union-attr] # None is suppressed
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
