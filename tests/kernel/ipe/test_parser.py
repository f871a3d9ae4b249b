"""The policy language: what the kernel takes, and with which errno it refuses the rest."""

from __future__ import annotations

from collections import Counter
from errno import EBADMSG, EINVAL, ERANGE

import pytest

from bpfseal.errors import KernelError
from bpfseal.kernel.model.ipe import PolicyError, parse_policy
from bpfseal.kernel.model.ipe.policy import (
    Action,
    Digest,
    IpeOperation,
    Property,
    Version,
    untrusted_string,
)

from .policies import CASES, FULL, HEADER, REST, SELFTEST, Case


def errno_of(text: bytes) -> int:
    """Return the errno with which a text is refused, or 0."""
    try:
        parse_policy(text)
    except PolicyError as refused:
        return refused.errno
    return 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_kernel_takes_a_text_or_refuses_it_with_its_errno(case: Case) -> None:
    assert errno_of(case.text) == case.errno


def test_there_are_enough_cases_of_each_kind_and_none_twice() -> None:
    assert len({case.text for case in CASES}) == len(CASES)
    assert len({case.name for case in CASES}) == len(CASES)
    counts = Counter(case.errno for case in CASES)
    assert set(counts) == {0, EBADMSG, EINVAL, ERANGE}
    assert counts[0] >= 30
    assert counts[EBADMSG] >= 30


def test_a_policy_has_name_version_rules_in_order_and_defaults() -> None:
    policy = parse_policy(FULL)
    assert (policy.name, policy.version) == ("full", Version(65535, 0, 7))
    assert [str(rule) for rule in policy.rules] == [
        "op=EXECUTE boot_verified=TRUE action=ALLOW",
        "op=EXECUTE dmverity_signature=TRUE fsverity_signature=FALSE action=ALLOW",
        'op=KMODULE dmverity_roothash="sha256":00FFAB action=DENY',
        'op=FIRMWARE fsverity_digest="sha512":0123456789ABCDEF action=ALLOW',
        "op=BPF_PROG_LOAD bpf_kernel=TRUE action=ALLOW",
        "op=BPF_PROG_LOAD bpf_signature=OK bpf_keyring=BUILTIN bpf_kernel=FALSE action=ALLOW",
        "op=BPF_PROG_LOAD_POST_INTEGRITY bpf_signature=METADATA_VERIFIED action=ALLOW",
    ]
    assert [rule.line for rule in policy.rules] == [4, 5, 6, 7, 8, 9, 10]
    assert policy.rules[2].properties == (
        Property("dmverity_roothash", Digest("sha256", b"\x00\xff\xab")),
    )
    assert policy.defaults == {
        IpeOperation.BPF_PROG_LOAD: Action.DENY,
        IpeOperation.EXECUTE: Action.DENY,
    }
    assert policy.default is Action.ALLOW
    assert policy.text == FULL


def test_quotes_are_a_part_of_the_name() -> None:
    assert parse_policy(SELFTEST).name == '"ipe_bpf_test"'


def test_line_numbers_are_those_of_an_editor_for_all_line_ends() -> None:
    lines = [b"# comment", HEADER.strip(), b"", b"op=EXECUTE action=DENY", REST.strip()]
    for line_end in (b"\n", b"\r\n", b"\r"):
        (rule,) = parse_policy(line_end.join(lines)).rules
        assert rule.line == 4


def test_versions_compare_from_left_to_right() -> None:
    assert Version(1, 0, 0) > Version(0, 65535, 65535)
    assert Version(0, 1, 0) > Version(0, 0, 65535)


def test_a_refusal_says_line_errno_reason_and_what_would_be_right() -> None:
    with pytest.raises(PolicyError) as refused:
        parse_policy(HEADER + b"op=BPF_PROG_LOAD bpf_keyring=NONE action=DENY\n")
    error = refused.value
    assert (error.line, error.errno_name) == (2, "EBADMSG")
    assert str(error) == (
        "line 2: -EBADMSG: 'bpf_keyring=NONE' is no property "
        "(bpf_keyring is BUILTIN or SECONDARY or PLATFORM or USER)"
    )
    assert error.rule.startswith("security/ipe/policy_parser.c parse_property: ")


def test_a_policy_that_leaves_operations_open_is_told_which() -> None:
    with pytest.raises(PolicyError, match=r"no default for FIRMWARE, KMODULE, .*_POST_INTEGRITY"):
        parse_policy(HEADER + b"DEFAULT op=EXECUTE action=DENY\n")


def test_a_refusal_is_both_the_kernels_and_malformed_input() -> None:
    with pytest.raises(KernelError) as refused:
        parse_policy(b"?")
    assert refused.value.exit_status == 3


def test_a_message_shows_no_more_than_the_start_of_a_long_token() -> None:
    with pytest.raises(PolicyError) as refused:
        parse_policy(HEADER + b"op=" + b"\xffX" * 10_000 + b" action=DENY\n")
    assert len(refused.value.message) < 400


@pytest.mark.parametrize(
    ("text", "shown"),
    [("sha256", '"sha256"'), ("a b", "612062"), ('a"', "6122"), ("é", "C3A9"), ("", '""')],
)
def test_audit_shows_a_foreign_text_in_quotes_or_else_in_hex(text: str, shown: str) -> None:
    assert untrusted_string(text) == shown
