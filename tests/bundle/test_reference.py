"""How bundles in registries are named."""

from __future__ import annotations

import pytest

from bpfseal.bundle.reference import Reference, parse_reference
from bpfseal.errors import UsageError

DIGEST = f"sha256:{64 * 'a'}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("r.example.org/tool", Reference("r.example.org", "tool", "latest", "")),
        ("R.Example.org/tool", Reference("r.example.org", "tool", "latest", "")),
        ("r.example.org/tool:1.0", Reference("r.example.org", "tool", "1.0", "")),
        ("localhost/a/b__c/d-e.f:T", Reference("localhost", "a/b__c/d-e.f", "T", "")),
        ("localhost:5000/a", Reference("localhost:5000", "a", "latest", "")),
        ("[::1]:5000/a", Reference("[::1]:5000", "a", "latest", "")),
        (f"127.0.0.1:5/a@{DIGEST}", Reference("127.0.0.1:5", "a", "", DIGEST)),
    ],
)
def test_a_reference_is_a_host_a_name_and_a_tag_or_digest(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize("text", ["r.org/a:1", f"r.org/a/b@{DIGEST}", "[::1]:50/a:x"])
def test_a_reference_is_printed_as_it_was_given(text: str) -> None:
    assert str(parse_reference(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tool",
        "tool:1",
        "team/tool:1",
        "/tool",
        "r.org/",
        "r.org/Tool",
        "r.org/../tool",
        "r.org//tool",
        "r.org/tool:",
        "r.org/tool:a/b",
        "r.org/tool:" + 129 * "a",
        "r.org/" + 256 * "a",
        "r.org/tool@",
        "r.org/tool@sha256:abc",
        f"r.org/tool@sha256:{64 * 'A'}",
        f"r.org/tool:1@{DIGEST}",
        "r.org:port/tool",
        "r.org:123456/tool",
        "r..org/tool",
        "r.org/tool\n",
        "r.org/tool?x=1",
        "https://r.org/tool",
    ],
)
def test_anything_else_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"HOST\[:PORT\]/NAME\[:TAG\|@DIGEST\]"):
        parse_reference(text)


def test_a_password_in_a_reference_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        parse_reference("me:open-sesame@r.org/tool:1")
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("localhost.example.org", False),
        ("10.0.0.1:5000", False),
        ("[fe80::1]", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, *, expected: bool) -> None:
    assert parse_reference(f"{host}/tool").is_loopback is expected
