"""Debian's ``docker-registry`` on loopback, and a proxy that damages what passes through it."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PROGRAM = "docker-registry"
_START_TIMEOUT = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@dataclass
class Registry:
    """A registry server with its own storage."""

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the port that it had before, and wait until it answers."""
        if shutil.which(PROGRAM) is None:
            pytest.skip(f"{PROGRAM} is not installed")
        self.port = self.port or free_port()
        config = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "storage")}},
            "http": {"addr": self.host, "secret": "of this test"},
        } | self.settings
        (self.folder / "config.json").write_text(json.dumps(config))  # JSON is YAML too
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "serve", str(self.folder / "config.json")], stdout=log, stderr=log
            )
        end = time.monotonic() + _START_TIMEOUT
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            if time.monotonic() > end or self._process.poll() is not None:
                self.stop()
                pytest.fail(f"{PROGRAM}: {(self.folder / 'log').read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Registry]:
    """Run a registry with storage on disk; `settings` replace parts of its configuration."""
    folder.mkdir(exist_ok=True)
    registry = Registry(folder, settings)
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()


Filter = Callable[[bytes], bytes]
"""What becomes of a piece of the stream; `CutError` ends the connection."""


class CutError(Exception):
    """Ends a connection, after some last bytes."""

    def __init__(self, last: bytes) -> None:
        super().__init__()
        self.last = last


def unchanged(data: bytes) -> bytes:
    return data


@dataclass
class Proxy:
    """Listens on loopback and hands on to a registry what the filters leave of it."""

    target: int
    to_server: Filter = unchanged
    to_client: Filter = unchanged
    seen: bytearray = field(default_factory=bytearray)
    """All that clients have sent."""

    connections: int = 0
    """How often a client has connected."""

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _run(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def start(self) -> None:
        self._run(self._accept)

    def stop(self) -> None:
        _end(self._listener)
        with self._lock:
            for connection in self._sockets:
                _end(connection)
        for thread in self._threads:
            thread.join(5)
        for connection in (self._listener, *self._sockets):
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets += [client, server]
            self._run(self._pump, client, server, "to_server")
            self._run(self._pump, server, client, "to_client")

    def _pump(self, source: socket.socket, sink: socket.socket, direction: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if direction == "to_server":
                    self.seen += data
                try:
                    sink.sendall(getattr(self, direction)(data))
                except CutError as cut:
                    sink.sendall(cut.last)
                    break
        _end(source)
        _end(sink)


def _end(connection: socket.socket) -> None:
    """End a connection; closing it could hand its number to another while a thread reads it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxied(
    registry: Registry, *, to_server: Filter = unchanged, to_client: Filter = unchanged
) -> Iterator[Proxy]:
    proxy = Proxy(registry.port, to_server, to_client)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


def replacing(old: bytes, new: bytes, *, times: int = -1) -> Filter:
    """Return a filter that replaces bytes wherever they pass, or `times` times."""
    left = times

    def change(data: bytes) -> bytes:
        nonlocal left
        if old in data and left:
            left -= 1
            return data.replace(old, new)
        return data

    return change


def cut_after(count: int, *, once: bool = False) -> Filter:
    """Return a filter that lets `count` bytes pass and then cuts every connection, or one."""
    left = count

    def change(data: bytes) -> bytes:
        nonlocal left
        if once and left < 0:
            return data
        last, left = data[: max(left, 0)], left - len(data)
        if left <= 0:
            left = -1
            raise CutError(last)
        return data

    return change


def silent(_: bytes) -> bytes:
    return b""
