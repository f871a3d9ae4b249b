"""What a call of a scenario works with: the subject, names for bytes and results, the answer.

Example:
    >>> Run(subject, {"KEY": b"key1"}).bytes_of("KEY")
    b'key1'
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from bpfseal.bpf.uapi import Cmd
from bpfseal.kernel.subject import Subject

MALFORMED: Final = (
    *(AttributeError, KeyError, IndexError, OverflowError, RecursionError, TypeError, ValueError),
    struct.error,
)
"""What Python raises where a scenario has a value that does not fit its place."""

MAX_ROOM: Final = 64 << 20
"""Bytes of memory that the calls of one scenario may ask for."""

BAD_POINTER: Final = 0x1000
"""An address that leads nowhere in any process."""

KEYRINGS: Final = MappingProxyType(
    {
        "builtin": 0,
        "secondary": 1,
        "platform": 2,
        "thread": -1,
        "process": -2,
        "session": -3,
        "user": -4,
        "user-session": -5,
        "bpf": -9,
    }
)
"""``keyring_id`` by name."""

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a kernel answered.

    Attributes:
        result: ``ok`` or the name of an errno.
        value: what the call returned, ``None`` for a refusal.
        log: the verifier's log without its statistics.
        retval: what a program returned: ``0``, a number, or the name of an errno.
        sha256: a digest that the kernel gave, hex.
        data: bytes or fields that the kernel gave and that the step shows.
        rule: the rule behind a refusal, where the kernel tells.
    """

    result: str
    value: int | None
    log: str = ""
    retval: str = ""
    sha256: str = ""
    data: str = ""
    rule: str = ""


DONE: Final = Answer("ok", 0)
"""The answer of a call that has no result but that it went well."""


@dataclass(slots=True)
class Run:
    """One run of a scenario: the subject, what steps can speak of, and what they have opened.

    `asked` counts the bytes of memory that the steps have asked for.
    """

    subject: Subject
    blobs: Mapping[str, bytes]
    results: dict[str, int] = field(default_factory=dict)
    open_fds: list[int] = field(default_factory=list)
    asked: int = 0

    def number(self, given: int | str) -> int:
        """Return a number, the result of a step, or the id of a keyring."""
        if isinstance(given, int):
            return given
        return self.results[given] if given in self.results else KEYRINGS[given]

    def bytes_of(self, given: str) -> bytes:
        """Return a blob, or the digest of one: ``sha256:NAME``."""
        return bytes_of(self.blobs, given)

    def pointer(self, data: bytes, how: str = "") -> int:
        """Return the address of bytes, or one that is ``bad`` or ``null``."""
        return {"bad": BAD_POINTER, "null": 0}[how] if how else self.subject.allocate(data)

    def room(self, size: int) -> bytes:
        """Return so many zeros, of `MAX_ROOM` for all.

        Raises:
            ValueError: the scenario asks for more.
        """
        self.asked += max(size, 0)
        if self.asked > MAX_ROOM:
            raise ValueError(f"more than {MAX_ROOM} bytes")
        return bytes(size)

    def bpf(self, command: Cmd, attributes: bytearray) -> int:
        """Make a raw call to the BPF subsystem."""
        return self.subject.bpf(command, attributes)

    def opened(self, fd: int) -> Answer:
        """Return the answer of a call that opened a fd, which the end of the scenario closes."""
        self.open_fds.append(fd)
        return Answer("ok", fd)

    def close(self) -> None:
        """Close what is still open."""
        for fd in self.open_fds:
            self.subject.close(fd)


def bytes_of(blobs: Mapping[str, bytes], given: str) -> bytes:
    """Return a blob, or the digest of one: ``sha256:NAME``."""
    prefix, _, name = given.rpartition(":")
    data = blobs[name]
    return hashlib.sha256(data).digest() if prefix == "sha256" else data
