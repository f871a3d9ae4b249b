"""Answers of a registry that no HTTP library foresees, over a real connection."""

from __future__ import annotations

import pytest

from bpfseal.bundle.answers import MAX_CHALLENGE, MAX_HEADER, RefusedError, check_headers
from bpfseal.bundle.reference import Access, parse_reference
from bpfseal.bundle.registry import pull
from bpfseal.bundle.transport import _one_line
from bpfseal.errors import CapabilityError
from fuzz.mutators import join
from fuzz.targets.registries import _server, answered

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
THERE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


@pytest.mark.parametrize("size", [b"-9223372036854775809", b"-1", b"x", b"7fffffffffffffff"])
def test_an_answer_with_a_chunk_of_an_impossible_size_is_asked_for_again(size: bytes) -> None:
    files = answered(join(THERE, HEAD + size + b"\r\n{}"))
    assert "index.json" in files


# The head of an answer is bounded before a library takes it apart, in quadratic time

LONG = "a" * (MAX_HEADER + 1)


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        ("401 X", [f"WWW-Authenticate: Bearer {'a' * MAX_CHALLENGE}"]),
        ("401 X", [f'www-authenticate: Bearer realm="{LONG}']),
        ("401 X", ["WWW-Authenticate: Bearer " + "a" * 1000] * 3),
        ("401 X", ["WWW-Authenticate: Bearer", *[" " + "a" * 1000] * 3]),
        ("302 X", [f"Location: http://{'1:' * 30000}x"]),
        ("302 X", ["Location: http://", *[" " + "1:" * 2000] * 3]),
        ("200 OK", [f"X-Any: {LONG}"]),
        ("200 OK", [f"{LONG}: x"]),
        (f"200 {LONG}", []),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_answer_with_a_long_header_is_refused_at_once(status: str, lines: list[str]) -> None:
    answer = "\r\n".join([f"HTTP/1.1 {status}", "Content-Length: 2", *lines, "", "{}"]).encode()
    server = _server()
    server.answers = [answer, THERE, THERE]
    access = Access(plain_http=True, timeout=30.0)
    with pytest.raises(CapabilityError, match=r"answers with a .* of more than [0-9]+ bytes"):
        pull(parse_reference(f"{server.host}/x"), access)
    assert len(server.answers) == 2  # not asked for again
    server.answers = []


def test_headers_up_to_the_limit_are_taken() -> None:
    check_headers([("Location", "a" * (MAX_HEADER - 1)), ("WWW-Authenticate", "a" * 2047)])
    with pytest.raises(RefusedError):
        check_headers([("Set-Cookie", "a" * 5000), ("set-cookie", "a" * 5000)])


def test_the_reason_of_a_failure_is_what_stands_last() -> None:
    text = "HTTPConnection(host='a'): <x object>: Failed: [Errno -2] Name or service not known"
    assert _one_line(ValueError(text)) == "Name or service not known"
    assert _one_line(ValueError("as it is")) == "as it is"
