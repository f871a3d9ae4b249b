"""One deadline for all that is exchanged with a registry, whatever the other side does.

Sockets know how long they may keep silent, not how long an exchange may last: a header, a chunk
extension, an informational answer or a handshake that comes one byte at a time, for ever, is never
silent. So when the time is over the connections themselves are ended, and nothing waits for them
any more. Looking up a name, which cannot be ended, is left behind.

Example::

    with Deadline(30.0) as deadline:
        deadline.watch_pools(manager)
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from typing import Any, Final, Self

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family, create_connection

SILENCE: Final = 30.0
"""Seconds that the other side may keep silent, within the deadline."""

_TOO_LATE: Final = 0.05
"""Seconds before the deadline from which on no connection is begun any more."""


class OverError(Exception):
    """The time is over. It is none of the errors after which something is tried again."""


class Deadline:
    """The time that an exchange has, from now on, and the connections that end with it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._watched: list[tuple[HTTPConnection, socket.socket]] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching."""
        self._timer.cancel()
        with self._lock:
            for _, handle in self._watched:
                handle.close()
            self._watched.clear()

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            OverError: none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise OverError
        return left

    def patience(self) -> float:
        """Return how long the other side may keep silent now.

        Raises:
            OverError: the time is over.
        """
        return min(self.left(), SILENCE)

    def pause(self, seconds: float) -> None:
        """Wait, until the deadline at most.

        Raises:
            OverError: the time is over.
        """
        time.sleep(min(seconds, self.left()))

    def watch_pools(
        self,
        manager: urllib3.PoolManager,
        answer: type[http.client.HTTPResponse] = http.client.HTTPResponse,
    ) -> None:
        """Have a manager make connections that end with the deadline.

        Args:
            manager: makes connections.
            answer: reads the answers.
        """
        deadline = self

        class Plain(HTTPConnection):
            response_class = answer

            def _new_conn(self) -> socket.socket:
                return deadline._connect(self)

        class Encrypted(HTTPSConnection):
            response_class = answer

            def _new_conn(self) -> socket.socket:
                return deadline._connect(self)

            def _tunnel(self) -> None:
                super()._tunnel()
                deadline.left()  # an answer that was cut off counts as whole there

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class EncryptedPool(HTTPSConnectionPool):
            ConnectionCls = Encrypted

        manager.pool_classes_by_scheme = {"http": PlainPool, "https": EncryptedPool}

    def forget_closed(self) -> None:
        """Let connections go that have been closed, when nothing is read from any."""
        with self._lock:
            for connection, handle in self._watched:
                if connection.sock is None:
                    handle.close()
            self._watched = [entry for entry in self._watched if entry[0].sock is not None]

    def _connect(self, connection: HTTPConnection) -> socket.socket:
        """Look up a name and connect to its addresses one by one."""
        host, port = connection.host, connection.port
        if self.left() < _TOO_LATE:
            raise OverError
        error: OSError | None = None
        for address in self._addresses(connection, host, port):
            try:
                made = create_connection(
                    (address, port),
                    self.patience(),
                    source_address=connection.source_address,
                    socket_options=connection.socket_options,
                )
            except OSError as failed:
                error = failed
                continue
            # A second handle: TLS takes the first one away, and an answer may outlive it.
            with self._lock:
                self._watched.append((connection, made.dup()))
            try:
                self.left()  # the time may have run out just before
            except OverError:
                made.close()
                raise
            return made
        if isinstance(error, TimeoutError):
            raise ConnectTimeoutError(connection, f"Connection to {host} timed out") from error
        raise NewConnectionError(connection, f"{error or 'no address'}") from error

    def _addresses(self, connection: HTTPConnection, host: str, port: int) -> list[str]:
        found: list[Any] = []

        def look_up() -> None:
            try:
                name, family = host.strip("[]"), allowed_gai_family()
                found.append(socket.getaddrinfo(name, port, family, socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                found.append(error)

        thread = threading.Thread(target=look_up, daemon=True)
        thread.start()
        thread.join(self.left())
        if not found:
            raise OverError
        if isinstance(found[0], socket.gaierror):
            raise NameResolutionError(host, connection, found[0])
        if isinstance(found[0], Exception):
            raise found[0]
        return list(dict.fromkeys(str(entry[4][0]) for entry in found[0]))

    def _cut(self) -> None:
        """End all connections: whoever waits for one is woken up."""
        with self._lock:
            for _, handle in self._watched:
                with contextlib.suppress(OSError):
                    handle.shutdown(socket.SHUT_RDWR)
