"""Answers of a registry that no HTTP library foresees, over a real connection."""

from __future__ import annotations

import pytest

from fuzz.mutators import join
from fuzz.targets.registries import answered

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
THERE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


@pytest.mark.parametrize("size", [b"-9223372036854775809", b"-1", b"x", b"7fffffffffffffff"])
def test_an_answer_with_a_chunk_of_an_impossible_size_is_asked_for_again(size: bytes) -> None:
    files = answered(join(THERE, HEAD + size + b"\r\n{}"))
    assert "index.json" in files
