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
import io
import os
import sys
from collections.abc import Iterator
from typing import IO, BinaryIO, TextIO

from bpfseal.errors import CapabilityError, InputError, UsageError
from bpfseal.input_file import is_input, reason


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


@contextlib.contextmanager
def whole_writes() -> Iterator[None]:
    """Have all written that is given to stdout and stderr, or an error.

    With ``PYTHONUNBUFFERED`` Python gives them no buffer, and passes over it in silence if the
    system takes only a part of what it is given, as it does where a disk becomes full.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_buffered, before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _buffered(stream: TextIO) -> TextIO:
    """Return a stream with a buffer that is written after each line, in place of one without."""
    if not isinstance(getattr(stream, "buffer", None), io.RawIOBase):
        return stream
    return open(
        stream.fileno(),
        "w",
        buffering=1,
        encoding=stream.encoding,
        errors=stream.errors,
        closefd=False,
    )


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is one, and was not closed when the process started."""
    return stream is not None and stream.isatty()


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
        UsageError: it is a file that was read.
        StdoutError: it does not take them.
    """
    output = stdout()
    with contextlib.suppress(OSError, ValueError):  # no file of the system
        if is_input(os.fstat(output.fileno())):
            raise UsageError("is a file that was read, which is not written to", where="stdout")
    with writing_stdout():
        output.flush()
        output.buffer.write(data)


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
