"""The arguments of `Program.attach`, and what they may be.

Example:
    >>> arguments = Arguments("count", "XDP", {"interface": 2})
    >>> arguments.interface()
    2
    >>> arguments.finish()
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from bpfseal.errors import CapabilityError, UsageError

EXAMPLES: Final = {
    "interface": "attach(interface='eth0')",
    "cgroup": "attach(cgroup='/sys/fs/cgroup/NAME')",
    "tracepoint": "attach(tracepoint='sched_switch')",
    "function": "attach(function='do_unlinkat')",
    "functions": "attach(functions=['vfs_*'])",
    "path": "attach(path='/bin/sh', function='main')",
    "event": "attach(event=PerfEvent(...))",
    "sockets": "attach(sockets=skel.maps.NAME)",
    "hook": "attach(family=2, hook=1, priority=0)",
    "attach_type": "attach(cgroup=..., attach_type=AttachType.CGROUP_INET_EGRESS)",
}
"""How the arguments are given, for hints."""


class MissingArgumentError(UsageError):
    """A program cannot be attached without an argument; nothing has happened yet."""


class UncoveredError(UsageError):
    """Only an unsigned section name says how a program is attached; nothing has happened yet."""


class Arguments:
    """What was given to `attach`, taken piece by piece."""

    def __init__(self, program: str, kind: str, given: Mapping[str, Any]) -> None:
        self._program = program
        self._kind = kind
        self._left = dict(given)

    def has(self, name: str) -> bool:
        """Whether an argument is given and not taken yet."""
        return name in self._left

    def take(self, name: str, default: Any = None) -> Any:
        """Return an argument, or the default."""
        return self._left.pop(name, default)

    def number(self, name: str, default: int = 0) -> int:
        """Return a number.

        Raises:
            UsageError: it is none.
        """
        value = self.take(name, default)
        if not isinstance(value, int):
            raise UsageError(f"{name} is a number, not {value!r}")
        return int(value)

    def require(self, name: str, default: Any = None) -> Any:
        """Return an argument that must be there, unless there is a default.

        Raises:
            MissingArgumentError: it is not.
        """
        value = self.take(name, default)
        if value in (None, ""):
            raise MissingArgumentError(
                f"program {self._program} of type {self._kind} needs the argument {name}",
                hint=EXAMPLES[name],
            )
        return value

    def interface(self) -> int:
        """Return the index of the network interface, which is given by name or index.

        Raises:
            MissingArgumentError: none is given.
            CapabilityError: this machine has no such interface.
        """
        value = self.require("interface")
        if isinstance(value, int):
            return value
        try:
            return socket.if_nametoindex(value)
        except OSError:
            raise CapabilityError(f"no network interface {value!r}") from None

    @contextmanager
    def file(self, name: str, default: str | None = None) -> Iterator[int]:
        """Give the fd of a file or folder, which is given by path, fd or something with a fd.

        Raises:
            MissingArgumentError: none is given.
            CapabilityError: it cannot be opened.
        """
        value = self.require(name, default)
        if isinstance(value, int):
            yield value
        elif hasattr(value, "fileno"):
            yield value.fileno()
        else:
            try:
                fd = os.open(value, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise CapabilityError(
                    f"cannot be opened: {error.strerror}", where=str(value)
                ) from None
            try:
                yield fd
            finally:
                os.close(fd)

    def finish(self) -> None:
        """Refuse what nobody took.

        Raises:
            UsageError: arguments that this kind of program does not have.
        """
        if self._left:
            names = ", ".join(self._left)
            raise UsageError(f"program {self._program} of type {self._kind} takes no {names}")
