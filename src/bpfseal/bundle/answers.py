"""The head of an HTTP answer, within limits, before a library looks at it.

``http.client`` takes a hundred lines of 64 KiB. What then takes them apart (``oras`` a challenge,
``urllib3`` a URL) needs time that grows with the square of their length, half a minute for one
line, and no deadline interrupts it.

Example:
    >>> check_headers([("Location", "https://example.org/blob")])
"""

from __future__ import annotations

import http.client
import io
import socket
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

MAX_HEADER: Final = 8 << 10
"""Bytes of a line, and of all values that a header has. Signed URLs have up to 4 KiB."""

MAX_CHALLENGE: Final = 2 << 10
"""The same for what asks for a log-in: realm, service and scope."""

_CHALLENGES: Final = ("www-authenticate", "proxy-authenticate")


class RefusedError(Exception):
    """A request that must not be made, or an answer that must not be taken; not tried again."""


class Answer(http.client.HTTPResponse):
    """An answer with a head within the limits."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = _Lines(self.fp.detach())

    def begin(self) -> None:
        """Read the head.

        Raises:
            RefusedError: a line or a header is too long.
        """
        super().begin()
        check_headers(self.headers.items())


class _Lines(io.BufferedReader):
    """Lines, none of them too long."""

    def readline(self, size: int | None = -1, /) -> bytes:
        most = MAX_HEADER + 1 if size is None or size < 0 else min(size, MAX_HEADER + 1)
        line = super().readline(most)
        if len(line) > MAX_HEADER:
            raise RefusedError(f"answers with a line of more than {MAX_HEADER} bytes")
        return line


def check_headers(headers: Iterable[tuple[str, str]]) -> None:
    """Check how long headers are: one that is folded, or there several times, as a whole.

    Raises:
        RefusedError: one is too long.
    """
    sizes: Counter[str] = Counter()
    for name, value in headers:
        key = name.lower()
        sizes[key] += len(value) + 1
        most = MAX_CHALLENGE if key in _CHALLENGES else MAX_HEADER
        if sizes[key] > most:
            raise RefusedError(f"answers with a header {key[:40]!r} of more than {most} bytes")
