"""What `review` finds in policies that parse."""

from __future__ import annotations

import pytest

from bpfseal.kernel.model.ipe import parse_policy
from bpfseal.kernel.model.ipe.policy import ALLOW_INNER_LOADS
from bpfseal.kernel.model.ipe.review import DENY_UNSIGNED, Finding, review
from support.files import ROOT

from .policies import FULL, HEADER, SELFTEST

LOCKED_OUT = "loaders-locked-out"
UNSIGNED = "unsigned-loads-allowed"
FORGOTTEN = "post-integrity-forgotten"
NEVER_MATCHES = "rule-never-matches"
NEVER_DECIDES = "rule-never-decides"

DENY_POST = "op=BPF_PROG_LOAD_POST_INTEGRITY action=DENY"
VERIFIED_ONLY = (
    "op=BPF_PROG_LOAD_POST_INTEGRITY bpf_signature=METADATA_VERIFIED action=ALLOW",
    "DEFAULT op=BPF_PROG_LOAD_POST_INTEGRITY action=DENY",
)
ALLOW = "DEFAULT action=ALLOW"
DENY = "DEFAULT action=DENY"


def findings(*lines: str) -> tuple[Finding, ...]:
    return review(parse_policy(HEADER + "\n".join(lines).encode()))


def names(*lines: str) -> list[str]:
    return [finding.name for finding in findings(*lines)]


@pytest.mark.parametrize(
    "lines",
    [
        (ALLOW,),
        (DENY,),
        ("op=EXECUTE boot_verified=TRUE action=ALLOW", ALLOW),
        (ALLOW_INNER_LOADS, DENY_UNSIGNED, ALLOW),
        (ALLOW_INNER_LOADS, DENY_UNSIGNED, *VERIFIED_ONLY, ALLOW),
        (
            ALLOW_INNER_LOADS,
            "op=BPF_PROG_LOAD bpf_signature=OK bpf_keyring=BUILTIN action=ALLOW",
            "op=BPF_PROG_LOAD_POST_INTEGRITY action=ALLOW",
            DENY,
        ),
        (ALLOW_INNER_LOADS, DENY_UNSIGNED, DENY_POST, ALLOW),
        ("op=BPF_PROG_LOAD action=DENY", ALLOW),
        (ALLOW_INNER_LOADS, DENY_UNSIGNED, "op=BPF_PROG_LOAD action=DENY", ALLOW),
        ("op=BPF_PROG_LOAD action=ALLOW", "op=BPF_PROG_LOAD_POST_INTEGRITY action=ALLOW", DENY),
    ],
)
def test_a_policy_that_does_what_it_says_is_left_alone(lines: tuple[str, ...]) -> None:
    assert names(*lines) == []


@pytest.mark.parametrize(
    "lines",
    [
        (DENY_POST, ALLOW),
        (*VERIFIED_ONLY, ALLOW),
        ("DEFAULT op=BPF_PROG_LOAD_POST_INTEGRITY action=DENY", ALLOW),
        ("op=BPF_PROG_LOAD_POST_INTEGRITY bpf_keyring=USER action=DENY", ALLOW),
        ("op=BPF_PROG_LOAD bpf_signature=UNSIGNED action=ALLOW", *VERIFIED_ONLY, DENY),
    ],
)
def test_to_gate_the_post_integrity_operation_only_lets_unsigned_loads_through(
    lines: tuple[str, ...],
) -> None:
    assert names(*lines) == [UNSIGNED]


@pytest.mark.parametrize(
    "lines",
    [
        (DENY_UNSIGNED, ALLOW),
        (DENY_UNSIGNED, *VERIFIED_ONLY, ALLOW),
        ("op=BPF_PROG_LOAD bpf_signature=OK action=ALLOW", *VERIFIED_ONLY, DENY),
        ("op=BPF_PROG_LOAD bpf_kernel=TRUE action=DENY", ALLOW),
        (
            "op=BPF_PROG_LOAD bpf_keyring=BUILTIN action=ALLOW",
            "op=BPF_PROG_LOAD_POST_INTEGRITY bpf_keyring=BUILTIN action=ALLOW",
            DENY,
        ),
    ],
)
def test_to_deny_unsigned_without_an_exception_for_the_kernel_locks_loaders_out(
    lines: tuple[str, ...],
) -> None:
    assert names(*lines) == [LOCKED_OUT]


def test_a_global_default_of_deny_denies_the_post_integrity_operation_that_was_forgotten() -> None:
    admit = "op=BPF_PROG_LOAD bpf_signature=OK action=ALLOW"
    (finding,) = findings(ALLOW_INNER_LOADS, admit, DENY)
    assert (finding.name, finding.line) == (FORGOTTEN, 0)
    assert finding.hint == "add: op=BPF_PROG_LOAD_POST_INTEGRITY action=ALLOW"
    assert names(ALLOW_INNER_LOADS, admit, finding.hint.removeprefix("add: "), DENY) == []
    assert names("DEFAULT op=BPF_PROG_LOAD action=ALLOW", DENY) == [UNSIGNED, FORGOTTEN]


def test_an_exception_that_comes_too_late_is_found_twice() -> None:
    locked_out, late = findings(DENY_UNSIGNED, ALLOW_INNER_LOADS, ALLOW)
    assert (locked_out.name, locked_out.line) == (LOCKED_OUT, 2)
    assert (late.name, late.line) == (NEVER_DECIDES, 3)
    assert "(line 2)" in late.message


def test_the_policy_of_the_series_own_test_locks_loaders_out() -> None:
    (finding,) = review(parse_policy(SELFTEST))
    assert (finding.name, finding.line) == (LOCKED_OUT, 3)
    assert "-EACCES" in finding.message
    assert finding.hint == f"put before line 3: {ALLOW_INNER_LOADS}"


def test_what_the_hints_say_helps() -> None:
    assert names(ALLOW_INNER_LOADS, DENY_UNSIGNED, DENY_POST, ALLOW) == []
    assert names(ALLOW_INNER_LOADS, *SELFTEST.decode().splitlines()[1:]) == []
    (finding,) = findings(DENY_POST, ALLOW)
    assert ALLOW_INNER_LOADS in finding.hint
    assert DENY_UNSIGNED in finding.hint


@pytest.mark.parametrize(
    "condition",
    [
        "BPF_PROG_LOAD bpf_signature=METADATA_VERIFIED",
        "BPF_PROG_LOAD bpf_signature=OK bpf_kernel=TRUE",
        "BPF_PROG_LOAD bpf_signature=UNSIGNED bpf_keyring=USER",
        "BPF_PROG_LOAD bpf_keyring=USER bpf_keyring=BUILTIN",
        "BPF_PROG_LOAD boot_verified=TRUE",
        "BPF_PROG_LOAD_POST_INTEGRITY bpf_signature=OK",
        "BPF_PROG_LOAD_POST_INTEGRITY bpf_kernel=TRUE",
    ],
)
def test_a_rule_that_no_event_fits_is_found(condition: str) -> None:
    found = findings(ALLOW_INNER_LOADS, DENY_UNSIGNED, f"op={condition} action=ALLOW", ALLOW)
    assert [(each.name, each.line) for each in found] == [(NEVER_MATCHES, 4)]


def test_rules_about_files_are_not_judged() -> None:
    twice = ("op=EXECUTE bpf_kernel=TRUE action=DENY",) * 2
    assert names(*twice, ALLOW) == []


def test_a_policy_without_a_rule_for_it_names_the_default_that_decides() -> None:
    (finding,) = findings("op=BPF_PROG_LOAD bpf_signature=OK action=ALLOW", *VERIFIED_ONLY, DENY)
    assert finding.line == 0
    assert "DEFAULT action=DENY" in finding.message
    assert finding.hint == f"put as a rule: {ALLOW_INNER_LOADS}"


def test_all_there_is_in_the_language_is_fine() -> None:
    assert review(parse_policy(FULL)) == ()


def test_the_policy_of_the_documentation_is_fine() -> None:
    blocks = (ROOT / "docs" / "policy.md").read_text().split("```\n")
    (text,) = (block for block in blocks if block.startswith("policy_name="))
    policy = parse_policy(text.encode())
    assert review(policy) == ()
    assert len(policy.rules) == 3
