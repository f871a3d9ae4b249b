"""Signals, put off while something must not be cut in two.

Python runs signal handlers between any two steps of the main thread, and a handler may raise. A
temporary file, a pin, a key or a file descriptor that was made a step before would then stay
behind. Inside `deferred_endings` signals wait for a point where everything is known and can be
undone: those that ask a process to end, and all that have a handler of Python's, as timers have.

Example:
    >>> with deferred_endings() as signals:
    ...     made = ["a.tmp"]  # and who undoes it, without a signal in between
    ...     signals.deliver()
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, NoReturn, TypeVar

ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a process to end and leave it the time to clean up."""

ATTEMPTS: Final = 5
"""How often a call to the kernel is made that signals disturb (libbpf: PROG_LOAD_ATTEMPTS)."""

_FAULTS: Final = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}

_T = TypeVar("_T")
_Handler = Callable[[int, FrameType | None], object] | int | signal.Handlers | None


class Ended(KeyboardInterrupt):
    """The process was asked to end by another signal than SIGINT.

    Attributes:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _DefaultActionError(BaseException):
    """A signal arrived whose default action ends the process: first everything is undone."""


class Deferral:
    """The signals that have arrived and were put off."""

    def __init__(self) -> None:
        self._handlers: dict[int, _Handler] = {}
        self._arrived: list[int] = []

    def deliver(self) -> None:
        """Hand out what has arrived: called where an exception does no harm.

        Raises:
            BaseException: what the handler raises, for example KeyboardInterrupt; and for a signal
                whose default action ends the process one that goes up to `deferred_endings`.
        """
        while self._arrived:
            handler = self._handlers[self._arrived[0]]
            if not callable(handler):
                raise _DefaultActionError
            handler(self._arrived.pop(0), None)

    def _install(self) -> None:
        for number in signal.valid_signals() - _FAULTS:
            handler = signal.getsignal(number)
            if callable(handler) or (number in ENDINGS and handler is signal.SIG_DFL):
                self._handlers[number] = handler
                signal.signal(number, self._note)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for number in self._arrived:
            signal.raise_signal(number)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number >= signal.SIGRTMIN or number not in self._arrived:  # as the kernel does it
            self._arrived.append(number)


@contextmanager
def deferred_endings() -> Iterator[Deferral]:
    """Put signals off until the block ends, or `Deferral.deliver` is called.

    These are `ENDINGS`, and all that have a handler of Python's.

    Does nothing outside of the main thread, where Python runs no handlers.
    """
    deferral = Deferral()
    if threading.current_thread() is not threading.main_thread():
        yield deferral
        return
    try:
        deferral._install()  # noqa: SLF001 - of this module
        with suppress(_DefaultActionError):
            yield deferral
    finally:
        deferral._restore()  # noqa: SLF001


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Have no signal come to this thread until the block ends; the kernel keeps them until then."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _FAULTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def undisturbed(call: Callable[[], _T], is_disturbed: Callable[[_T], bool]) -> _T:
    """Make a call again that a signal has disturbed, `ATTEMPTS` times at most.

    In between handlers run, and may raise. With a timer that is faster than the call all attempts
    could fail, so the last one is made with signals blocked.

    Args:
        call: what to do.
        is_disturbed: whether a result says that a signal came.
    """
    for _ in range(ATTEMPTS - 1):
        result = call()
        if not is_disturbed(result):
            return result
    with blocked_signals():
        return call()


@contextmanager
def ending_raises() -> Iterator[None]:
    """Have SIGTERM and SIGHUP raise `Ended`, so that they clean up as SIGINT does.

    For programs. Handlers of somebody else, and signals that are ignored (``nohup``), stay.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in ENDINGS if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in numbers:
            signal.signal(number, _raise)
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _raise(number: int, _frame: FrameType | None) -> NoReturn:
    raise Ended(number)
