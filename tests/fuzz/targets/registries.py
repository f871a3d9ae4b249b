"""What a registry answers: status, headers and bodies, over real connections on loopback."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Sequence
from functools import cache
from unittest.mock import patch

from bpfseal.bundle.layout import encode
from bpfseal.bundle.model import Bundle
from bpfseal.bundle.reference import Access, parse_reference
from bpfseal.bundle.registry import pull

from ..mutators import BYTES, JSON, TEXT, by_part, join, split
from .base import Target, signed

_TIMEOUT = 10.0


@cache
def _files() -> dict[str, bytes]:
    return encode(Bundle("xdpcount_bpf", (signed("xdpcount", "kfunc"),)))


class _Server:
    """Answers each connection with the next of the given answers, then with the true bundle."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.answers: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            with contextlib.suppress(OSError), client:
                client.settimeout(_TIMEOUT)
                request = b""
                while b"\r\n\r\n" not in request:
                    if not (more := client.recv(1 << 16)):
                        break
                    request += more
                if request:
                    client.sendall(self._answer(request))

    def _answer(self, request: bytes) -> bytes:
        if self.answers:
            return self.answers.pop(0)
        path = request.split(b" ", 2)[1].decode("latin-1")
        _, _, rest = path.partition("/v2/")
        _, _, digest = rest.rpartition("sha256:")
        body = _files().get(f"blobs/sha256/{digest}")
        if body is None:
            body = _files()["index.json"] if "manifests/" in rest else b"{}"
        return _http(body)


def _http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@cache
def _server() -> _Server:
    return _Server()


def _answers() -> Sequence[bytes]:
    """Answers in the order of the requests: is there a registry, the index, ..."""
    index = _files()["index.json"]
    errors = json.dumps({"errors": [{"code": "DENIED", "message": "no"}]}).encode()
    asks = 'WWW-Authenticate: Bearer realm="http://127.0.0.1:1/token",service="x",scope="a:b:pull"'
    return (
        join(_http(b"{}"), _http(index)),
        join(_http(b"{}"), _http(index, "200 OK", "Docker-Content-Digest: sha256:" + "0" * 64)),
        join(_http(errors, "401 Unauthorized", asks), _http(errors, "403 Forbidden")),
        join(_http(b"", "401 Unauthorized", "WWW-Authenticate: Basic realm=x"), _http(b"")),
        join(_http(b"{}"), _http(b"", "307 Temporary Redirect", "Location: /v2/elsewhere")),
        join(_http(b"{}"), _http(errors, "404 Not Found")),
        join(
            _http(b"{}"),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b'5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n',
        ),
    )


def answered(data: bytes) -> dict[str, bytes]:
    """Pull from a registry that gives these answers to the first requests."""
    server = _server()
    server.answers = list(split(data, 2))
    reference = parse_reference(f"{server.host}/tools/x:1")
    with patch("bpfseal.bundle.transport.PAUSE", 0.0):
        return pull(reference, Access(plain_http=True, timeout=_TIMEOUT))


TARGETS = (
    Target("registry-answer", _answers, answered, by_part((*TEXT, *BYTES), (*TEXT, *BYTES, *JSON))),
)
