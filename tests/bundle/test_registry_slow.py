"""`Access.timeout` is for the whole exchange, whatever the other side does to draw it out.

The servers here are never silent for long: they send a byte every few hundredths of a second, for
as long as somebody listens.
"""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("oras", reason="the extra bpfseal[oci] is not installed")

from bpfseal.bundle import transport
from bpfseal.bundle.deadline import Deadline, OverError
from bpfseal.bundle.layout import encode
from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.reference import Access, Reference, parse_reference
from bpfseal.bundle.registry import pull, push
from bpfseal.errors import CapabilityError
from bpfseal.loader.model import Loader

TIMEOUT = 0.7
"""Seconds that the exchange has."""

HUNG = 20.0
"""Seconds after which a server gives up: an exchange that takes so long hangs."""

OK = b"HTTP/1.1 200 OK\r\n"
FILES = encode(Bundle("x", (SignedLoader(Loader("kfunc", "x", bytes(8), b"m", b"btf", (), ())),)))
Answer = Callable[[bytes], Iterator[bytes]]


class Server:
    """Answers each request with what a generator yields, piece by piece."""

    def __init__(self, answer: Answer, *, reads: bool = True) -> None:
        self._answer = answer
        self._reads = reads
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        end = time.monotonic() + HUNG
        with contextlib.suppress(OSError), connection:
            while self._reads and (request := connection.recv(1 << 16)):
                for piece in self._answer(request):
                    connection.sendall(piece)
                    if self._over.wait(0.02 if len(piece) == 1 else 0) or time.monotonic() > end:
                        return
            self._over.wait(HUNG)

    def stop(self) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextlib.contextmanager
def serving(answer: Answer, *, reads: bool = True) -> Iterator[Server]:
    server = Server(answer, reads=reads)
    try:
        yield server
    finally:
        server.stop()


def at(server: Server) -> Reference:
    return parse_reference(f"{server.host}/tool:1")


def forever(piece: bytes) -> Iterator[bytes]:
    while True:
        for number in piece:
            yield bytes([number])


def long_status(_: bytes) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 "
    yield from forever(b"O")


def long_header(_: bytes) -> Iterator[bytes]:
    yield OK + b"A: "
    yield from forever(b"b")


def many_headers(_: bytes) -> Iterator[bytes]:
    yield OK
    yield from forever(b"A: b\r\n")


def many_informational_answers(_: bytes) -> Iterator[bytes]:
    yield from forever(b"HTTP/1.1 100 Continue\r\n\r\n")


def long_chunk_extension(_: bytes) -> Iterator[bytes]:
    yield OK + b"Transfer-Encoding: chunked\r\n\r\n5;a="
    yield from forever(b"b")


def small_chunks(_: bytes) -> Iterator[bytes]:
    yield OK + b"Transfer-Encoding: chunked\r\n\r\n"
    yield from forever(b"1\r\nx\r\n")


def many_trailers(_: bytes) -> Iterator[bytes]:
    yield OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    yield from forever(b"A: b\r\n")


def slow_body(_: bytes) -> Iterator[bytes]:
    yield OK + b"Content-Length: 100000\r\n\r\n"
    yield from forever(b"x")


def body_without_length(_: bytes) -> Iterator[bytes]:
    yield OK + b"Connection: close\r\n\r\n"
    yield from forever(b"x")


def nothing(_: bytes) -> Iterator[bytes]:
    return iter(())


def redirect_to_slow(request: bytes) -> Iterator[bytes]:
    if b"/elsewhere" in request:
        yield from slow_body(request)
    yield b"HTTP/1.1 307 Away\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"


def redirects(_: bytes) -> Iterator[bytes]:
    yield from (bytes([number]) for number in b"HTTP/1.1 307 Away\r\n")
    yield b"Location: /v2/\r\nContent-Length: 0\r\n\r\n"


def slow_token_service(request: bytes) -> Iterator[bytes]:
    if b"/token" in request:
        yield from slow_body(request)
    host = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"host:"))
    realm = b'Bearer realm="http://' + host[5:].strip() + b'/token",service="s"'
    yield b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nWWW-Authenticate: " + realm + b"\r\n\r\n"


def always_busy(_: bytes) -> Iterator[bytes]:
    yield b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"


def never_done(request: bytes) -> Iterator[bytes]:
    """Answer the first question at once, and each upload a bit later than it should."""
    if b"GET /v2/ " in request:
        yield OK + b"Content-Length: 0\r\n\r\n"
    elif b"HEAD" in request:
        yield from (bytes([number]) for number in b"HTTP/1.1 200 OK\r\n")
        yield b"Content-Length: 0\r\n\r\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def check_over(work: Callable[[], object]) -> None:
    started = time.monotonic()
    with pytest.raises(CapabilityError, match=r"within 0\.7 s .*--timeout"):
        work()
    assert time.monotonic() - started < HUNG / 2


@pytest.mark.parametrize(
    "answer",
    [
        long_status,
        long_header,
        many_headers,
        many_informational_answers,
        long_chunk_extension,
        small_chunks,
        many_trailers,
        slow_body,
        body_without_length,
        nothing,
        redirect_to_slow,
        redirects,
        slow_token_service,
        never_done,
    ],
)
def test_an_answer_that_is_drawn_out_is_not_waited_for(answer: Answer) -> None:
    access = Access(plain_http=True, timeout=TIMEOUT)
    with serving(answer) as server:
        check_over(lambda: pull(at(server), access))
        check_over(lambda: push(FILES, at(server), access))


def test_pauses_between_attempts_end_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PAUSE", HUNG)
    with serving(always_busy) as server:
        check_over(lambda: pull(at(server), Access(plain_http=True, timeout=TIMEOUT)))


def test_an_upload_that_nobody_reads_is_not_waited_for() -> None:
    metadata = bytes(8_000_000)
    loader = Loader("kfunc", "x", bytes(8), metadata, b"btf", (), ())
    files = encode(Bundle("x", (SignedLoader(loader),)))

    def answer(request: bytes) -> Iterator[bytes]:
        if b"GET /v2/ " in request:
            yield OK + b"Content-Length: 0\r\n\r\n"
        elif b"HEAD" in request:
            yield b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
        elif b"POST" in request:
            yield b"HTTP/1.1 202 Go\r\nLocation: /v2/up\r\nContent-Length: 0\r\n\r\n"
        else:
            while True:  # reads no more
                yield b""
                time.sleep(0.05)

    with serving(answer) as server:
        check_over(lambda: push(files, at(server), Access(plain_http=True, timeout=TIMEOUT)))


@pytest.fixture
def collected() -> Iterator[None]:
    """Python forgets to close a socket that is cut off just before it begins its handshake."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed <ssl.SSLSocket", ResourceWarning)
        yield
        gc.collect()


@pytest.mark.usefixtures("collected")
def test_a_handshake_that_is_drawn_out_is_not_waited_for() -> None:
    def answer(_: bytes) -> Iterator[bytes]:
        yield b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc"  # a record with a ServerHello of 16 kB
        yield from forever(b"\x03")

    with serving(answer) as server:
        check_over(lambda: pull(at(server), Access(timeout=TIMEOUT)))


@pytest.mark.usefixtures("collected")
def test_a_handshake_that_is_not_answered_is_not_waited_for() -> None:
    with serving(nothing) as server:
        check_over(lambda: pull(at(server), Access(timeout=TIMEOUT)))


@pytest.mark.usefixtures("collected")
def test_a_proxy_that_draws_its_answer_out_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(_: bytes) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 Connected\r\n"
        yield from forever(b"A: b\r\n")

    with serving(answer) as server:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{server.host}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        reference = parse_reference("registry.example.org/tool:1")
        check_over(lambda: pull(reference, Access(timeout=TIMEOUT)))


def test_a_name_that_nobody_resolves_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def getaddrinfo(*_: object) -> list[object]:  # where a program waits for a name server
        answered.wait(HUNG)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        reference = parse_reference("registry.example.org/tool:1")
        check_over(lambda: pull(reference, Access(plain_http=True, timeout=TIMEOUT)))
    finally:
        answered.set()


def test_an_endless_header_takes_no_more_memory_than_headers_may() -> None:
    sent = 0

    def answer(_: bytes) -> Iterator[bytes]:
        nonlocal sent
        yield OK + b"A: "
        while True:
            sent += 1 << 16
            yield bytes(1 << 16).replace(b"\0", b"x")

    with (
        serving(answer) as server,
        pytest.raises(CapabilityError, match="a line of more than 8192 bytes"),
    ):
        pull(at(server), Access(plain_http=True, timeout=10))
    assert sent < 1 << 26


def test_the_deadline_leaves_no_thread_and_no_connection_behind() -> None:
    before = threading.active_count()
    with Deadline(60) as deadline:
        assert 0 < deadline.patience() <= 30
    assert threading.active_count() <= before + 1
    late = Deadline(0)
    with pytest.raises(OverError):
        late.left()
    late.close()
