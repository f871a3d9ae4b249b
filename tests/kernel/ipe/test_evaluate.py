"""Evaluation: rules in order, the first match wins; else the operation's default, or the global."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bpfseal.kernel.model.ipe import parse_policy
from bpfseal.kernel.model.ipe.evaluate import Event, Scope, evaluate
from bpfseal.kernel.model.ipe.policy import Action, Digest, IpeOperation
from bpfseal.kernel.model.verdict import KeyringKind, Verdict

from .policies import HEADER

LOAD = IpeOperation.BPF_PROG_LOAD
POST = IpeOperation.BPF_PROG_LOAD_POST_INTEGRITY

UNSIGNED = Event.bpf(LOAD, Verdict.UNSIGNED)
INNER = Event.bpf(LOAD, Verdict.UNSIGNED, is_kernel=True)
SIGNED = Event.bpf(LOAD, Verdict.OK, KeyringKind.USER)
BUILTIN = Event.bpf(LOAD, Verdict.OK, KeyringKind.BUILTIN)
PROMOTED = Event.bpf(POST, Verdict.METADATA_VERIFIED, KeyringKind.USER)
EXECUTE = Event(IpeOperation.EXECUTE, "BPRM_CHECK")


def decide(event: Event, *lines: str) -> str:
    """Return the text of the rule that decides, of a policy with a header and these lines."""
    return str(evaluate(parse_policy(HEADER + "\n".join(lines).encode()), event))


EVENTS = {
    "unsigned": UNSIGNED,
    "inner": INNER,
    "signed": SIGNED,
    "builtin": BUILTIN,
    "promoted": PROMOTED,
    "execute": EXECUTE,
}


@pytest.mark.parametrize(
    ("condition", "matched"),
    [
        ("", "unsigned inner signed builtin"),
        ("bpf_signature=UNSIGNED", "unsigned inner"),
        ("bpf_signature=OK", "signed builtin"),
        ("bpf_signature=METADATA_VERIFIED", ""),
        ("bpf_keyring=USER", "signed"),
        ("bpf_keyring=BUILTIN", "builtin"),
        ("bpf_keyring=SECONDARY", ""),
        ("bpf_keyring=PLATFORM", ""),
        ("bpf_kernel=TRUE", "inner"),
        ("bpf_kernel=FALSE", "unsigned signed builtin"),
        ("bpf_signature=UNSIGNED bpf_kernel=FALSE", "unsigned"),
        ("bpf_signature=OK bpf_keyring=BUILTIN bpf_kernel=FALSE", "builtin"),
        ("bpf_kernel=TRUE bpf_kernel=FALSE", ""),
        ("bpf_kernel=TRUE bpf_kernel=TRUE", "inner"),
        ("boot_verified=TRUE", ""),
        ("boot_verified=FALSE", "unsigned inner signed builtin"),
        ("dmverity_signature=FALSE", "unsigned inner signed builtin"),
        ("fsverity_signature=TRUE", ""),
        ("dmverity_roothash=sha256:00", ""),
        ("fsverity_digest=sha256:00", ""),
    ],
)
def test_a_rule_matches_if_all_its_properties_are_equal(condition: str, matched: str) -> None:
    rule = " ".join(filter(None, ("op=BPF_PROG_LOAD", condition, "action=DENY")))
    found = [
        name
        for name, event in EVENTS.items()
        if decide(event, rule, "DEFAULT action=ALLOW") == rule
    ]
    assert found == matched.split()


@pytest.mark.parametrize(
    ("condition", "matches"),
    [
        ("bpf_signature=METADATA_VERIFIED", True),
        ("bpf_signature=OK", False),
        ("bpf_signature=UNSIGNED", False),
        ("bpf_keyring=USER", True),
        ("bpf_keyring=BUILTIN", False),
        ("bpf_kernel=FALSE", True),
    ],
)
def test_after_the_match_of_the_hash_ok_does_not_match_metadata_verified(
    condition: str, matches: bool
) -> None:
    rule = f"op=BPF_PROG_LOAD_POST_INTEGRITY {condition} action=DENY"
    assert (decide(PROMOTED, rule, "DEFAULT action=ALLOW") == rule) is matches


@pytest.mark.parametrize(
    ("condition", "field", "value"),
    [
        ("boot_verified=TRUE", "boot_verified", True),
        ("dmverity_signature=TRUE", "dmverity_signature", True),
        ("fsverity_signature=TRUE", "fsverity_signature", True),
        ("dmverity_roothash=sha256:aBcD", "dmverity_roothash", Digest("sha256", b"\xab\xcd")),
        ("fsverity_digest=sha512:00", "fsverity_digest", Digest("sha512", b"\0")),
    ],
)
def test_the_properties_of_files_compare_by_equality_too(
    condition: str, field: str, value: bool | Digest
) -> None:
    lines = f"op=EXECUTE {condition} action=ALLOW", "DEFAULT action=DENY"
    policy = parse_policy(HEADER + "\n".join(lines).encode())
    changes: dict[str, Any] = {field: value}
    matching = replace(EXECUTE, **changes)
    assert evaluate(policy, matching).action is Action.ALLOW
    assert evaluate(policy, EXECUTE).action is Action.DENY
    changes = {field: Digest("md5", b"\0")}
    other = replace(EXECUTE, **changes)
    if isinstance(value, Digest):
        assert evaluate(policy, other).action is Action.DENY


def test_the_first_rule_that_matches_decides() -> None:
    allow, deny = "op=BPF_PROG_LOAD bpf_kernel=TRUE action=ALLOW", "op=BPF_PROG_LOAD action=DENY"
    rest = "DEFAULT action=ALLOW"
    assert decide(INNER, allow, deny, rest) == allow
    assert decide(INNER, deny, allow, rest) == deny
    assert decide(UNSIGNED, allow, deny, rest) == deny


def test_rules_of_other_operations_do_not_count_and_a_default_may_stand_anywhere() -> None:
    lines = (
        "DEFAULT op=BPF_PROG_LOAD action=DENY",
        "DEFAULT action=DENY",
        "op=BPF_PROG_LOAD_POST_INTEGRITY action=ALLOW",
        "op=EXECUTE action=ALLOW",
        "op=BPF_PROG_LOAD bpf_signature=OK action=ALLOW",
    )
    assert decide(UNSIGNED, *lines) == lines[0]
    assert decide(SIGNED, *lines) == lines[4]
    assert decide(PROMOTED, *lines) == lines[2]


def test_the_default_of_the_operation_comes_before_the_global_one() -> None:
    lines = "DEFAULT action=DENY", "DEFAULT op=BPF_PROG_LOAD action=ALLOW"
    assert decide(UNSIGNED, *lines) == lines[1]
    assert decide(PROMOTED, *lines) == lines[0]


@pytest.mark.parametrize(
    ("lines", "scope"),
    [
        (("op=BPF_PROG_LOAD action=DENY", "DEFAULT action=DENY"), Scope.RULE),
        (("DEFAULT op=BPF_PROG_LOAD action=DENY", "DEFAULT action=DENY"), Scope.OPERATION),
        (("DEFAULT op=EXECUTE action=ALLOW", "DEFAULT action=DENY"), Scope.GLOBAL),
    ],
)
def test_a_decision_says_what_decided(lines: tuple[str, ...], scope: Scope) -> None:
    decision = evaluate(parse_policy(HEADER + "\n".join(lines).encode()), UNSIGNED)
    assert (decision.scope, decision.is_denied) == (scope, True)
    assert (decision.rule is not None) is (scope is Scope.RULE)


def test_a_policy_with_a_default_for_every_operation_needs_no_global_one() -> None:
    lines = [f"DEFAULT op={each.value} action=DENY" for each in IpeOperation]
    for each in IpeOperation:
        assert decide(Event(each, "HOOK"), *lines) == f"DEFAULT op={each.value} action=DENY"
